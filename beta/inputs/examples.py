"""Experiments to start one's own from, and those that are really served."""

import msgspec

from beta.inputs.experiment import (
    MACHINE,
    ClusterSettings,
    Experiment,
    ModelSettings,
    PlacementSettings,
)
from beta.inputs.playing import SimulatorSettings
from beta.inputs.serving import MeasureSettings, ServeSettings
from beta.inputs.traffic import Traffic, Training

SERVED_SLO_S = 0.5


def examples() -> dict[str, Experiment]:
    """Return them by name."""
    return {e.name: e for e in (small(), my_llama(), serve(), soak(), serve_delay())}


def hardware(experiment: Experiment) -> str:
    """Return what an experiment needs."""
    return "CPU (GPUs where there are some)" if experiment.profile == MACHINE else "CPU"


def small() -> Experiment:
    """Return an example to start one's own from."""
    return Experiment(
        name="small",
        about="an example to start from: ten models of two sizes on 8 devices",
        cluster=ClusterSettings(devices=8),
        models=(
            ModelSettings(types=("bert-1.3b",), count=8, slo_scale=5.0, rate=1.0, cv=4.0),
            ModelSettings(types=("bert-6.7b",), count=2, slo_s=2.0, rate=0.5, cv=2.0),
        ),
        traffic=Traffic(duration_s=600.0),
    )


def my_llama() -> Experiment:
    """Return models by their `config.json` on devices by their data sheet."""
    return Experiment(
        name="my-llama",
        about="models by config.json, devices by data sheet: eight LLMs on 8 H100, first tokens",
        cluster=ClusterSettings(devices=8, device="H100"),
        models=(
            ModelSettings(config="Llama-3.1-8B", count=6, slo_scale=5.0, rate=3.0, cv=4.0),
            ModelSettings(config="Llama-3.1-70B", count=2, slo_s=3.0, rate=0.5, cv=2.0),
        ),
        traffic=Traffic(duration_s=300.0),
    )


def serve() -> Experiment:
    """Return small models that a laptop's cores really serve."""
    return Experiment(
        name="serve",
        about="served here for a minute: six small BERTs on two cores, profile of this machine",
        cluster=ClusterSettings(devices=2, memory_gib=0.12),
        models=(
            ModelSettings(types=("bert-mini",), count=6, slo_s=SERVED_SLO_S, rate=1.0, cv=3.0),
        ),
        profile=MACHINE,
        traffic=Traffic(duration_s=60.0),
        measure=MeasureSettings(op=(1,), pp=(1, 2)),
        placement=PlacementSettings(method="mp-search"),
        simulator=SimulatorSettings(warm_up_s=0.0),
    )


def soak() -> Experiment:
    """Return the served models with two replicas each, under kills."""
    return msgspec.structs.replace(
        serve(),
        name="soak",
        about="served here for ten minutes while workers and managers are killed",
        cluster=ClusterSettings(devices=2, memory_gib=0.25),
        placement=PlacementSettings(method="sr-greedy"),
        traffic=Traffic(duration_s=600.0),
        serve=ServeSettings(kill_every_s=60.0),
    )


def serve_delay() -> Experiment:
    """Return a service whose stages only wait, so that scheduling alone is measured."""
    return Experiment(
        name="serve-delay",
        about="simulator against a real system whose stages only wait: six bert-6.7b, four devices",
        cluster=ClusterSettings(devices=4, memory_gib=26.0),
        models=(ModelSettings(types=("bert-6.7b",), count=6, slo_scale=5.0),),
        traffic=Traffic(rate=5.0, cv=4.0, duration_s=60.0),
        training=Training(seed=1234),
        placement=PlacementSettings(method="mp-search"),
        simulator=SimulatorSettings(warm_up_s=0.0),
        serve=ServeSettings(stages="delay", correct=False),
    )
