"""What does not fit together in a folder of logs, a sentence each (specification section 4.4)."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from puzzle.paper.logs import Log

_NAME = re.compile(r"llama_(\w+?)_(\w+?)_(?:(\d+)_(\d+)_(\d+)_(\d+)_)?(\w+)_(\d{4}-\d\d)?.*\.log$")
_SAME_S = 1e-9
_CRITIC_OFF = 0.5
"""A critic of another size than its name's: by more than half of it."""


class _Named(NamedTuple):
    """A log with what its name says: models, batch-P-D-T where given, system, month."""

    log: Log
    actor: str
    critic: str
    sizes: tuple[int, ...]
    variant: str
    month: str


def anomalies(logs: list[Log], empty: Sequence[str] = ()) -> list[str]:
    """Return what does not fit together; `empty` are sentences on logs without a step."""
    named = list(filter(None, map(_named, logs)))
    found = [*empty, *_copies(logs), *_edited(logs)]
    for log in logs:
        found += _damage(log)
    for each in named:
        found += _unlike_its_name(each)
    return [*found, *_unlike_twins(named), *_months(named), *_shared(logs)]


def _named(log: Log) -> _Named | None:
    found = _NAME.search(Path(log.path).name)
    if found is None:
        return None
    actor, critic, *sizes, variant, month = found.groups()
    numbers = tuple(int(size) for size in sizes if size)
    return _Named(log, actor, critic, numbers, variant, month or "")


def _damage(log: Log) -> list[str]:
    found: list[str] = []
    if log.corrupt:
        found.append(f"{log.path}: {log.corrupt} step lines have damaged stage names")
    if log.cut:
        found.append(f"{log.path}: {log.cut} step lines lack some of their times and are left out")
    return found


def _unlike_its_name(named: _Named) -> list[str]:
    log, found = named.log, list[str]()
    if named.sizes and log.world and named.sizes[1:] != tuple(log.world[i] for i in (3, 1, 2)):
        told = "-".join(map(str, named.sizes[1:]))
        found.append(f"{log.path}: named P-D-T {told}, ran {_pdt(log)}")
    if named.variant == "opt" and not log.deepspeed and log.options.get("use_shadow") == "False":
        found.append(f"{log.path}: named opt, but ran without the switch ({_pdt(log)})")
    wanted, size = _billions(named.critic), log.critic_billions
    if size is not None and wanted is not None and abs(size - wanted) > _CRITIC_OFF * wanted:
        found.append(
            f"{log.path}: named with a {named.critic} critic, which has {size} billion parameters"
        )
    if log.offload:
        found.append(f"{log.path}: ran with --offload, its optimizer and weights on the CPU")
    return found


def _billions(name: str) -> float | None:
    """Return a size such as 7b or 350m in billions."""
    found = re.fullmatch(r"(\d+)([bm])", name.lower())
    return float(found[1]) * (1.0 if found[2] == "b" else 1e-3) if found else None


def _pdt(log: Log) -> str:
    if log.world is None:
        return "with no layout echoed"
    _, data, tensor, pipeline = log.world
    return f"{pipeline}-{data}-{tensor}"


def _by_content(logs: Iterable[Log]) -> list[list[Log]]:
    groups: dict[str, list[Log]] = defaultdict(list)
    for log in logs:
        groups[log.digest].append(log)
    return [same for same in groups.values() if len(same) > 1]


def _models(log: Log) -> str:
    return "_".join(Path(log.path).name.split("_")[:3])


def _copies(logs: list[Log]) -> list[str]:
    """Report files of equal content but unlike names."""
    return [
        "one log under unlike names: " + ", ".join(log.path for log in same)
        for same in _by_content(logs)
        if len({_models(log) for log in same}) > 1
    ]


def _shared(logs: list[Log]) -> list[str]:
    """Report in one line how many runs serve several figures."""
    count = len(_by_content(logs))
    if not count:
        return []
    return [f"groups of files that are equal byte by byte, one run under several names: {count}"]


def _edited(logs: list[Log]) -> list[str]:
    """Report pairs whose steps are equal but whose switch times differ."""
    found: list[str] = []
    groups: dict[tuple[float, ...], list[Log]] = defaultdict(list)
    for log in logs:
        groups[tuple(step.total for step in log.steps)].append(log)
    for first, *others in groups.values():
        for other in others:
            pairs = [
                (a.switch, b.switch)
                for a, b in zip(first.steps, other.steps, strict=True)
                if a.switch is not None and b.switch is not None
            ]
            moved = [b - a for a, b in pairs if abs(b - a) > _SAME_S]
            if moved:
                found.append(
                    f"{other.path}: the steps of {first.path}, {len(moved)} of its {len(pairs)}"
                    f" switch times moved by {max(moved, key=abs):+.3f} s"
                )
    return found


def _unlike_twins(named: list[_Named]) -> list[str]:
    """Report systems that decode in other micro-batches from one cluster to another."""
    groups: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for each in named:
        size = each.log.options.get("ar_stage_mbs")
        if size is not None and not each.sizes:
            key = each.actor, each.critic, each.variant
            groups[key].setdefault(size, each.log.path)
    return [
        f"{actor}/{critic} {variant} decodes in unlike micro-batches: "
        + ", ".join(f"{size} in {path}" for size, path in sizes.items())
        for (actor, critic, variant), sizes in groups.items()
        if len(sizes) > 1
    ]


def _months(named: list[_Named]) -> list[str]:
    """Report where DeepSpeed-Chat's runs are of several months, so maybe of several versions."""
    months: dict[str, list[str]] = defaultdict(list)
    for each in named:
        if each.log.deepspeed and each.month:
            months[each.month].append(f"{each.actor}/{each.critic}")
    if len(months) < 2:
        return []
    told = "; ".join(f"{month}: {', '.join(sorted(set(p)))}" for month, p in sorted(months.items()))
    return [f"DeepSpeed-Chat's logs are of unlike months: {told}"]
