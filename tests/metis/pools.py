"""Random small pools of unlike nodes, and the clusters whose best plans are known."""

import random
from pathlib import Path

from metis.inputs.cluster import Cluster, NodeGroup
from metis.inputs.experiment import ClusterSource, Experiment, ProfileSource, SearchSettings
from metis.inputs.model import Model
from metis.plan.methods import make_problem
from metis.plan.problem import Problem
from tests.metis.problems import STRICT, make_profiles

SPEEDS = {"A": 1.0, "B": 2.5, "C": 6.0}


def node(draw: random.Random, kinds: list[str], most: int) -> NodeGroup:
    """Draw one node of at most so many devices."""
    return NodeGroup(
        device=draw.choice(kinds),
        devices=min(draw.choice([1, 1, 2, 2, 3, 4]), most),
        memory_gb=draw.choice([2.0, 3.0, 6.0, 24.0]),
        intra_bandwidth=draw.choice([1.0, 20.0, 50.0]),
        inter_bandwidth=draw.choice([0.05, 2.0, 10.0]),
    )


def tiny_pool(seed: int) -> Problem:
    """Draw 2 to 6 devices in up to 4 nodes of up to 3 types, and 3 to 6 layers."""
    draw = random.Random(seed)
    kinds, left = (
        draw.sample(list(SPEEDS), k=draw.choice([1, 2, 2, 3])),
        draw.choice([2, 3, 4, 5, 6]),
    )
    nodes = list[NodeGroup]()
    while left > 0 and len(nodes) < 4:
        nodes.append(node(draw, kinds, left))
        left -= nodes[-1].devices
    layers, cluster = draw.randint(3, 6), Cluster(nodes=tuple(nodes))
    return Problem(
        model=Model(
            layers=layers,
            hidden_size=256,
            sequence_length=128 * draw.choice([1, 16]),
            heads=8,
            global_batch=draw.choice([2, 4, 6, 8]),
        ),
        cluster=cluster,
        profiles=make_profiles(layers, SPEEDS, uneven=draw.random() < 0.5, max_tp=16),
        node_types=tuple(cluster.device_types()),
        switches=STRICT,
        max_tp=16,
        max_batch_size=draw.choice([2, 16]),
        group_variance=1.0,
        max_permute_len=128,
    )


def pool(
    *nodes: NodeGroup,
    layers: int = 26,
    batch: int = 64,
    max_tp: int = 4,
    max_batch_size: int = 16,
    scale: dict[str, float] | None = None,
    **search: object,
) -> Experiment:
    """The GPT of the published profile on some nodes."""
    return Experiment(
        name="pool",
        model=Model(layers=layers, global_batch=batch),
        cluster=ClusterSource(nodes=nodes),
        profile=ProfileSource(
            source="synthetic", max_tp=max_tp, max_batch_size=max_batch_size, time_scale=scale or {}
        ),
        search=SearchSettings(**{"time_limit_s": 60.0, **search}),
    )


def problem_of(experiment: Experiment) -> Problem:
    """The planning problem of an experiment."""
    cluster = experiment.load_cluster()
    return make_problem(experiment, cluster, experiment.load_profiles(cluster, Path()))


H100 = NodeGroup(
    device="H100", count=4, devices=8, memory_gb=80, intra_bandwidth=450, inter_bandwidth=50
)
A10G = NodeGroup(
    device="A10G", count=2, devices=4, memory_gb=24, intra_bandwidth=32, inter_bandwidth=10
)
FASTER = {"H100": 0.4, "A10G": 2.2}
