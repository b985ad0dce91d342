"""From an experiment's settings to models and workloads; what is costly is kept for the next."""

import csv
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from beta.arrays import Floats
from beta.inputs.arrivals import deterministic, gamma, modulated_poisson, split_rate
from beta.inputs.azure import minutes_of, read_2019, read_2021, slice_of
from beta.inputs.convert import read_original_tsv
from beta.inputs.experiment import V100, Experiment, ModelSettings, Traffic
from beta.inputs.model import Model, even_pipelines, large_profile, slo_of
from beta.inputs.profile import Profile, read_profiles
from beta.inputs.replay import (
    Counts,
    Replay,
    Stamps,
    raw_stamps,
    replay_counts,
    replay_stamps,
)
from beta.inputs.stand_in import counts_2019, stamps_2021
from beta.inputs.workload import Workload, merge, training_workload
from common.errors import InputError

MOST_SEED = 2**31 - 1
MOST_REQUESTS = 2e8
"""More than that do not fit into 8 GB."""


class Loaded(NamedTuple):
    """What a question is made of."""

    models: tuple[Model, ...]
    train: Workload
    test: Workload


class Asked(NamedTuple):
    """Arrivals per model, and each model's rate in requests/s."""

    arrivals: tuple[Floats, ...]
    rates: tuple[float, ...]


def load(experiment: Experiment, seed: int = 0) -> Loaded:
    """Return models, training and test workload of an experiment; model i draws from seed + i."""
    if not 0 <= seed <= MOST_SEED:
        raise InputError(f"the seed is {seed}, expected 0 to {MOST_SEED}")
    profiles = load_profiles(experiment.profile)
    drafts = tuple(model for settings in experiment.models for model in _models(settings, profiles))
    names = [model.name for model in drafts]
    if len(set(names)) < len(names):
        raise InputError("models: two instances have one name; give names")
    traffic = experiment.traffic
    shares = _shares(experiment, len(drafts))
    cvs = tuple(entry.cv or traffic.cv for entry in experiment.models for _ in range(entry.count))
    asked = _asked(traffic, tuple(names), shares, cvs, seed)
    models = tuple(
        Model(name=m.name, profile=m.profile, slo_s=m.slo_s, rate=rate, cv=cv)
        for m, rate, cv in zip(drafts, asked.rates, cvs, strict=True)
    )
    test = merge(asked.arrivals)
    if not len(test):
        raise InputError("the test workload has no request; lengthen or quicken the traffic")
    return Loaded(models, _training(experiment, models, test, seed), test)


@lru_cache(maxsize=4)
def load_profiles(source: str) -> dict[str, Profile]:
    """Return the profiles of a source by model; the shipped ones have bert-103.5b's stand-in."""
    if source == V100:
        profiles = read_profiles()
        return {**profiles, "bert-103.5b": large_profile(profiles["bert-6.7b"])}
    path = Path(source)
    return read_original_tsv(path) if path.suffix == ".tsv" else read_profiles(path)


def _models(settings: ModelSettings, profiles: dict[str, Profile]) -> list[Model]:
    unknown = sorted({*settings.types} - {*profiles})
    if unknown:
        raise InputError(
            f"models.types: no profile of {', '.join(unknown)}; there are {', '.join(profiles)}"
        )
    made = list[Model]()
    for i in range(settings.count):
        kind = settings.types[i % len(settings.types)]
        name = settings.names[i] if settings.names else f"{kind}-{i // len(settings.types)}"
        slo = settings.slo_s or float("inf")
        if settings.slo_scale is not None:
            slo = slo_of(profiles[kind], settings.slo_scale)
        profile = profiles[kind]
        if settings.overhead is not None:
            profile = even_pipelines(profile, settings.overhead)
        made.append(Model(name=name, profile=profile, slo_s=slo))
    return made


def _shares(experiment: Experiment, count: int) -> tuple[float, ...]:
    if experiment.models[0].rate is not None:
        return tuple(
            float(entry.rate or 0) for entry in experiment.models for _ in range(entry.count)
        )
    traffic = experiment.traffic
    return tuple(float(r) for r in split_rate(traffic.rate or 1.0, count, traffic.distribution))


@lru_cache(maxsize=2)
def _asked(
    traffic: Traffic,
    names: tuple[str, ...],
    rates: tuple[float, ...],
    cvs: tuple[float, ...],
    seed: int,
) -> Asked:
    if traffic.is_trace:
        return _replayed(traffic, len(names), seed)
    if traffic.source == "requests":
        return _own_requests(Path(traffic.path), names)
    length = traffic.duration_s
    if length * sum(rates) > MOST_REQUESTS:
        raise InputError(
            f"traffic.duration_s {length:g} at {sum(rates):g} requests/s makes"
            f" {length * sum(rates):.3g} requests, more than {MOST_REQUESTS:g}; shorten it"
        )
    if traffic.source == "deterministic":
        return Asked(tuple(deterministic(rate=rate, duration=length) for rate in rates), rates)
    if traffic.source == "modulated":
        return Asked(_modulated(traffic, rates, seed), rates)
    arrivals = [
        gamma(rate=rate, cv=cv, duration=length, seed=seed + i)
        for i, (rate, cv) in enumerate(zip(rates, cvs, strict=True))
    ]
    return Asked(tuple(arrivals), rates)


def _modulated(traffic: Traffic, rates: tuple[float, ...], seed: int) -> tuple[Floats, ...]:
    """Draw each model's arrivals; its states' rates have its rate as their mean over time."""
    lasting = sum(traffic.state_s)
    pairs = zip(traffic.state_s, traffic.state_factors, strict=True)
    mean = sum(seconds * factor for seconds, factor in pairs) / lasting
    return tuple(
        modulated_poisson(
            state_s=traffic.state_s,
            rates=[rate * factor / mean for factor in traffic.state_factors],
            duration=traffic.duration_s,
            seed=seed + i,
        )
        for i, rate in enumerate(rates)
    )


def _replayed(traffic: Traffic, models: int, seed: int) -> Asked:
    trace = _trace(traffic.source, traffic.path, traffic.start, traffic.end)
    seconds = 60.0 * (minutes_of(traffic.end) - minutes_of(traffic.start))
    if traffic.gaps == "recorded" and isinstance(trace, Stamps):
        found = raw_stamps(
            trace,
            models,
            time_scale=traffic.time_scale,
            copies=traffic.copies,
            mapping=traffic.mapping,
        )
        seconds /= traffic.time_scale
    else:
        draw: Callable[..., Replay] = replay_counts if isinstance(trace, Counts) else replay_stamps
        found = draw(
            trace,
            models,
            rate_scale=traffic.rate_scale,
            cv_scale=traffic.cv_scale,
            window_s=traffic.window_s,
            mapping=traffic.mapping,
            cv_one=traffic.gaps == "exponential",
            seed=seed,
        )
    return Asked(found.arrivals, tuple(len(times) / seconds for times in found.arrivals))


@lru_cache(maxsize=2)
def _trace(source: str, path: str, start: str, end: str) -> Counts | Stamps:
    if path:
        return (read_2019 if source == "azure2019" else read_2021)(Path(path), start, end)
    first, last = slice_of(start, end)
    return (counts_2019 if source == "azure2019" else stamps_2021)(first, last)


def _own_requests(path: Path, names: tuple[str, ...]) -> Asked:
    """Read a CSV `arrival_s,model`; a model's rate is its requests over the trace's length."""
    arrivals: dict[str, list[float]] = {name: [] for name in names}
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a CSV with columns arrival_s,model")
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        if not {"arrival_s", "model"} <= {*(reader.fieldnames or ())}:
            raise InputError(f"{path}: expected columns arrival_s,model")
        for line in reader:
            where = f"{path}: line {reader.line_num}"
            try:
                when = float(line["arrival_s"])
            except (TypeError, ValueError) as error:
                raise InputError(f"{where}: {error}, expected seconds") from error
            if line["model"] not in arrivals:
                raise InputError(f"{where}: no model {line['model']!r} in the experiment")
            if not 0 <= when < math.inf:
                raise InputError(f"{where}: arrival_s is {when:g}, expected 0 or later")
            arrivals[line["model"]].append(when)
    times = tuple(np.sort(np.array(arrivals[name], np.float64)) for name in names)
    ends = [float(t[-1]) for t in times if len(t)]
    if not ends:
        raise InputError(f"{path}: no request in it")
    return Asked(times, tuple(len(t) / max(max(ends), 1e-9) for t in times))


def _training(
    experiment: Experiment, models: tuple[Model, ...], test: Workload, seed: int
) -> Workload:
    training, traffic = experiment.training, experiment.traffic
    if training.on == "same":
        return test
    if training.on == "first" or traffic.source == "requests":
        return test[: max(int(len(test) * training.share), 1)]
    if training.on == "slice":
        return _sliced(traffic, training.start, training.end, len(models), seed)
    return training_workload(models, training.seed + seed)


@lru_cache(maxsize=2)
def _sliced(traffic: Traffic, start: str, end: str, models: int, seed: int) -> Workload:
    fields = {**{f: getattr(traffic, f) for f in Traffic.__struct_fields__}, "start": start}
    return merge(_replayed(Traffic(**{**fields, "end": end}), models, seed).arrivals)
