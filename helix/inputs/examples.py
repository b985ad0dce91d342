"""Experiments to start one's own from: a cluster to plan for, and a service to try."""

from helix.inputs.cluster_source import ClusterSource, LinkSource, MachineGroup
from helix.inputs.experiment import (
    HERE,
    ROOFLINE,
    Experiment,
    KindSource,
    ProfileSource,
)
from helix.inputs.layer import Shape
from helix.inputs.model_source import ModelSource
from helix.inputs.search import SearchSettings

TINY = ModelSource(
    name="llama-tiny",
    layers=8,
    shape=Shape(hidden_size=64, intermediate_size=128, heads=4, kv_heads=2, value_bytes=4),
)
"""A LLaMA that any machine really serves, with random weights."""


def examples() -> dict[str, Experiment]:
    """Return them by name."""
    return {e.name: e for e in (own_cluster(), own_model(), serve_tiny())}


def own_cluster() -> Experiment:
    """Return five kinds of machines in three regions, with one slow link."""
    kinds = {
        "A100": KindSource(gpu="A100-40GB-SXM"),
        "T4x4": KindSource(gpu="T4", gpus=4),
    }
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
        profile=ProfileSource(source=ROOFLINE, kinds=kinds),
    )


def own_model() -> Experiment:
    """Return a model of the catalogue on one server."""
    return Experiment(
        name="my-llama",
        about="Llama-3.1-70B by its config on 8 H100 in one server, analytic profile",
        model=ModelSource(config="Llama-3.1-70B"),
        cluster=ClusterSource(
            machines=(MachineGroup(kind="H100", count=8),),
            default_link=LinkSource(gbit_per_s=400.0, latency_ms=0.05),
        ),
        profile=ProfileSource(source=ROOFLINE),
    )


def serve_tiny() -> Experiment:
    """Return a service of a small random model to try on any machine, for clients.

    Placed by the closed form, so that it opens in seconds: so fast a model takes long to simulate.
    """
    return Experiment(
        name="serve-tiny",
        about="four machines of this one's kind serve a small random LLaMA to HTTP clients",
        model=TINY,
        cluster=ClusterSource(machines=(MachineGroup(kind="this", count=4),)),
        profile=ProfileSource(
            source=HERE, kinds={"this": KindSource(memory_gb=0.05, most_layers=6)}
        ),
        search=SearchSettings(
            method="search", objective="latency-flow", evaluations=20_000, chains=4, simulations=40
        ),
    )
