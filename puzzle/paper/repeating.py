"""The verb `repeat` of the suite `full`: a run of the artifact by torchrun, read from its log."""

import os
import subprocess
import sys
from pathlib import Path

from common.artifact import Ask, Case, Done
from common.case import to_toml
from common.errors import CaseError
from common.files import write, write_plan
from common.ranks import Backend, choose_backend
from common.record import Metric
from puzzle.inputs.experiment import Experiment
from puzzle.paper.logs import Log, read_log
from puzzle.plan.answer import axes
from puzzle.plan.plans import make_plan

GRACE_S = 60.0
"""How long an interrupted launcher has to end its ranks."""


def repeat(case: Case, ask: Ask) -> Done:
    """Repeat a run of the artifact; its figures are read from the log that it writes."""
    assert ask.folder is not None  # the suites have one; the run writes its log there
    home, backend = ask.folder.at("repeated"), choose_backend(ask.options.get("backend", ""))
    found = start(case.experiment, home, backend, seed=case.seed)
    return Done(
        summary=f"{len(found.steps)} steps, {found.means()[-1]:.3f} s a step",
        metrics=_metrics(found),
        files=(Path(found.path),),
        axes=axes(make_plan(case.experiment, case.experiment.method)),
    )


class StartError(CaseError):
    """A launch ended early; the message is its last line."""


def start(experiment: Experiment, folder: Path, backend: Backend, *, seed: int = 0) -> Log:
    """Start a run by torchrun and return what the log that it wrote says."""
    stem, plan = folder / experiment.name, make_plan(experiment, experiment.method)
    write(stem.with_suffix(".toml"), to_toml(experiment))
    write_plan(plan, stem.with_suffix(".json"))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={experiment.world}", "-m", "puzzle", "run",
        str(stem.with_suffix(".toml")), "--plan", str(stem.with_suffix(".json")),
        "--backend", backend, "--seed", str(seed), "--out", str(folder),
    ]  # fmt: skip
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
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


def _metrics(found: Log) -> tuple[Metric, ...]:
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
