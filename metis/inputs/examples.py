"""Experiments to start one's own from."""

from metis.inputs.cluster import NodeGroup
from metis.inputs.experiment import (
    ANALYTIC,
    MEASURE,
    ClusterSource,
    Experiment,
    ProfileSource,
    SearchSettings,
    TrainingSettings,
)
from metis.inputs.model import Model


def examples() -> dict[str, Experiment]:
    """Return them by name."""
    return {e.name: e for e in (mixed_44(), my_llama(), tiny_cpu(2), tiny_cpu(4))}


def hardware(experiment: Experiment) -> str:
    """Return what an experiment needs."""
    measured = experiment.profile.source == MEASURE
    return "CPU (GPUs where there are some)" if measured else "CPU"


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


def my_llama() -> Experiment:
    """Return a model by its config on data-sheet devices: Llama-3-8B on 8 A100 and 8 V100."""
    return Experiment(
        name="my-llama",
        about="Llama-3-8B from its config on 8 A100 and 8 V100, by the analytic profile",
        model=Model(name="Llama-3-8B", config="Llama-3-8B", sequence_length=4096, global_batch=128),
        cluster=ClusterSource(
            nodes=(NodeGroup(device="A100", devices=8), NodeGroup(device="V100", devices=8))
        ),
        profile=ProfileSource(source=ANALYTIC, max_tp=8, max_batch_size=8),
        search=SearchSettings(time_limit_s=20.0),
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
