"""The paper's own runs as experiments: its placements, loads and faults (sections 6.3 to 6.8)."""

from typing import Any, Literal, NamedTuple

import msgspec

from helix.inputs.cluster_source import ClusterSource
from helix.inputs.experiment import Experiment, ModelSource
from helix.inputs.search import Method, SearchSettings
from helix.inputs.workload import Fault, Scheduler, WorkloadSettings

Mode = Literal["offline", "online"]
MODES: tuple[Mode, ...] = ("offline", "online")
ONLINE_S, OFFLINE_S, WARM_UP_S = 1800.0, 600.0, 60.0

CLUSTERS = {"single": "single24", "geo": "geo24", "het": "het42"}
MODELS = {"llama30b": "llama1_30b", "llama70b": "llama2_70b"}
LARGE, SMALL = "llama70b", "llama30b"


class Replay(NamedTuple):
    """How the artifact loads one system: queries offline, tokens/s online, by service."""

    offline: int | dict[str, int]
    online: float | dict[str, float]


def _kinds(a100: int, l4: int, t4: int) -> dict[str, Any]:
    return {"A100": a100, "L4": l4, "T4": t4}


_SP_OFFLINE, _SP_ONLINE = (
    {"A100": 1, "L4": 60, "L4X2": 35, "T4X4": 110},
    {"A100": 1.0, "L4": 140.0, "L4X2": 160.0, "T4X4": 350.0},
)

# The artifact's own command lines.
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
    ("het", "llama70b", "separate"): Replay(_SP_OFFLINE, _SP_ONLINE),
    ("het", "llama70b", "sp_plus"): Replay(
        _SP_OFFLINE | {"V100_T4": 90}, _SP_ONLINE | {"V100_T4": 200.0}
    ),
}

SOLUTIONS = {
    "helix": "{where}.{model}.ilp",
    "swarm": "",
    "separate": "{where}.{model}.separate",
    "sp_plus": "{where}.{model}.separate_plus",
}
METHODS: dict[str, Method] = {
    "helix": "published", "swarm": "swarm", "separate": "separate", "sp_plus": "separate"
}  # fmt: skip
SCHEDULERS: dict[str, Scheduler] = {
    "helix": "maxflow",
    "swarm": "swarm",
    "separate": "random",  # a machine in a row has one way to go
    "sp_plus": "random",
}
STAGES = {"llama30b": 10, "llama70b": 20}


def replay(where: str, model: str, system: str, mode: Mode) -> Experiment:
    """Return a system of sections 6.3 to 6.5 as the artifact simulates it, faults included."""
    load = REPLAYS[where, model, system]
    return _published(
        f"{where}-{model}-{system}-{mode}",
        f"{system} with {MODELS[model]} on {CLUSTERS[where]}, {mode}, as the paper",
        where,
        model,
        METHODS[system],
        SOLUTIONS[system].format(where=where, model=model),
        WorkloadSettings(
            mode=mode,
            scheduler=SCHEDULERS[system],
            initial=load.offline,
            tokens_per_s=load.online,
            duration_s=OFFLINE_S if mode == "offline" else ONLINE_S,
            warm_up_s=WARM_UP_S if mode == "offline" else 0.0,
            compat=True,
        ),
    )


def _published(
    name: str, about: str, where: str, model: str, method: Method, solution: str,
    workload: WorkloadSettings,
) -> Experiment:  # fmt: skip
    return Experiment(
        name=name,
        about=about,
        model=ModelSource(name=MODELS[model]),
        cluster=ClusterSource(named=CLUSTERS[where]),
        search=SearchSettings(
            method=method,
            published=solution,
            stages=STAGES[model] if method == "swarm" else 0,
            split="original",
        ),
        workload=workload,
    )


DEEP = WorkloadSettings(initial=20, duration_s=OFFLINE_S, warm_up_s=WARM_UP_S, compat=True)
PLACINGS: dict[str, tuple[Method, str]] = {
    "helix": ("published", "{where}.llama70b.ilp"),
    "petals": ("petals", ""),
    "swarm": ("swarm", ""),
}
SCHEDULINGS: dict[Scheduler, int] = {
    "maxflow": 20, "swarm": 180, "random": 180, "shortest_queue": 180
}  # fmt: skip


def placing(where: str, system: str) -> Experiment:
    """Return a placement of section 6.6 under Helix's own scheduler."""
    method, solution = PLACINGS[system]
    return _published(
        f"{where}-placement-{system}",
        f"{system}'s placement of LLaMA-2 70B on {CLUSTERS[where]} under Helix's scheduler",
        where, LARGE, method, solution.format(where=where), DEEP,
    )  # fmt: skip


def scheduling(scheduler: Scheduler) -> Experiment:
    """Return a scheduler of section 6.7 on the placement that the artifact gives it."""
    load = msgspec.structs.replace(DEEP, scheduler=scheduler, initial=SCHEDULINGS[scheduler])
    return _published(
        f"geo-scheduling-{scheduler}",
        f"scheduler {scheduler} on Helix's placement of LLaMA-2 70B on geo24",
        "geo", LARGE, "published", "geo.llama70b.ilp-scheduling", load,
    )  # fmt: skip


class Mended(NamedTuple):
    """A fault of the original, a run that it matters to, and the same run with it put right."""

    what: str
    base: Experiment
    right: Experiment


def _right(base: Experiment, fault: Fault) -> WorkloadSettings:
    return msgspec.structs.replace(base.workload, right=(fault,))


def _mended(what: str, number: str, base: Experiment, **changes: Any) -> Mended:
    changed = msgspec.structs.replace(
        base, name=f"fault-{number}", about=f"{base.name}, put right: {what}", **changes
    )
    return Mended(what, base, changed)


def mended() -> tuple[Mended, ...]:
    """Return every fault that the published figures contain, each put right by itself."""
    offline, online = replay("single", LARGE, "helix", "offline"), replay(
        "single", LARGE, "helix", "online"
    )  # fmt: skip
    swarm = replay("geo", LARGE, "swarm", "offline")
    lonely = replay("single", LARGE, "separate", "online")
    separate = replay("single", LARGE, "separate", "offline")
    split = replay("het", LARGE, "helix", "offline")
    units = "a link of '1 gbps' carries 1 GB/s, not 1 Gbit/s"
    slower = msgspec.structs.replace(offline.cluster, bandwidth_scale=0.125)
    return (
        _mended(units, "units", offline, cluster=slower),
        _mended("arrival intervals are drawn one by one, so that bursts are lost", "trace", online,
                workload=_right(online, "shuffled_trace")),
        _mended("a batch of one decode takes twice its time", "single-decode", lonely,
                workload=_right(lonely, "doubled_single_decode")),
        _mended("a receiver's network card is free while a transfer arrives", "receiver", swarm,
                workload=_right(swarm, "receiver_free_while_arriving")),
        _mended("14 times the KV capacity, and so the queries, on one baseline's A100s", "kv",
                separate,
                search=msgspec.structs.replace(separate.search, calibration="geo24"),
                workload=msgspec.structs.replace(separate.workload, initial=_kinds(1, 40, 3))),
        _mended("which of the equal maximum flows is taken follows a hash set", "split", split,
                search=msgspec.structs.replace(split.search, split="least-latency")),
    )  # fmt: skip
