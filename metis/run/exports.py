"""Write a plan for another trainer, or say in one sentence what that trainer cannot express."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from common import files
from common.errors import InputError
from metis.inputs.analytic import Dtype
from metis.plan.plans import Plan
from metis.run import deepspeed, torchtitan


class Form(NamedTuple):
    """A trainer's form of a plan."""

    file: str
    obstacles: Callable[[Plan, Dtype], list[str]]
    content: Callable[[Plan, Dtype], str]


EXPORTS = {
    "torchtitan": Form(torchtitan.FILE, torchtitan.obstacles, torchtitan.content),
    "deepspeed": Form(deepspeed.FILE, deepspeed.obstacles, deepspeed.content),
}


def known(form: str) -> str:
    """Return the name of a form; InputError where there is none of that name."""
    if form not in EXPORTS:
        raise InputError(f"--export is {form!r}, expected one of {', '.join(EXPORTS)}")
    return form


def _remedy(plan: Plan) -> str:
    """Return how to get a plan with equal degrees, where this one has others."""
    if len({(stage.dp, stage.tp) for stage in plan.stages}) == 1:
        return ""
    return " (--method uniform keeps them alike, on one device type)"


def export(form: str, plan: Plan, dtype: Dtype, home: Path) -> tuple[tuple[Path, ...], str]:
    """Write the files of a form; return them and what to say of them.

    Raises:
        InputError: the trainer cannot express the plan.
    """
    how = EXPORTS[form]
    if obstacles := how.obstacles(plan, dtype):
        raise InputError(f"--export {form}: {obstacles[0].removesuffix('.')}{_remedy(plan)}")
    path = files.write(home / how.file, how.content(plan, dtype))
    if form != "deepspeed":
        return (path,), f"{form}: {path}"
    written = [path]
    if len(plan.stages) > 1:
        rows: list[Any] = deepspeed.entries(plan)
        written.append(files.write(home / deepspeed.LIST, msgspec.json.encode(rows) + b"\n"))
    return tuple(written), f"{deepspeed.said(plan)}: {path}"
