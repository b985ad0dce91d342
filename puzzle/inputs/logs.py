"""Read logs: the original artifact's, DeepSpeed-Chat's, and our own runs', which print the same.

Formats (specification section 4.2): one line per PPO step, a line per switch before it, an echo of
the configuration; DeepSpeed-Chat prints one `E2E latency` line per step.
"""

import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from common.errors import InputError

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_STAGE = re.compile(r"\(ms\): ([\d.]+)")
_SWITCH = re.compile(r"apply shadow model time: ([\d.]+)")
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
_NAME = re.compile(r"llama_(\w+?)_(\w+?)_(?:(\d+)_(\d+)_(\d+)_(\d+)_)?(\w+)_(\d{4}-.*)\.log$")
_CRITIC = re.compile(r"Critic Model Parameters => ([\d.]+)")


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
    corrupt: int
    """Step lines whose stage names are damaged."""
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


def step_line(
    epoch: int, step: int, steps: int, batch: int, fields: dict[str, float], ms: tuple[float, ...]
) -> str:
    """Return the original's line of a PPO step; `ms` are its three stages' milliseconds."""
    generation, inference, training = ms
    return (
        f"epoch: {epoch} | step: {step}/{steps} | ppo_ep: 1 | global_batch_size: {batch} |"
        f" average_reward: {fields['average_reward']} | act_loss: {fields['act_loss']} |"
        f" cri_loss: {fields['cri_loss']} | stage 1(gen.) (ms): {generation} |"
        f" stage 2(infer.) (ms): {inference} | stage 3(train.) (ms): {training} |"
        f" e2e_time (ms): {sum(ms)}"
    )


def latency_line(gather: float, generate: float, train: float, others: float, *, batch: int) -> str:
    """Return DeepSpeed-Chat's line of a PPO step, seconds; the gather is not in `generate`."""
    total = gather + generate + train + others
    parts = (("Gather latency", gather), ("Generate time", generate), ("Training time", train))
    told = " ".join(f"|{name}={s:.6f}s ({100 * s / total:.2f}%)" for name, s in parts)
    return (
        f"|E2E latency={total:.6f}s {told} |Others={others:.6f} ({100 * others / total:.2f}%)"
        f"|CurSamplesPerSec={batch / total:.2f}"
    )


def switch_line(seconds: float) -> str:
    """Return the original's line of a switch."""
    return f"apply shadow model time: {seconds:.9f}"


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
        sum(_is_step(line) and "stage 2(infer.)" not in line for line in lines),
        sha256(content).hexdigest(),
    )


def _is_step(line: str) -> bool:
    return "epoch: " in line and "e2e_time" in line


def _puzzle_steps(lines: list[str]) -> list[Step]:
    steps: list[Step] = []
    switch = None
    for line in lines:
        if found := _SWITCH.search(line):
            switch = float(found[1])
        elif _is_step(line):
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


def anomalies(logs: list[Log], empty: Sequence[str] = ()) -> list[str]:
    """Return what does not fit together in a folder of logs, a sentence each (section 4.4)."""
    found = [*empty, *_copies(logs), *_edited(logs)]
    for log in logs:
        named = _NAME.search(Path(log.path).name)
        if named is None:
            continue
        found += _of_one(log, named)
    return found


def _of_one(log: Log, named: re.Match[str]) -> list[str]:
    found: list[str] = []
    _, critic, *sizes, variant, _ = named.groups()
    if log.corrupt:
        found.append(f"{log.path}: {log.corrupt} step lines have damaged stage names")
    if (
        sizes[0]
        and log.world
        and tuple(map(int, sizes[1:])) != tuple(log.world[i] for i in (3, 1, 2))
    ):
        found.append(f"{log.path}: named P-D-T {'-'.join(sizes[1:])}, ran {_pdt(log)}")
    if variant == "opt" and not log.deepspeed and log.options.get("use_shadow") == "False":
        found.append(f"{log.path}: named opt, but ran without the switch ({_pdt(log)})")
    if log.critic_billions is not None and critic.endswith("b"):
        wanted = float(critic[:-1])
        if abs(log.critic_billions - wanted) > 0.5 * wanted:
            found.append(
                f"{log.path}: named with a {critic} critic, which has {log.critic_billions} billion"
                " parameters"
            )
    return found


def _pdt(log: Log) -> str:
    if log.world is None:
        return "with no layout echoed"
    _, data, tensor, pipeline = log.world
    return f"{pipeline}-{data}-{tensor}"


def _copies(logs: list[Log]) -> list[str]:
    """Report files of equal content but unlike names (a figure may share a run's log)."""
    groups: dict[str, list[Log]] = {}
    for log in logs:
        groups.setdefault(log.digest, []).append(log)
    found: list[str] = []
    for same in groups.values():
        names = {_models(log) for log in same}
        if len(names) > 1:
            found.append("one log under unlike names: " + ", ".join(log.path for log in same))
    return found


def _models(log: Log) -> str:
    return "_".join(Path(log.path).name.split("_")[:3])


def _edited(logs: list[Log]) -> list[str]:
    """Report pairs whose steps are equal but whose switch times differ."""
    found: list[str] = []
    groups: dict[tuple[float, ...], list[Log]] = {}
    for log in logs:
        groups.setdefault(tuple(step.total for step in log.steps), []).append(log)
    for same in groups.values():
        first = same[0]
        for other in same[1:]:
            off = [
                b.switch - a.switch
                for a, b in zip(first.steps, other.steps, strict=True)
                if a.switch is not None and b.switch is not None
            ]
            if any(abs(x) > 1e-9 for x in off):
                found.append(
                    f"{other.path}: the steps of {first.path}, its switch times moved by"
                    f" {max(off, key=abs):+.3f} s"
                )
    return found
