"""Checkpoints of a run: both trained models with their optimizers and loss scales, and the step.

Prompts and draws depend on the seed and the step alone, so nothing else is needed for the identical
continuation. Any layout can go on from any other's files: tensors are cut anew.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from common.errors import InputError
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama, Role
from puzzle.plan.slices import Slice, held
from puzzle.run.checkpoint_files import opened
from puzzle.run.groups import Groups
from puzzle.run.update import Update

_KINDS = ("main", "exp_avg", "exp_avg_sq")
_ABOUT = "about.json"


class About(msgspec.Struct, frozen=True):
    """What a checkpoint belongs to."""

    actor: Llama
    critic: Llama
    seed: int
    step: int
    """Steps done."""
    layout: Layout


def save(folder: Path, about: About, groups: Groups, updates: dict[str, Update]) -> None:
    """Write a checkpoint; all ranks call it. It has its name when it is whole."""
    place, being = folder / f"step-{about.step:08d}", folder / f"step-{about.step:08d}.part"
    if dist.get_rank() == 0:
        shutil.rmtree(being, ignore_errors=True)
        being.mkdir(parents=True)
    dist.barrier()
    if groups.place.replica == 0:
        for name, update in updates.items():
            at = update.groups.place  # of a turned critic another than the actor's
            tensors = {
                f"{kind}/{weight}": value.detach().cpu().contiguous()
                for weight in update.store.main
                for kind, value in _tensors(update, weight).items()
            }
            tensors["step"] = torch.tensor(float(update.count()))
            scale = update.scale
            tensors["scale"] = torch.tensor([scale.value, scale.good], dtype=torch.float64)
            save_file(tensors, being / _file(name, at.stage, at.slice))
    dist.barrier()
    if dist.get_rank() == 0:
        (being / _ABOUT).write_bytes(msgspec.json.encode(about))
        shutil.rmtree(place, ignore_errors=True)
        being.rename(place)
    dist.barrier()


def load(folder: Path, about: About, groups: Groups, updates: dict[str, Update]) -> int:
    """Load the last whole checkpoint and return the steps it has seen; 0 without one."""
    place = max(folder.glob("step-????????"), default=None)
    if place is None:
        return 0
    try:
        found = msgspec.json.decode((place / _ABOUT).read_bytes(), type=About)
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(f"{place} is no checkpoint of ours: {error}") from error
    if (found.actor, found.critic, found.seed) != (about.actor, about.critic, about.seed):
        raise InputError(
            f"{place} is of other models or another seed; name another running.checkpoint folder"
        )
    roles: dict[str, tuple[Llama, Role]] = {
        "actor": (about.actor, "actor"),
        "critic": (about.critic, "critic"),
    }
    for name, update in updates.items():
        model, role = roles[name]
        for weight, part in update.store.slices.items():
            for kind, value in _tensors(update, weight).items():
                with torch.no_grad():
                    value.copy_(_read(place, name, model, role, found.layout, kind, part))
        with opened(place / _file(name, 0, 0)) as file:
            done = file.get_tensor("step")
            scale, good = file.get_tensor("scale").tolist()
        if update.scale.dynamic:
            update.scale.value, update.scale.good = scale, int(good)
        for parameter in update.store.main.values():
            update.optimizer.state[parameter]["step"] = done.clone()
        update.store.refresh()
    return found.step


def _file(model: str, stage: int, part: int) -> str:
    return f"{model}-p{stage}-t{part}.safetensors"


def _tensors(update: Update, weight: str) -> dict[str, Tensor]:
    """Return a weight's tensors by kind; makes moments of zeros where no step was taken."""
    main = update.store.main[weight]
    state = update.optimizer.state[main]
    for kind in _KINDS[1:]:
        state.setdefault(kind, torch.zeros_like(main))
    return {"main": main, **{kind: state[kind] for kind in _KINDS[1:]}}


def _read(
    place: Path, name: str, model: Llama, role: Role, layout: Layout, kind: str, part: Slice
) -> Tensor:
    """Return a slice from the files that hold some of it."""
    axis, found = part.tensor.axis, list[Tensor]()
    for stage in range(layout.pipeline):
        for number in range(layout.tensor):
            for own in held(model, role, layout, stage, number):
                both = own.overlap(part) if own.tensor == part.tensor else None
                if both is None or (axis is None and found):
                    continue
                with opened(place / _file(name, stage, number)) as file:
                    value = file.get_tensor(f"{kind}/{part.tensor.name}")
                if axis is not None:
                    value = value.narrow(axis, both.start - own.start, both.stop - both.start)
                found.append(value)
    return found[0] if axis is None else torch.cat(found, axis)
