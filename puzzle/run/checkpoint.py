"""Checkpoints of a run: both trained models with their optimizers and loss scales, and the step.

Prompts and draws depend on the seed and the step alone, so nothing else is needed for the identical
continuation but what the run adapts. Any layout can go on from any other's files: tensors are cut
anew. Every file has a digest, which is held against it before anything is read.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from common.errors import InputError
from common.files import digest
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama, Role
from puzzle.inputs.ppo import ResumeName
from puzzle.plan.slices import Slice, held
from puzzle.run.checkpoint_about import (
    About,
    check_about,
    chosen,
    newest_first,
    read_about,
    write_about,
)
from puzzle.run.checkpoint_files import opened
from puzzle.run.digests import first_damaged, read_sums
from puzzle.run.groups import Groups
from puzzle.run.update import Update

_KINDS = ("main", "exp_avg", "exp_avg_sq")


def save(
    folder: Path, about: About, groups: Groups, updates: dict[str, Update], keep: int = 0
) -> None:
    """Write a checkpoint; all ranks call it. It has its name when it is whole.

    Then all but the newest `keep` are deleted; 0: none is.
    """
    place, being = folder / f"step-{about.step:08d}", folder / f"step-{about.step:08d}.part"
    if dist.get_rank() == 0:
        for left in folder.glob("step-*.part"):  # of runs that ended while they wrote
            shutil.rmtree(left, ignore_errors=True)
        being.mkdir(parents=True)
    dist.barrier()
    digests: dict[str, str] = {}
    for name, update in updates.items():
        writes = groups.place.replica == 0
        tensors = _whole(update) if writes or update.store.share else {}
        if writes:
            at = update.groups.place  # of a turned critic another than the actor's
            tensors["step"] = torch.tensor(float(update.count()))
            scale = update.scale
            tensors["scale"] = torch.tensor([scale.value, scale.good], dtype=torch.float64)
            file = _file(name, at.stage, at.slice)
            save_file(tensors, being / file)
            digests[file] = digest(being / file)
    every = [digests] * dist.get_world_size()
    dist.all_gather_object(every, digests)
    if dist.get_rank() == 0:
        write_about(being, about, {name: d for each in every for name, d in each.items()})
        shutil.rmtree(place, ignore_errors=True)
        being.rename(place)
        for old in newest_first(folder)[keep:] if keep else ():
            shutil.rmtree(old, ignore_errors=True)
    dist.barrier()


def load(
    folder: Path,
    about: About,
    groups: Groups,
    updates: dict[str, Update],
    resume: ResumeName = "last",
) -> About | None:
    """Load the checkpoint to go on from and return what it is of; None without one."""
    place, _ = chosen(folder, resume, _shared_wrong)
    if place is None:
        return None
    found = read_about(place)
    check_about(place, found, about)
    roles: dict[str, tuple[Llama, Role]] = {
        "actor": (about.actor, "actor"),
        "critic": (about.critic, "critic"),
    }
    for name, update in updates.items():
        model, role = roles[name]
        for kind in _KINDS:
            held = _held(update, kind)
            for weight, part in update.store.slices.items():
                value = _read(place, name, model, role, found.layout, kind, part)
                with torch.no_grad():
                    if kind == "main":
                        update.store.weights[weight].copy_(value)
                    if update.store.share is None:
                        held[weight].copy_(value)
                    elif weight in held:
                        held[weight].copy_(update.store.share.cut(weight, value.contiguous()))
        with opened(place / _file(name, 0, 0)) as file:
            done = file.get_tensor("step")
            scale, good = file.get_tensor("scale").tolist()
        if update.scale.dynamic:
            update.scale.value, update.scale.good = scale, int(good)
        for parameter in update.store.main.values():
            update.optimizer.state[parameter]["step"] = done.clone()
    return found


def _shared_wrong(place: Path) -> str:
    """Return on all ranks what is wrong with a checkpoint; they share the reading."""
    try:
        sums = read_sums(place)
    except InputError as error:
        return str(error)
    mine = sorted(sums)[dist.get_rank() :: dist.get_world_size()]
    wrong = [""] * dist.get_world_size()
    dist.all_gather_object(wrong, first_damaged(place, sums, mine))
    return next(filter(None, wrong), "")


def _file(model: str, stage: int, part: int) -> str:
    return f"{model}-p{stage}-t{part}.safetensors"


def _held(update: Update, kind: str) -> dict[str, Tensor]:
    """Return what the optimizer holds on this rank of a kind, by weight."""
    return update.store.main if kind == "main" else update.moments(kind)


def _whole(update: Update) -> dict[str, Tensor]:
    """Return the weights' tensors of all kinds on the host; all replicas call it."""
    share, found = update.store.share, dict[str, Tensor]()
    for kind in _KINDS:
        held = {name: value.detach() for name, value in _held(update, kind).items()}
        if share is not None:
            parts = share.whole(held, next(iter(held.values())))
            held = {name: value.clone() for name, value in parts.items()}
        for name, value in held.items():
            shape = update.store.weights[name].shape
            found[f"{kind}/{name}"] = value.cpu().contiguous().view(shape)
    return found


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
