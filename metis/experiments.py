"""The named experiments, and the suites `quick` and `full` as lists of cases."""

import tomllib
from functools import cache
from importlib import resources
from typing import Literal, NamedTuple

import msgspec

from metis.inputs.cluster import NodeGroup
from metis.inputs.experiment import (
    MEASURE,
    ClusterSource,
    Experiment,
    Method,
    ProfileSource,
    SearchSettings,
    TrainingSettings,
)
from metis.inputs.model import Model

Verb = Literal["plan", "simulate", "run"]

NODE_DEVICES = 4
"""Devices per node in Table 1's clusters."""

LIMIT = 128
"""Largest tensor degree and batch size of Table 1's synthetic profile."""


class Case(NamedTuple):
    """One thing to do: a verb on an experiment by a method."""

    verb: Verb
    experiment: str
    method: Method


class PublishedCell(msgspec.Struct, frozen=True):
    """One policy of one row of Table 1."""

    count: int
    wall_ms: float
    cost: float
    order: tuple[str, ...]


class PublishedRow(msgspec.Struct, frozen=True):
    """One row of Table 1."""

    row: int
    layers: int
    per_type: int
    reduction_percent: float
    metis: PublishedCell
    stratified: PublishedCell


class PublishedTable(msgspec.Struct, frozen=True):
    """Table 1 as printed (`data/table1.toml`)."""

    source: str
    first_profile: str
    row: tuple[PublishedRow, ...]


@cache
def published_table() -> PublishedTable:
    """Return the published Table 1."""
    text = resources.files("metis").joinpath("data/table1.toml").read_text()
    return msgspec.convert(tomllib.loads(text), PublishedTable)


def table1(row: PublishedRow) -> Experiment:
    """Return a row of Table 1 as the artifact runs it (A100 first, profile A100 tp1 bs1 first)."""
    nodes = row.per_type // NODE_DEVICES
    return Experiment(
        name=f"table1-row{row.row}",
        about=f"Table 1 row {row.row}: {row.layers} layers, {row.per_type} A100 +"
        f" {row.per_type} V100, as the artifact searches",
        model=Model(name="GPT3", layers=row.layers),
        cluster=ClusterSource(
            nodes=(
                NodeGroup(device="A100", count=nodes, devices=NODE_DEVICES),
                NodeGroup(device="V100", count=nodes, devices=NODE_DEVICES),
            )
        ),
        profile=ProfileSource(max_tp=LIMIT, max_batch_size=LIMIT, memory="flat"),
        search=SearchSettings(
            method="stratified",
            mode="compat",
            node_sequence=("A100", "V100"),
            first_profile="A100_tp1_bs1",
        ),
    )


def as_printed(row: PublishedRow, policy: Literal["metis", "stratified"]) -> Experiment:
    """Return the row with the node order and the first profile behind its printed cost."""
    base, cell = table1(row), getattr(row, policy)
    return msgspec.structs.replace(
        base,
        name=f"{base.name}-printed-{policy}",
        about=f"{base.about}, with the order and first profile behind the printed {policy} cost",
        search=msgspec.structs.replace(
            base.search,
            method=policy,
            node_sequence=cell.order,
            first_profile=published_table().first_profile,
        ),
    )


def strict(row: PublishedRow) -> Experiment:
    """Return the row's cluster and profile with the original's defects mended."""
    base = table1(row)
    return msgspec.structs.replace(
        base,
        name=f"{base.name}-strict",
        about=f"{base.about.removesuffix(', as the artifact searches')}, defects mended",
        search=SearchSettings(node_sequence=("A100", "V100"), memory_fraction=1.0),
    )


def mixed_44() -> Experiment:
    """Return a cluster that the original cannot search: 3 x 8 A100 and 5 x 4 T4."""
    return Experiment(
        name="mixed-44",
        about="28 layers on 3 nodes of 8 A100 and 5 nodes of 4 T4 (44 devices)",
        model=Model(name="GPT3", layers=28),
        cluster=ClusterSource(
            nodes=(
                NodeGroup(device="A100", count=3, devices=8),
                NodeGroup(device="T4", count=5, devices=4),
            )
        ),
        search=SearchSettings(group_variance=0.5, max_permute_len=6, time_limit_s=20.0),
    )


def tiny_cpu(ranks: int) -> Experiment:
    """Return a small model that CPU ranks really train, in memory that forces a pipeline."""
    return Experiment(
        name=f"tiny-cpu-{ranks}",
        about=f"a 10-layer toy GPT on {ranks} CPU ranks: profiled, planned, trained",
        model=Model(
            name="toy",
            layers=10,
            hidden_size=128,
            sequence_length=64,
            vocabulary=1024,
            heads=4,
            global_batch=16,
        ),
        cluster=ClusterSource(
            nodes=(
                NodeGroup(
                    device="CPU",
                    count=2,
                    devices=ranks // 2,
                    memory_gb=0.03,
                    intra_bandwidth=2.0,
                    inter_bandwidth=1.0,
                ),
            )
        ),
        profile=ProfileSource(source=MEASURE, max_tp=2, max_batch_size=8),
        training=TrainingSettings(steps=6),
    )


@cache
def named() -> dict[str, Experiment]:
    """Return all experiments by name."""
    rows = published_table().row
    experiments = [table1(row) for row in rows]
    experiments += [strict(row) for row in rows]
    experiments += [as_printed(row, "metis") for row in rows]
    experiments += [as_printed(row, "stratified") for row in rows]
    experiments += [mixed_44(), tiny_cpu(2), tiny_cpu(4)]
    return {experiment.name: experiment for experiment in experiments}


def _rows(*rows: int) -> tuple[Case, ...]:
    cases: list[Case] = []
    for row in rows:
        name = f"table1-row{row}"
        cases += [Case("plan", name, "metis"), Case("plan", name, "stratified")]
        cases += [Case("plan", name, "optimal")]
        cases += [
            Case("plan", f"{name}-printed-metis", "metis"),
            Case("plan", f"{name}-printed-stratified", "stratified"),
        ]
        cases += [Case("plan", f"{name}-strict", m) for m in ("metis", "stratified", "optimal")]
        cases += [Case("simulate", f"{name}-strict", "optimal")]
    return tuple(cases)


_TRAINED: tuple[Verb, ...] = ("simulate", "run")

_REAL = tuple(Case(verb, f"tiny-cpu-{ranks}", "optimal") for ranks in (2, 4) for verb in _TRAINED)

SUITES: dict[str, tuple[Case, ...]] = {
    "quick": (*_rows(1, 3), *_REAL),
    "full": (
        *_rows(1, 2, 3, 4),
        *(
            Case("plan", f"table1-row{row}{kind}", "wider")
            for row in (1, 2, 3, 4)
            for kind in ("", "-strict")
        ),
        Case("plan", "mixed-44", "optimal"),
        Case("plan", "mixed-44", "wider"),
        Case("simulate", "mixed-44", "optimal"),
        *_REAL,
    ),
}

FULL_TRIALS = 3
"""Times each search of the suite `full` is repeated."""
