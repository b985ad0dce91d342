"""The experiments of section 3: why models should share devices at all."""

from collections.abc import Iterator

import msgspec

from beta.inputs.experiment import ClusterSettings, Experiment, ModelSettings, PlacementSettings
from beta.inputs.playing import SimulatorSettings
from beta.inputs.traffic import Traffic, Training

OVERHEADS = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5)
"""Figure 7b: factors on the latency that a pipeline of 8 takes."""


def _experiment(
    name: str, about: str, models: tuple[ModelSettings, ...], memory: float, traffic: Traffic
) -> Experiment:
    return Experiment(
        name=name,
        about=f"section 3: {about}",
        cluster=ClusterSettings(devices=2 if len(models) > 1 else 8, memory_gib=memory),
        models=models,
        traffic=traffic,
        training=Training(on="same"),
        placement=PlacementSettings(method="mp-search", mode="compat"),
        simulator=SimulatorSettings(kind="fast"),
    )


def motivating() -> Iterator[Experiment]:
    """Yield the experiments of Figures 2 and 4 to 7."""
    settings = (("even", (1.5, 1.5), 1.0), ("uneven", (0.6, 2.4), 1.0), ("bursty", (1.5, 1.5), 3.0))
    for name, rates, cv in settings:
        two = tuple(
            ModelSettings(types=("bert-6.7b",), names=(f"model-{i}",), rate=rate)
            for i, rate in enumerate(rates)
        )
        traffic = Traffic(cv=cv, duration_s=20000.0)
        about = f"two models on two devices, {name} requests"
        yield _experiment(f"fig2-{name}", about, two, 14.0, traffic)
    eight = (ModelSettings(types=("bert-2.6b",), count=8),)
    targeted = (ModelSettings(types=("bert-2.6b",), count=8, slo_scale=5.0),)
    uniform = Traffic(rate=20.0, distribution="uniform", cv=3.0, duration_s=20000.0)
    shorter = msgspec.structs.replace(uniform, duration_s=1000.0)
    longer = msgspec.structs.replace(uniform, duration_s=100000.0)
    quicker = msgspec.structs.replace(uniform, rate=30.0, duration_s=500.0)
    yield _experiment("fig4", "latency by memory", eight, 13.0, uniform)
    yield _experiment("fig5", "latency by rate", eight, 13.0, shorter)
    yield _experiment("fig6", "latency by burstiness", eight, 13.0, longer)
    yield _experiment("fig7", "attainment by latency target", targeted, 13.0, quicker)
    for overhead in OVERHEADS:
        entry = msgspec.structs.replace(targeted[0], overhead=overhead)
        about = f"attainment by latency target, pipelines of overhead {overhead}"
        yield _experiment(f"fig7b-{overhead}", about, (entry,), 13.0, quicker)
