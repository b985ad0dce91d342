"""Experiments that really serve: heterogeneous machines, all played on this one.

A small random LLaMA on six machines of three kinds in two regions. Every kind is this machine,
several times slower: its profile is measured here and its batches last as long as it says. Links
take the delay and bandwidth they are given. So what is measured can be held against what is
simulated from the same measured profile.
"""

from typing import Literal

from helix.inputs.cluster_source import ClusterSource, LinkSource, MachineGroup
from helix.inputs.examples import TINY
from helix.inputs.experiment import HERE, Experiment, KindSource, ProfileSource
from helix.inputs.search import Method, SearchSettings
from helix.inputs.serving import ServeSettings
from helix.inputs.workload import Scheduler, WorkloadSettings

Mode = Literal["offline", "online"]
SYSTEMS: dict[str, tuple[Method, Scheduler]] = {
    "helix": ("search", "maxflow"),
    "swarm": ("swarm", "swarm"),
    "separate": ("separate", "random"),
}
INITIAL: dict[str, int | dict[str, int]] = {
    "helix": 12,
    "swarm": 20,
    "separate": {"FAST": 12, "MIDDLING": 8, "SLOW": 6},
}
TOKENS_PER_S: dict[str, float | dict[str, float]] = {
    "helix": 300.0,
    "swarm": 240.0,
    "separate": {"FAST": 140.0, "MIDDLING": 90.0, "SLOW": 60.0},
}

KINDS = {
    "fast": KindSource(slower=20.0, memory_gb=0.048, most_layers=5),
    "middling": KindSource(slower=32.0, memory_gb=0.032, most_layers=4),
    "slow": KindSource(slower=48.0, memory_gb=0.024, most_layers=4),
}


def played(system: str, mode: Mode) -> Experiment:
    """Return one system on the played cluster, under a minute of its workload."""
    method, scheduler = SYSTEMS[system]
    return Experiment(
        name=f"played-{system}-{mode}",
        about=f"{system} really serving a small LLaMA on six played machines, {mode}",
        model=TINY,
        cluster=ClusterSource(
            machines=(
                MachineGroup(kind="fast", count=2, region="here"),
                MachineGroup(kind="middling", count=2, region="here"),
                MachineGroup(kind="slow", count=2, region="there"),
            ),
            coordinator_region="here",
            default_link=LinkSource(gbit_per_s=1.0, latency_ms=1.0),
            links=(LinkSource(between=("here", "there"), gbit_per_s=0.1, latency_ms=10.0),),
        ),
        profile=ProfileSource(source=HERE, kinds=KINDS),
        search=SearchSettings(method=method, evaluations=20_000, chains=4, simulations=40),
        workload=WorkloadSettings(
            mode=mode,
            scheduler=scheduler,
            initial=INITIAL[system],
            tokens_per_s=TOKENS_PER_S[system],
            duration_s=60.0,
            warm_up_s=15.0 if mode == "offline" else 0.0,
        ),
        serve=ServeSettings(load="workload", play=True),
    )


def experiments() -> list[Experiment]:
    """Return all of them."""
    modes: tuple[Mode, ...] = ("offline", "online")
    return [played(system, mode) for system in SYSTEMS for mode in modes]
