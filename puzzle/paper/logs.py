"""Read logs: the original artifact's, DeepSpeed-Chat's, and our own runs', which say the same.

Formats (specification section 4.2): one line per PPO step, a line per switch before it, an echo of
the configuration; DeepSpeed-Chat prints one `E2E latency` line per step.
"""

import re
from hashlib import sha256
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from common.errors import InputError

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_STAGE = re.compile(r"\(ms\): (\d+(?:\.\d*)?(?:e[+-]?\d+)?)")
_SWITCH = re.compile(r"apply shadow model time: (\d+(?:\.\d*)?(?:e[+-]?\d+)?)")
_LATENCY = re.compile(
    r"E2E latency=([\d.]+)s \|Gather latency=([\d.]+)s.*?\|Generate time=([\d.]+)s"
    r".*?\|Training time=([\d.]+)s.*?\|Others=([\d.]+)"
)
_WORLD = re.compile(
    r"world size: (\d+), data-parallel-size: (\d+), tensor-model-parallel size: (\d+),"
    r" pipeline-model-parallel size: (\d+)"
)
_OPTION = re.compile(r"^\s*(?:\(.*?\) )?(\w+) \.{3,} (\S+)\s*$")
_FIELD = re.compile(r"(average_reward|act_loss|cri_loss): (-?[\d.eE+-]+|nan|inf)")
_CRITIC = re.compile(r"Critic Model Parameters => ([\d.]+)")
_OFFLOAD = re.compile(r"(?:^|\s)--offload(?:\s|$)")
_NUMBERS = 4
"""Of a step line: three stages and the whole."""


class Step(NamedTuple):
    """One PPO step, seconds; `stages` are generation, inference, training."""

    stages: tuple[float, ...]
    total: float
    switch: float | None
    fields: dict[str, float]


class Log(NamedTuple):
    """What a log file says."""

    path: str
    steps: tuple[Step, ...]
    world: tuple[int, int, int, int] | None
    """World size, data, tensor, pipeline, as echoed."""
    options: dict[str, str]
    deepspeed: bool
    critic_billions: float | None
    offload: bool
    """DeepSpeed-Chat's optimizer and weights on the CPU, by the echoed command."""
    corrupt: int
    """Step lines whose stage names are damaged."""
    cut: int
    """Step lines without all their times, left out: a run that was ended while it wrote."""
    digest: str

    def means(self) -> tuple[float, ...]:
        """Return mean stage times and step time, the first step left out."""
        kept = self.steps[1:] or self.steps
        count = len(kept[0].stages)
        stages = (mean(step.stages[i] for step in kept) for i in range(count))
        return (*stages, mean(step.total for step in kept))

    def switch(self) -> float | None:
        """Return the mean switch time, the first left out."""
        times = [step.switch for step in self.steps if step.switch is not None]
        return mean(times[1:] or times) if times else None


def read_log(path: Path) -> Log:
    """Return what a log says; raises InputError where it has no step."""
    content = path.read_bytes()
    lines = [_ANSI.sub("", line) for line in content.decode(errors="replace").splitlines()]
    options = {m[1]: m[2] for line in lines if (m := _OPTION.match(line))}
    world = next((m for line in lines if (m := _WORLD.search(line))), None)
    critic = next((m for line in lines if (m := _CRITIC.search(line))), None)
    steps = _puzzle_steps(lines)
    deepspeed = not steps
    if deepspeed:
        steps = [_deepspeed_step(m) for line in lines if (m := _LATENCY.search(line))]
    if not steps:
        raise InputError(f"{path}: no step lines; expected a log of a PPO run")
    return Log(
        str(path),
        tuple(steps),
        tuple(map(int, world.groups())) if world else None,  # type: ignore[arg-type]
        options,
        deepspeed,
        float(critic[1]) if critic else None,
        any(_OFFLOAD.search(line) for line in lines),
        sum(_is_whole(line) and "stage 2(infer.)" not in line for line in lines),
        sum(_is_step(line) and not _is_whole(line) for line in lines),
        sha256(content).hexdigest(),
    )


def _is_step(line: str) -> bool:
    return "epoch: " in line and "| step: " in line


def _is_whole(line: str) -> bool:
    return _is_step(line) and len(_STAGE.findall(line)) == _NUMBERS


def _puzzle_steps(lines: list[str]) -> list[Step]:
    steps: list[Step] = []
    switch = None
    for line in lines:
        if found := _SWITCH.search(line):
            switch = float(found[1])
        elif _is_whole(line):
            *stages, total = [float(ms) / 1e3 for ms in _STAGE.findall(line)]
            fields = {name: float(value) for name, value in _FIELD.findall(line)}
            steps.append(Step(tuple(stages), total, switch, fields))
            switch = None
    return steps


def _deepspeed_step(found: re.Match[str]) -> Step:
    total, gather, generate, train, others = map(float, found.groups())
    return Step((generate, others, train), total, gather, {})


def read_folder(folder: Path) -> tuple[list[Log], list[str]]:
    """Return all logs below a folder by path, and a sentence on each that has no step.

    Raises InputError where no log has one.
    """
    paths, logs, empty = sorted(folder.rglob("*.log")), list[Log](), list[str]()
    for path in paths:
        try:
            logs.append(read_log(path))
        except InputError as error:
            empty.append(str(error))
    if not logs:
        raise InputError(empty[0] if empty else f"{folder}: no .log files below it")
    return logs, empty
