"""The paper's experiments (sections 6.2 to 6.5) by name, and what goes beyond them."""

from collections.abc import Iterator
from functools import cache

import msgspec

from beta.inputs.experiment import (
    LARGE,
    ClusterSettings,
    Experiment,
    ModelSettings,
    PlacementSettings,
)
from beta.inputs.model import MIX
from beta.inputs.playing import SimulatorSettings
from beta.inputs.traffic import Traffic, Training
from beta.paper.section3 import motivating

BERTS = ("bert-6.7b", "bert-2.6b", "bert-1.3b")
"""The mixed set of the ablation's smaller variant."""


COMPAT = PlacementSettings(mode="compat")
ONE_BY_ONE = SimulatorSettings(kind="fast")
"""The simulator of all published figures."""
IMPROVE_S = 20.0
"""Time limit of local search in the report, seconds."""
HOURS = (("5.8", "5.1"), ("11.9", "0.12"), ("12.11", "0.7"))
"""Section 6.4: hours of training and of testing, drawn by the authors."""


def _maf(
    name: str, year: int, models: ModelSettings, devices: int, rate_scale: float
) -> Experiment:
    first = year == 2019
    traffic = Traffic(
        source="azure2019" if first else "azure2021",
        start="0.0.0" if first else "13.0.0",
        end="0.1.0" if first else "13.23.60",
        rate_scale=rate_scale,
        cv_scale=4.0 if first else 1.0,
        window_s=60.0 if first else 5400.0,
    )
    mixed = len(models.types) > 1
    return Experiment(
        name=name,
        about=f"section 6.2: {models.count} {'mixed models' if mixed else models.types[0]},"
        f" Azure {year} trace (stand-in unless traffic.path is given)",
        cluster=ClusterSettings(devices=devices),
        models=(models,),
        traffic=traffic,
        training=Training(on="same"),
        placement=PlacementSettings(
            method="mp-search-sep" if mixed else "mp-search", mode="compat"
        ),
        simulator=ONE_BY_ONE,
    )


def _sets() -> dict[str, ModelSettings]:
    return {
        "s1": ModelSettings(types=("bert-1.3b",), count=48, slo_scale=5.0),
        "s2": ModelSettings(types=("bert-6.7b",), count=48, slo_scale=5.0),
        "s3": ModelSettings(types=MIX, count=72, slo_scale=5.0),
    }


def ablation(
    name: str, about: str, training: Training, models: ModelSettings, devices: int
) -> Experiment:
    """Return section 6.5's setting."""
    return Experiment(
        name=name,
        about=about,
        cluster=ClusterSettings(devices=devices),
        models=(models,),
        traffic=Traffic(rate=64.0, cv=4.0, duration_s=200.0),
        training=training,
        placement=COMPAT,
        simulator=ONE_BY_ONE,
    )


def large() -> Experiment:
    """Return section 6.3's setting, with a stand-in for the model's profile."""
    return Experiment(
        name="large",
        about="section 6.3: 4 models of 103.5 billion weights (stand-in profile) on 64 devices",
        cluster=ClusterSettings(devices=64),
        models=(ModelSettings(types=(LARGE,), count=4, slo_scale=2.0),),
        traffic=Traffic(rate=8.0, cv=4.0, duration_s=1200.0),
        training=Training(on="same"),
        placement=PlacementSettings(method="mp-search", mode="compat"),
        simulator=ONE_BY_ONE,
    )


def fidelity() -> Experiment:
    """Return the simulator's comparison with the testbed."""
    return Experiment(
        name="fidelity",
        about="the table of simulator and testbed: 24 bert-2.6b on 16 devices",
        cluster=ClusterSettings(devices=16),
        models=(ModelSettings(types=("bert-2.6b",), count=24, slo_scale=5.0),),
        traffic=Traffic(rate=40.0, cv=4.0, duration_s=200.0),
        training=Training(seed=1234),
        placement=PlacementSettings(method="mp-search", mode="compat"),
        simulator=ONE_BY_ONE,
    )


@cache
def named() -> dict[str, Experiment]:
    """Return them by name."""
    sets, mixed = _sets(), ModelSettings(types=MIX, count=60, slo_scale=5.0)
    berts = ModelSettings(types=BERTS, count=42, slo_scale=5.0)
    about = "section 6.5: 60 mixed models on 32 devices"
    found = [large(), fidelity()]
    found += [
        ablation("ablation", f"{about}, trained on other draws", Training(seed=1234), mixed, 32),
        ablation("ablation-same", f"{about}, trained on the test", Training(on="same"), mixed, 32),
        ablation(
            "ablation-same-bert",
            "section 6.5 with 42 models of three BERTs on 24 devices, trained on the test",
            Training(on="same"),
            berts,
            24,
        ),
    ]
    for name, devices in (("s1", 16), ("s2", 64), ("s3", 48)):
        found.append(_maf(f"{name}-maf1", 2019, sets[name], devices, 2e-3))
        rate = 32.0 if name == "s3" else 16.0
        found.append(_maf(f"{name}-maf2", 2021, sets[name], devices, rate))
    found += [*_robust(), *motivating(), *_beyond(sets)]
    return {experiment.name: experiment for experiment in found}


def _hour(text: str) -> tuple[str, str]:
    day, hour = text.split(".")
    return f"{day}.{hour}.0", f"{day}.{hour}.60"


def _robust() -> Iterator[Experiment]:
    base = _maf("robust", 2019, _sets()["s1"], 16, 2e-3)
    for number, (train, test) in enumerate(HOURS, 1):
        (start, end), (first, last) = _hour(test), _hour(train)
        yield msgspec.structs.replace(
            base,
            name=f"robust-{number}",
            about=f"section 6.4: S1, placed by hour {train} and tested on hour {test} of the trace",
            traffic=msgspec.structs.replace(base.traffic, start=start, end=end),
            training=Training(on="slice", start=first, end=last),
        )


def _beyond(sets: dict[str, ModelSettings]) -> Iterator[Experiment]:
    for name, devices in (("s1", 16), ("s2", 64), ("s3", 48)):
        base = _maf(f"beyond-{name}", 2019, sets[name], devices, 2e-3)
        settings = PlacementSettings(
            method=base.placement.method, time_limit_s=IMPROVE_S, bound=True
        )
        about = f"beyond the original: {name.upper()}@MAF1, defects mended"
        base = msgspec.structs.replace(base, about=about, placement=settings)
        yield base
        yield msgspec.structs.replace(
            base,
            name=f"{base.name}-deadline",
            about=f"{about}, replicas chosen by deadline",
            simulator=SimulatorSettings(kind="fast", dispatch="deadline"),
        )
    for name, training in (
        ("drift", Training(on="same")),
        ("drift-static", Training(on="slice", start="0.0.0", end="0.1.0")),
    ):
        base = _maf(name, 2019, sets["s1"], 16, 2e-3)
        yield msgspec.structs.replace(
            base,
            about="beyond the original: S1 on four hours, "
            + ("placed anew as it drifts" if name == "drift" else "placed by the first hour"),
            traffic=msgspec.structs.replace(base.traffic, end="0.4.0"),
            training=training,
            placement=PlacementSettings(method="mp-search"),
        )
