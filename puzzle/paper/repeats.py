"""The artifact's own runs (its RUNME-b) again on the GPUs that are here, scaled to their number.

With as many GPUs as a pair of models had, the run is the artifact's: models, layouts, batch, six
steps. With fewer, layers and batch shrink by the same factor as the pipeline, so that every device
holds and does what it did. Each run is started by torchrun and writes the original's log lines;
what is reported is read from that log by the parser that reads the original's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from puzzle.inputs.experiment import Choice, Experiment
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama, known_models
from puzzle.inputs.ppo import Running, Sampling
from puzzle.inputs.workload import Workload
from puzzle.paper.experiments import FIGURE_10, PAIRS, Pair

STEPS = 6
"""As the artifact: the first is left out of all means."""
MARK = "gpus"
"""Names of these experiments begin with it and the number of devices."""


class Shown(NamedTuple):
    """A bar of the paper: figure (or table), the models or cell it is drawn over, its name."""

    figure: str
    group: str
    bar: str


class Repeated(NamedTuple):
    """One run, and where the paper shows it."""

    experiment: Experiment
    shown: tuple[Shown, ...]


class LeftOut(NamedTuple):
    """A run that is not made here, and why."""

    experiment: str
    why: str


def shown_by(names: Sequence[str]) -> dict[str, tuple[Shown, ...]]:
    """Return what the runs of these names show; other names are passed over."""
    counts = {
        int(n) for name in names if (n := name.partition("-")[0].removeprefix(MARK)).isdigit()
    }
    runs = [run for count in sorted(counts) for run in repeated(count) if isinstance(run, Repeated)]
    return {run.experiment.name: run.shown for run in runs if run.experiment.name in names}


def used(devices: int, most: int) -> int:
    """Return the largest power of two among the devices that are there, at most `most`."""
    return 1 << (min(devices, most).bit_length() - 1)


def repeated(devices: int) -> Iterator[Repeated | LeftOut]:
    """Yield the artifact's runs on up to `devices` devices, and what needs more."""
    for pair in PAIRS["orion"]:
        yield from _of_pair(pair, used(devices, pair.devices))
    for actor, critic, batch, (p, d, t) in FIGURE_10:
        yield from _of_cell(actor, critic, batch, Layout(pipeline=p, data=d, tensor=t), devices)


def _of_pair(pair: Pair, devices: int) -> Iterator[Repeated | LeftOut]:
    """Yield DeepSpeed-Chat, Base, merged alone, the generation layout throughout, and PUZZLE."""
    train, generate = (_layout(devices, t) for _, t in (pair.training, pair.generation))
    base = Choice(training=train, generation=train, schedule="sequential", inference="sequential")
    merged = msgspec.structs.replace(base, schedule="merged")
    switched = Choice(training=train, generation=generate, inference="sequential")
    name = f"{pair.actor}-{pair.critic}"
    key = f"{pair.actor}/{pair.critic}".upper()
    alone = Layout(data=devices)
    zero = Choice(training=alone, generation=alone, schedule="sequential")
    small = ("12",) if key == "7B/7B" else ()
    table = ("table 3",) if key in ("7B/7B", "13B/350M", "33B/7B") else ()
    eleven = ("11",) if key in ("7B/350M", "7B/7B", "33B/7B") else ()
    nine = ("9",) if key in ("7B/350M", "7B/7B", "13B/7B") else ()

    def shown(*figures: str, **other: str) -> tuple[Shown, ...]:
        return tuple(Shown(f, key, other.get(f"in_{f}", other["bar"])) for f in figures)

    def made(system: str, choice: Choice, decode: int, **running: object) -> Experiment:
        return _experiment(pair, devices, f"{name}-{system}", choice, decode, running)

    yield Repeated(
        made("dschat", zero, pair.micro_batch, engine="deepspeed"),
        shown("8", *small, *table, bar="DS-Chat"),
    )
    yield Repeated(
        made("base", base, pair.base_decode),
        shown("8", *small, *eleven, *nine, bar="PUZZLE-Base", in_11="train-opt", in_9="sequential"),
    )
    if nine:
        yield Repeated(made("merged", merged, pair.base_decode), shown("9", bar="merged"))
    if train == generate:
        why = f"no switch from {train} on {devices} devices: P' = P and T' = T"
        yield LeftOut(f"{name}-puzzle", why)
        return
    if eleven:
        best = _alone(generate)
        yield Repeated(made("gen-opt", best, pair.decode), shown("11", bar="gen-opt"))
    everywhere = shown("8", *small, *table, *eleven, bar="PUZZLE")
    yield Repeated(made("puzzle", switched, pair.decode), everywhere)


def _of_cell(
    actor: str, critic: str, batch: int, layout: Layout, devices: int
) -> Iterator[Repeated | LeftOut]:
    """Yield a cell of figure 10, one model after the other and merged."""
    count = used(devices, layout.world)
    name = f"ts-{actor}-{critic}-{batch}-{layout}"
    if count < 2 * layout.data * layout.tensor and count < layout.world:
        needed = 2 * layout.data * layout.tensor
        yield LeftOut(name, f"{layout} scaled down needs {needed} devices for two stages")
        return
    pair = Pair(actor, critic, layout.world, batch, 4, (0, 0), 4, (0, 0), 4)
    here = msgspec.structs.replace(layout, pipeline=count // (layout.data * layout.tensor))
    for schedule in ("sequential", "merged"):
        choice = Choice(training=here, generation=here, schedule=schedule, inference="sequential")
        made = _experiment(pair, count, f"{name}-{schedule}", choice, 4, {})
        group = f"{actor}/{critic} {batch} {layout}".upper()
        yield Repeated(made, (Shown("10", group, schedule),))


def _alone(layout: Layout) -> Choice:
    return Choice(training=layout, generation=layout, schedule="sequential", inference="sequential")


def _layout(devices: int, tensor: int) -> Layout:
    """Return the authors' layout with a pipeline as long as the devices allow."""
    tensor = min(tensor, devices)
    return Layout(pipeline=devices // tensor, tensor=tensor)


def _experiment(
    pair: Pair, devices: int, name: str, choice: Choice, decode: int, running: dict[str, object]
) -> Experiment:
    factor = pair.devices // devices
    least = max(choice.training.pipeline, choice.generation.pipeline)
    actor, critic = (_shrunk(known_models()[m], factor, least) for m in (pair.actor, pair.critic))
    batch = max(pair.batch // factor, pair.micro_batch * choice.training.data)
    local = batch // choice.generation.data
    decode = min(decode, local)
    size = "" if factor == 1 else f", layers and batch a {factor}th"
    return Experiment(
        name=f"{MARK}{devices}-{name}",
        about=f"the artifact's {name} on {devices} of its {pair.devices} devices{size}",
        method="given",
        actor=actor,
        critic=critic,
        devices=devices,
        work=Workload(
            batch=batch,
            micro_batch=min(pair.micro_batch, batch // choice.training.data),
            prefill_micro_batch=min(4, decode),
            decode_micro_batch=decode,
        ),
        choice=choice,
        running=msgspec.convert(
            {
                "steps": STEPS,
                "dtype": "float16",
                "timeout_s": 1800.0,
                "switch_beside": False,
                "sampling": msgspec.to_builtins(Sampling(stop_at_end=False)),
                **running,
            },
            Running,
        ),
    )


def _shrunk(model: Llama, factor: int, least: int) -> Llama:
    return msgspec.structs.replace(model, layers=max(least, model.layers // factor))
