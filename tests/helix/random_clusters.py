"""Clusters as users may have them, drawn at random: machines, regions, links and a model."""

import numpy as np

from common.errors import InputError
from helix.inputs.cluster_source import ClusterSource, LinkSource, MachineGroup
from helix.inputs.experiment import ROOFLINE, Experiment, ProfileSource
from helix.inputs.model_source import ModelSource
from helix.inputs.search import SearchSettings
from helix.inputs.workload import WorkloadSettings
from helix.plan.question import ask

KINDS = ("T4", "L4", "RTX 4090", "A100-40GB-SXM", "L40S", "V100", "H100", "A10")
MODELS = ("Llama-3-8B", "Qwen3-32B", "Llama-3.1-70B")
REGIONS = ("us", "eu", "asia", "home")
MOST_KINDS = 5


def drawn(
    seed: int, machines: tuple[int, int] = (2, 60), search: SearchSettings | None = None,
    workload: WorkloadSettings | None = None,
) -> Experiment:  # fmt: skip
    """Return an experiment on as many machines, of 1 to 5 kinds in 1 to 4 regions.

    Links between regions carry 2 Mbit/s to 10 Gbit/s in 1 to 300 ms. Clusters that cannot hold
    their model are drawn anew.
    """
    rng = np.random.default_rng(seed)
    while True:
        experiment = Experiment(
            name=f"drawn-{seed}",
            model=ModelSource(config=str(rng.choice(MODELS))),
            cluster=_cluster(rng, int(rng.integers(machines[0], machines[1] + 1))),
            profile=ProfileSource(source=ROOFLINE),
            search=search or SearchSettings(),
            workload=workload or WorkloadSettings(),
        )
        try:
            ask(experiment)
        except InputError:
            continue
        return experiment


def _cluster(rng: np.random.Generator, machines: int) -> ClusterSource:
    kinds = rng.choice(KINDS, int(rng.integers(1, MOST_KINDS + 1)), replace=False)
    regions = REGIONS[: int(rng.integers(1, len(REGIONS) + 1))]
    placed = [(str(rng.choice(kinds)), str(rng.choice(regions))) for _ in range(machines)]
    regions = tuple(dict.fromkeys(region for _, region in placed))
    groups = [
        MachineGroup(kind=kind, region=region, count=placed.count((kind, region)))
        for kind, region in dict.fromkeys(placed)
    ]
    links = [
        LinkSource(
            between=(one, other),
            gbit_per_s=float(10 ** rng.uniform(np.log10(0.002), 1)),
            latency_ms=float(10 ** rng.uniform(0, np.log10(300))),
        )
        for i, one in enumerate(regions)
        for other in regions[:i]
    ]
    return ClusterSource(
        machines=tuple(groups),
        coordinator_region=regions[0],
        default_link=LinkSource(gbit_per_s=float(rng.choice([1.0, 10.0, 100.0])), latency_ms=0.5),
        links=tuple(links),
    )
