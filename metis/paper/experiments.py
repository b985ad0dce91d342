"""The paper's experiments (Table 1), and the suites `quick` and `full` as lists of cases."""

import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Literal

import msgspec

from common.artifact import Case, with_field
from metis.inputs.cluster import NodeGroup
from metis.inputs.examples import examples
from metis.inputs.experiment import (
    ClusterSource,
    Experiment,
    Method,
    ProfileSource,
    SearchSettings,
)
from metis.inputs.model import Model

NODE_DEVICES = 4
"""Devices per node in Table 1's clusters."""

LIMIT = 128
"""Largest tensor degree and batch size of Table 1's synthetic profile."""


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
    """Table 1 as printed (`table1.toml`)."""

    source: str
    first_profile: str
    row: tuple[PublishedRow, ...]


@cache
def published_table() -> PublishedTable:
    """Return the published Table 1."""
    text = resources.files("metis.paper").joinpath("table1.toml").read_text()
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


@cache
def named() -> dict[str, Experiment]:
    """Return the paper's experiments by name."""
    rows = published_table().row
    experiments = [table1(row) for row in rows]
    experiments += [strict(row) for row in rows]
    experiments += [as_printed(row, "metis") for row in rows]
    experiments += [as_printed(row, "stratified") for row in rows]
    return {experiment.name: experiment for experiment in experiments}


def _rows(*rows: int) -> Iterator[Case]:
    for row in rows:
        name = f"table1-row{row}"
        for method in ("metis", "stratified", "optimal"):
            yield _case("plan", name, method)
        for method in ("metis", "stratified"):
            yield _case("plan", f"{name}-printed-{method}", method)
        for method in ("metis", "stratified", "walks"):
            yield _case("plan", f"{name}-strict", method)
        yield _case("simulate", f"{name}-strict", "walks")


def _case(verb: str, name: str, method: Method) -> Case:
    experiment = (named() | examples())[name]
    return Case(verb=verb, experiment=with_field(experiment, "search.method", method))


def suites() -> dict[str, list[Case]]:
    """Return the suites: `full` repeats every search to time it."""
    real = [_case(v, f"tiny-cpu-{ranks}", "optimal") for ranks in (2, 4) for v in _TRAINED]
    full = [
        *_rows(1, 2, 3, 4),
        *(
            _case("plan", f"table1-row{row}{kind}", "wider")
            for row in (1, 2, 3, 4)
            for kind in ("", "-strict")
        ),
        _case("plan", "mixed-44", "optimal"),
        _case("plan", "mixed-44", "wider"),
        _case("simulate", "mixed-44", "optimal"),
        *real,
    ]
    return {"quick": [*_rows(1, 3), *real], "full": [_repeated(case) for case in full]}


def _repeated(case: Case) -> Case:
    if case.verb != "plan":
        return case
    experiment = with_field(case.experiment, "search.trials", FULL_TRIALS)
    return msgspec.structs.replace(case, experiment=experiment)


_TRAINED = ("simulate", "run")

FULL_TRIALS = 3
"""Times each search of the suite `full` is repeated."""
