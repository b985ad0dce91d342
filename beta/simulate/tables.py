"""Models, configs and a placement as the flat arrays that kernels read."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from beta.inputs.arrays import Floats, Ints
from beta.inputs.model import Model
from beta.inputs.profile import Config
from beta.plan.placement import Placement
from common.errors import InputError

STAGE_PENALTY = 0.009
"""Share by which every stage is slower per stage of the pipeline, in the fast simulator."""
OVERHEAD_S = 0.011
"""Seconds that the fast simulator adds to every answer; no device is busy meanwhile."""


class Tables(NamedTuple):
    """What models need under each config. Latencies are rounded to single precision."""

    configs: tuple[Config, ...]
    stages: Ints
    """Stages of each config: (configs,)."""
    latency: Floats
    """Seconds per stage with the penalty: (models, configs, most stages)."""
    weight: Floats
    """Bytes per device, infinite where there is no profile: (models, configs)."""
    slo: Floats
    """Seconds, rounded to single precision: (models,)."""


class Layout(NamedTuple):
    """A placement for kernels: the groups' configs and, per model, its groups ascending."""

    config: Ints
    """Index into the tables' configs: (groups,)."""
    first: Ints
    """Model m has the groups `groups[first[m]:first[m + 1]]`: (models + 1,)."""
    groups: Ints


def rounded(seconds: Floats) -> Floats:
    """Return the values as single precision holds them; the original stores them so."""
    with np.errstate(over="ignore"):
        return seconds.astype(np.float32).astype(np.float64)


def tables_of(models: Sequence[Model], configs: Sequence[Config], *, batch: int = 1) -> Tables:
    """Return the tables of all models under all configs for one batch size."""
    most = max((config.pp for config in configs), default=1)
    latency = np.full((len(models), len(configs), most), np.inf)
    weight = np.full((len(models), len(configs)), np.inf)
    for m, model in enumerate(models):
        for c, config in enumerate(configs):
            record = model.profile.records.get(config)
            if record is not None and batch in record.stage_s:
                slower = 1 + STAGE_PENALTY * config.pp
                latency[m, c, : config.pp] = np.array(record.stage_s[batch]) * slower
                weight[m, c] = record.memory_bytes
    return Tables(
        tuple(configs),
        np.array([config.pp for config in configs], np.int64),
        rounded(latency),
        weight,
        rounded(np.array([model.slo_s for model in models], np.float64)),
    )


def layout_of(placement: Placement, tables: Tables) -> Layout:
    """Return a placement as arrays; every group's config must be in the tables."""
    number = {config: c for c, config in enumerate(tables.configs)}
    models = len(tables.slo)
    hosts: list[list[int]] = [[] for _ in range(models)]
    for g, group in enumerate(placement.groups):
        for m in group.models:
            if not np.isfinite(tables.latency[m, number[group.config], 0]):
                op, pp = group.config
                raise InputError(f"group {g} runs model {m} with op {op}, pp {pp}: not profiled")
            hosts[m].append(g)
    first = np.cumsum([0, *map(len, hosts)])
    config = np.array([number[group.config] for group in placement.groups], np.int64)
    flat = np.array([g for groups in hosts for g in groups], np.int64)
    return Layout(config, first.astype(np.int64), flat)
