"""The artifact's own runs (its RUNME-b) again on the GPUs that are here, scaled to their number.

With as many GPUs as a pair of models had, the run is the artifact's: models, layouts, batch, six
steps. With fewer, layers and batch shrink by the same factor as the pipeline, so that every device
holds and does what it did. Each run is started by torchrun and writes the original's log lines;
what is reported is read from that log by the parser that reads the original's.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from common.case import to_toml
from common.record import Metric
from puzzle.experiments import FIGURE_10, PAIRS, Case, Pair
from puzzle.inputs.experiment import Choice, Experiment, MethodName
from puzzle.inputs.layout import Layout
from puzzle.inputs.logs import Log, read_log
from puzzle.inputs.model import Llama, known_models, parameters
from puzzle.inputs.ppo import Running, Sampling
from puzzle.inputs.workload import Workload
from puzzle.plan import plans
from puzzle.run.settings import Backend
from puzzle.simulate.predict import predict

log = logging.getLogger("puzzle")

STEPS = 6
"""As the artifact: the first is left out of all means."""
MARK = "gpus"
"""Names of these experiments begin with it and the number of devices."""
GIB = 2**30
GRACE_S = 60.0
"""How long an interrupted launcher has to end its ranks."""


class Shown(NamedTuple):
    """A bar of the paper: figure (or table), the models or cell it is drawn over, its name."""

    figure: str
    group: str
    bar: str


class Repeated(NamedTuple):
    """One run, and where the paper shows it."""

    experiment: Experiment
    method: MethodName
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


def device_count() -> int:
    """Return the CUDA devices that this process sees."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def memory_here() -> tuple[float, float]:
    """Return the bytes of the smallest GPU here, and of this machine's own memory."""
    import torch

    sizes = [
        torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())
    ]
    return float(min(sizes)), float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


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
        "given",
        shown("8", *small, *table, bar="DS-Chat"),
    )
    yield Repeated(
        made("base", base, pair.base_decode),
        "given",
        shown("8", *small, *eleven, *nine, bar="PUZZLE-Base", in_11="train-opt", in_9="sequential"),
    )
    if nine:
        yield Repeated(made("merged", merged, pair.base_decode), "given", shown("9", bar="merged"))
    if train == generate:
        why = f"no switch from {train} on {devices} devices: P' = P and T' = T"
        yield LeftOut(f"{name}-puzzle", why)
        return
    if eleven:
        best = _alone(generate)
        yield Repeated(made("gen-opt", best, pair.decode), "given", shown("11", bar="gen-opt"))
    everywhere = shown("8", *small, *table, *eleven, bar="PUZZLE")
    yield Repeated(made("puzzle", switched, pair.decode), "given", everywhere)


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
        yield Repeated(made, "given", (Shown("10", group, schedule),))


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


def too_large(run: Repeated, device_bytes: float, host_bytes: float) -> str:
    """Say in short why a run does not fit here; empty where it does."""
    experiment, models = run.experiment, (run.experiment.actor_model, run.experiment.critic_model)
    if experiment.running.engine == "deepspeed":
        # Every rank makes whole float32 models before ZeRO-3 cuts them.
        needed = 4.0 * experiment.world * sum(2 * parameters(model) for model in models)
        if needed > host_bytes:
            return f"needs {needed / GIB:.0f} GiB of host memory, {host_bytes / GIB:.0f} are here"
        return ""
    plan = plans.make_plan(experiment, run.method)
    found = predict(plan, experiment.machines).memory
    # Beside what the planner counts: the gradient in float32, and what AdamW needs in passing.
    peak = max(found.peak, found.states * 24 / 18)
    if peak > device_bytes:
        return f"needs {peak / GIB:.0f} GiB a device, {device_bytes / GIB:.0f} are here"
    return ""


class StartError(RuntimeError):
    """A launch ended early; the message is its last line."""


def start(run: Repeated, folder: Path, backend: Backend, *, seed: int = 0) -> Log:
    """Start a run by torchrun and return what the log that it wrote says."""
    experiment, stem = run.experiment, folder / run.experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".toml").write_text(to_toml(experiment))
    plan = plans.make_plan(experiment, run.method)
    plans.write(plan, stem.with_suffix(".json"))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={experiment.world}", "-m", "puzzle", "run",
        str(stem.with_suffix(".toml")), "--plan", str(stem.with_suffix(".json")),
        "--backend", backend, "--seed", str(seed), "--out", str(folder),
    ]  # fmt: skip
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    there = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    status, errors = _finished(command, there)
    if status:
        raise StartError(_told(errors, status))
    return read_log(folder / "puzzle" / "runs" / f"{experiment.name}.{plan.method}.log")


def _finished(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a launcher to its end; return its status and what it said on stderr.

    Where this process is interrupted, the launcher is asked to end its ranks: killed, it would
    leave them behind.
    """
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _, errors = process.communicate()
        except BaseException:
            process.terminate()
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    return process.returncode, errors


def _told(text: str, status: int) -> str:
    """Return the line by which a failed launch says why."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("error: ")]
    errors = [line for line in lines if "Error: " in line]
    chosen = next(iter(ours or errors[:1] or lines[-1:]), "no message")
    return f"ended with status {status}: {chosen.removeprefix('error: ')[:300]}"


def metrics(found: Log) -> tuple[Metric, ...]:
    """Return a log's means as metrics; samples are the steps after the first."""
    names = ("generation.time", "inference.time", "training.time")
    kept, means = found.steps[1:] or found.steps, found.means()
    made = [
        Metric(
            name=name, value=value, unit="s", samples=tuple(step.stages[number] for step in kept)
        )
        for number, (name, value) in enumerate(zip(names, means, strict=False))
    ]
    totals = tuple(step.total for step in kept)
    made.append(Metric(name="step.time", value=means[-1], unit="s", samples=totals))
    switch = found.switch()
    if switch is not None:
        made.append(Metric(name="switch.time", value=switch, unit="s"))
    return tuple(made)


def repeatable(devices: int) -> list[tuple[Case, Experiment]]:
    """Return the artifact's runs that so many GPUs can repeat; says what is left out and why."""
    if not devices:
        log.info(
            "no CUDA device is visible: the artifact's own runs (figures 8 to 12 and table 3"
            " measured on 1 to 32 GPUs) are left out; all else is done"
        )
        return []
    device_bytes, host_bytes = memory_here()
    made: list[tuple[Case, Experiment]] = []
    left: dict[str, list[str]] = {}
    for run in repeated(devices):
        if isinstance(run, Repeated):
            why = too_large(run, device_bytes, host_bytes)
            if not why:
                made.append((Case("repeat", run.experiment.name, run.method), run.experiment))
                continue
            run = LeftOut(run.experiment.name, why)
        left.setdefault(run.why, []).append(run.experiment)
    if left:
        told = "; ".join(f"{', '.join(names)}: {why}" for why, names in left.items())
        log.info("left out on %d GPUs: %s", devices, told)
    return made
