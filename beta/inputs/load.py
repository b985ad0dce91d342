"""From an experiment's settings to models and workloads; what is costly is kept for the next.

What is kept is known by the content of the files behind it (`sources`), not by their paths.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import msgspec

from beta.inputs.analytic import COMPUTE, MEMORY, Task, analytic_profile
from beta.inputs.arrays import Floats
from beta.inputs.arrivals import deterministic, gamma, modulated_poisson, split_rate
from beta.inputs.azure import minutes_of, read_2019, read_2021, slice_of
from beta.inputs.convert import read_original_tsv
from beta.inputs.experiment import V100, Experiment, ModelSettings
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
from beta.inputs.requests import Asked, own_requests
from beta.inputs.shapes import SHAPES, Shape, shape_of
from beta.inputs.sources import digest_of, profile_file, traffic_digest
from beta.inputs.stand_in import counts_2019, stamps_2021
from beta.inputs.traffic import Traffic
from beta.inputs.workload import Workload, merge, training_workload
from common.architecture import Architecture
from common.devices import find
from common.errors import InputError
from common.model import read

PAPERS = "V100"
"""What the shipped profile was measured on."""
CATALOGUED = {"llama-7b": "Llama-2-7B", "llama-13b": "Llama-2-13B"}
"""Types that nobody profiled here -> catalogue entries of the same sizes."""
MOST_SEED = 2**31 - 1
MOST_REQUESTS = 2e8
"""More than that do not fit into 8 GB."""


class Loaded(NamedTuple):
    """What a question is made of."""

    models: tuple[Model, ...]
    train: Workload
    test: Workload
    notes: tuple[str, ...] = ()
    """Sentences on what is recorded and not among them, and on profiles that nobody measured."""


def load(experiment: Experiment, seed: int = 0) -> Loaded:
    """Return models, training and test workload of an experiment; model i draws from seed + i."""
    if not 0 <= seed <= MOST_SEED:
        raise InputError(f"the seed is {seed}, expected 0 to {MOST_SEED}")
    profiles = load_profiles(experiment.profile, digest_of(profile_file(experiment)))
    drafts, notes = _drafts(experiment, profiles)
    names = [model.name for model in drafts]
    if len(set(names)) < len(names):
        raise InputError("models: two instances have one name; give names")
    traffic = experiment.traffic
    shares = _shares(experiment, len(drafts))
    cvs = tuple(entry.cv or traffic.cv for entry in experiment.models for _ in range(entry.count))
    content = traffic_digest(experiment)
    asked = _asked(traffic, tuple(names), shares, cvs, seed, content)
    models = tuple(
        Model(name=m.name, profile=m.profile, slo_s=m.slo_s, rate=rate, cv=cv)
        for m, rate, cv in zip(drafts, asked.rates, cvs, strict=True)
    )
    test = merge(asked.arrivals)
    if not len(test):
        raise InputError("the test workload has no request; lengthen or quicken the traffic")
    train = _training(experiment, models, test, seed, content)
    return Loaded(models, train, test, (*asked.left_out, *notes))


@lru_cache(maxsize=4)
def load_profiles(source: str, content: str) -> dict[str, Profile]:
    """Return the profiles of a source by model; the shipped ones have bert-103.5b's stand-in.

    `content` is the digest of the source's file: of another content other profiles are kept.
    """
    if source == V100:
        profiles = read_profiles()
        return {**profiles, "bert-103.5b": large_profile(profiles["bert-6.7b"])}
    path = Path(source)
    return read_original_tsv(path) if path.suffix == ".tsv" else read_profiles(path)


def _drafts(
    experiment: Experiment, profiles: dict[str, Profile]
) -> tuple[tuple[Model, ...], list[str]]:
    """Return the models without their traffic, and a note on each profile that is computed."""
    made, notes = list[Model](), dict[str, None]()
    for settings in experiment.models:
        known, types = profiles, settings.types
        for kind, task in _tasks(settings, experiment, profiles):
            known = known | {kind: analytic_profile(kind, task)}
            types = types or (kind,)
            notes[_note(kind, task)] = None
        made += _models(msgspec.structs.replace(settings, types=types, config=""), known)
    return tuple(made), list(notes)


def _tasks(
    settings: ModelSettings, experiment: Experiment, profiles: dict[str, Profile]
) -> Iterator[tuple[str, Task]]:
    """Yield what profiles of an entry are to be computed: of a config, of types nobody measured.

    Where `cluster.device` names another device than the shipped profile's, of all types.
    """
    shipped = experiment.profile == V100
    named = experiment.cluster.device or (PAPERS if shipped else "")
    if settings.config:
        if not named:
            raise InputError(
                f"models.config {settings.config}: give cluster.device, such as H100, to compute"
                " its profile for"
            )
        name = _name_of(settings.config)
        yield name, Task(read(settings.config), find(named), settings.sequence)
    for kind in settings.types:
        if shipped and experiment.cluster.device and kind in {**SHAPES, **experiment.shapes}:
            shape = shape_of(kind, experiment.shapes)
            yield kind, Task(_bert(shape), find(named), shape.sequence)
        elif kind not in profiles and kind.lower() in CATALOGUED and named:
            yield kind, Task(read(CATALOGUED[kind.lower()]), find(named), settings.sequence)


def _name_of(config: str) -> str:
    """Return what a model is called by its config: its folder, its file, or as it is."""
    path = Path(config)
    if path.name == "config.json":
        path = path.resolve().parent
    return path.stem if path.suffix in (".json", ".toml") else path.name


def _bert(shape: Shape) -> Architecture:
    if shape.folder:
        return read(shape.folder)
    return read(
        {
            "model_type": "bert",
            "hidden_size": shape.hidden,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "intermediate_size": 4 * shape.hidden,
            "vocab_size": shape.vocabulary,
            "max_position_embeddings": shape.sequence,
            "torch_dtype": "float16",
        }
    )


def _note(kind: str, task: Task) -> str:
    return (
        f"{kind}: simulated (analytic profile): a request is one pass over {task.sequence} tokens,"
        f" no decoding, on {task.device.name} by its data sheet, at {COMPUTE:.0%} of its peak and"
        f" {MEMORY:.0%} of its bandwidth; nobody measured it"
    )


def _models(settings: ModelSettings, profiles: dict[str, Profile]) -> list[Model]:
    unknown = sorted({*settings.types} - {*profiles})
    if unknown:
        raise InputError(
            f"models.types: no profile of {', '.join(unknown)}; there are {', '.join(profiles)}; or"
            " give models.config in place of types, such as Llama-2-7B"
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
    content: str,
) -> Asked:
    if traffic.is_trace:
        return _replayed(traffic, len(names), seed, content)
    if traffic.source == "requests":
        return own_requests(Path(traffic.path), names)
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


def _replayed(traffic: Traffic, models: int, seed: int, content: str) -> Asked:
    trace = _trace(traffic.source, traffic.path, traffic.start, traffic.end, content)
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
    rates = tuple(len(times) / seconds for times in found.arrivals)
    return Asked(found.arrivals, rates, tuple(_left_out(trace, found, traffic)))


def _left_out(trace: Counts | Stamps, found: Replay, traffic: Traffic) -> Iterator[str]:
    if isinstance(trace, Stamps) and trace.outside:
        yield (
            f"left out: {trace.outside} rows of the trace outside {traffic.start} to {traffic.end}"
        )
    if found.unfitted:
        yield (
            f"left out: {found.unfitted} requests of windows of {traffic.window_s:g} s with too few"
            " gaps to fit, or equal ones"
        )


@lru_cache(maxsize=2)
def _trace(source: str, path: str, start: str, end: str, content: str) -> Counts | Stamps:
    if path:
        return (read_2019 if source == "azure2019" else read_2021)(Path(path), start, end)
    first, last = slice_of(start, end)
    return (counts_2019 if source == "azure2019" else stamps_2021)(first, last)


def _training(
    experiment: Experiment, models: tuple[Model, ...], test: Workload, seed: int, content: str
) -> Workload:
    training, traffic = experiment.training, experiment.traffic
    if training.on == "same":
        return test
    if training.on == "first" or traffic.source == "requests":
        return test[: max(int(len(test) * training.share), 1)]
    if training.on == "slice":
        return _sliced(traffic, training.start, training.end, len(models), seed, content)
    return training_workload(models, training.seed + seed)


@lru_cache(maxsize=2)
def _sliced(
    traffic: Traffic, start: str, end: str, models: int, seed: int, content: str
) -> Workload:
    slice_ = msgspec.structs.replace(traffic, start=start, end=end)
    return merge(_replayed(slice_, models, seed, content).arrivals)
