"""The named experiments, and the suites `quick` and `full` as lists of cases."""

from functools import cache
from typing import Any, Literal, NamedTuple

import msgspec

from helix import played
from helix.inputs.cluster_source import ClusterSource, LinkSource, MachineGroup
from helix.inputs.experiment import (
    ROOFLINE,
    Experiment,
    KindSource,
    Method,
    ModelSource,
    ProfileSource,
    Scheduler,
    SearchSettings,
    WorkloadSettings,
)
from helix.inputs.roofline import Shape

Verb = Literal["plan", "simulate", "run"]
Mode = Literal["offline", "online"]

ONLINE_S = 1800.0
MODES: tuple[Mode, ...] = ("offline", "online")

CLUSTERS = {"single": "single24", "geo": "geo24", "het": "het42"}
MODELS = {"llama30b": "llama1_30b", "llama70b": "llama2_70b"}


class Case(NamedTuple):
    """One thing to do: a verb on a named experiment."""

    verb: Verb
    experiment: str


class Replay(NamedTuple):
    """How the artifact loads one system: queries offline, tokens/s online, by service."""

    offline: int | dict[str, int]
    online: float | dict[str, float]


def _kinds(a100: int, l4: int, t4: int) -> dict[str, Any]:
    return {"A100": a100, "L4": l4, "T4": t4}


# The artifact's own command lines; spec of the offered load in sections 6.3 to 6.5.
REPLAYS: dict[tuple[str, str, str], Replay] = {
    ("single", "llama30b", "helix"): Replay(20, _kinds(600, 200, 170)),
    ("single", "llama30b", "swarm"): Replay(50, 450),
    ("single", "llama30b", "separate"): Replay(_kinds(30, 25, 25), _kinds(500, 150, 150)),
    ("single", "llama70b", "helix"): Replay(20, 700),
    ("single", "llama70b", "swarm"): Replay(180, 350),
    ("single", "llama70b", "separate"): Replay(_kinds(18, 40, 3), _kinds(240, 120, 10)),
    ("geo", "llama30b", "helix"): Replay(20, _kinds(560, 140, 140)),
    ("geo", "llama30b", "swarm"): Replay(60, 380),
    ("geo", "llama30b", "separate"): Replay(_kinds(35, 40, 40), _kinds(520, 100, 140)),
    ("geo", "llama70b", "helix"): Replay(20, 320),
    ("geo", "llama70b", "swarm"): Replay(180, 160),
    ("geo", "llama70b", "separate"): Replay(_kinds(1, 60, 50), _kinds(1, 120, 60)),
    ("het", "llama70b", "helix"): Replay(20, 2150),
    ("het", "llama70b", "swarm"): Replay(500, 1450),
}

SOLUTIONS = {"helix": "{where}.{model}.ilp", "swarm": "", "separate": "{where}.{model}.separate"}
METHODS: dict[str, Method] = {"helix": "published", "swarm": "swarm", "separate": "separate"}
SCHEDULERS: dict[str, Scheduler] = {
    "helix": "maxflow",
    "swarm": "swarm",
    "separate": "random",  # a machine in a row has one way to go
}


def replay(where: str, model: str, system: str, mode: Mode) -> Experiment:
    """Return a system of sections 6.3 to 6.5 as the artifact simulates it, faults included."""
    load = REPLAYS[where, model, system]
    method = METHODS[system]
    stages = {"llama30b": 10, "llama70b": 20}[model] if method == "swarm" else 0
    return Experiment(
        name=f"{where}-{model}-{system}-{mode}",
        about=f"{system} with {MODELS[model]} on {CLUSTERS[where]}, {mode}, as the paper",
        model=ModelSource(name=MODELS[model]),
        cluster=ClusterSource(named=CLUSTERS[where]),
        search=SearchSettings(
            method=method,
            published=SOLUTIONS[system].format(where=where, model=model),
            stages=stages,
            split="original",
        ),
        workload=WorkloadSettings(
            mode=mode,
            scheduler=SCHEDULERS[system],
            initial=load.offline,
            tokens_per_s=load.online,
            duration_s=600.0 if mode == "offline" else ONLINE_S,
            warm_up_s=60.0 if mode == "offline" else 0.0,
            compat=True,
        ),
    )


def searched(where: str, model: str, mode: Mode) -> Experiment:
    """Return the same question with a placement of our own, at Helix's load and with its faults."""
    base = replay(where, model, "helix", mode)
    load = REPLAYS[where, model, "helix"]
    rate = sum(load.online.values()) if isinstance(load.online, dict) else load.online
    return msgspec.structs.replace(
        base,
        name=f"{where}-{model}-search-{mode}",
        about=f"our own placement of {MODELS[model]} on {CLUSTERS[where]}, {mode}",
        search=SearchSettings(),
        workload=msgspec.structs.replace(base.workload, initial=20, tokens_per_s=rate),
    )


def own_cluster() -> Experiment:
    """Return a small question to start one's own from: five kinds, three regions, a slow link."""
    return Experiment(
        name="my-cluster",
        about="13 machines of five kinds in three regions, one slow link; a 70B model, roofline",
        model=ModelSource(
            name="llama-70b",
            layers=80,
            shape=Shape(hidden_size=8192, intermediate_size=28672, heads=64, kv_heads=8),
        ),
        cluster=ClusterSource(
            machines=(
                MachineGroup(kind="A100", count=3, region="us"),
                MachineGroup(kind="L40S", count=2, region="us"),
                MachineGroup(kind="L4", count=4, region="eu"),
                MachineGroup(kind="T4x4", count=2, region="eu"),
                MachineGroup(kind="V100", count=2, region="asia"),
            ),
            coordinator_region="us",
            links=(
                LinkSource(between=("us", "eu"), gbit_per_s=1.0, latency_ms=45.0),
                LinkSource(between=("us", "asia"), gbit_per_s=0.5, latency_ms=80.0),
                LinkSource(between=("eu", "asia"), gbit_per_s=0.5, latency_ms=120.0),
                LinkSource(between=("0", "4"), gbit_per_s=0.1, latency_ms=5.0),
            ),
        ),
        profile=ProfileSource(source=ROOFLINE, kinds={"T4x4": KindSource(gpu="T4", gpus=4)}),
    )


@cache
def named() -> dict[str, Experiment]:
    """Return all named experiments."""
    found = [own_cluster()]
    for where, model, system in REPLAYS:
        found += [replay(where, model, system, mode) for mode in MODES]
    for where, model in dict.fromkeys((w, m) for w, m, _ in REPLAYS):
        found += [searched(where, model, mode) for mode in MODES]
    found += played.experiments()
    return {experiment.name: experiment for experiment in found}


def _replays(*clusters: str) -> tuple[Case, ...]:
    return tuple(
        Case("simulate", f"{where}-{model}-{system}-{mode}")
        for where, model, system in REPLAYS
        for mode in MODES
        if where in clusters
    )


def _searches(*questions: tuple[str, str]) -> tuple[Case, ...]:
    return tuple(
        case
        for where, model in questions
        for case in (
            Case("plan", f"{where}-{model}-search-offline"),
            Case("simulate", f"{where}-{model}-search-offline"),
            Case("simulate", f"{where}-{model}-search-online"),
        )
    )


LARGE, SMALL = "llama70b", "llama30b"
SUITES: dict[str, tuple[Case, ...]] = {
    "quick": (
        *_replays("single", "geo"),
        *_searches(("single", LARGE), ("geo", LARGE)),
        Case("run", "played-helix-online"),
    ),
    "full": (
        *_replays("single", "geo", "het"),
        *_searches(("single", LARGE), ("geo", LARGE), ("het", LARGE)),
        *_searches(("single", SMALL), ("geo", SMALL)),
        *(Case("run", f"played-{system}-{mode}") for system in played.SYSTEMS for mode in MODES),
    ),
}
