"""Save and resume training, on the same plan or another one.

A checkpoint holds whole weights and Adam moments, a file a layer, gathered on rank 0 and written
there only, so that nodes need no shared disk. Any plan of the same model cuts its slices from it.
"""

from __future__ import annotations

import re
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

import msgspec
import torch
import torch.distributed as dist
from torch import Tensor

from common.errors import InputError
from common.files import digest, write, writing
from metis.inputs.model import Model
from metis.run.layout import tensor_ranks
from metis.run.parallel import TensorGroup
from metis.run.shards import owners
from metis.run.weights import Weight, weights

if TYPE_CHECKING:
    from metis.run.train import Trainer

FACTS = "checkpoint.json"
MOMENTS = ("exp_avg", "exp_avg_sq")
KEPT = 2
"""Checkpoints of a run that are kept: the newest, and the one before it."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a checkpoint is of; `files` are the SHA-256 of its layers' files by name."""

    schema: str = "metis-checkpoint/1"
    step: int
    """Steps that were done: the number of the next one."""
    model: Model
    dtype: str
    seed: int
    files: dict[str, str]


def save(trainer: Trainer, step: int, home: Path) -> None:
    """Write the checkpoint `home/step-<step>`; all ranks call it, rank 0 writes."""
    folder, digests = home / f"step-{step}", dict[str, str]()
    for layer in range(trainer.plan.model.layers):
        whole = {name: _gather(trainer, layer, name) for name in weights(trainer.plan.model, layer)}
        if trainer.me.rank == 0:
            path = folder / f"layer-{layer}.pt"
            with writing(path) as beside:
                torch.save(
                    {name: [t.cpu() for t in parts] for name, parts in whole.items()}, beside
                )
            digests[path.name] = digest(path)
    if trainer.me.rank == 0:
        facts = Checkpoint(
            step=step,
            model=trainer.plan.model,
            dtype=trainer.training.dtype,
            seed=trainer.seed,
            files=digests,
        )
        write(folder / FACTS, msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n")
        for old in _whole(home)[:-KEPT]:
            rmtree(old)


def load(trainer: Trainer, source: str) -> int:
    """Take weights and moments from a checkpoint that rank 0 reads, and return its step.

    `source` is a checkpoint's folder or that of a run's checkpoints, of which the newest counts.
    Raises `InputError` on all ranks if it is damaged or of another model, type or seed.
    """
    first, folder = trainer.me.rank == 0, Path(source)
    told: list[int | str | None] = [None]
    if first:
        try:
            folder, facts = _open(folder)
            _check(trainer, folder, facts)
            told = [facts.step]
        except InputError as error:
            told = [str(error)]
    dist.broadcast_object_list(told, src=0)
    if not isinstance(told[0], int):
        raise InputError(str(told[0]))
    for layer in range(trainer.plan.model.layers):
        path = folder / f"layer-{layer}.pt"
        read = torch.load(path, map_location="cpu", weights_only=True) if first else {}
        for name, weight in weights(trainer.plan.model, layer).items():
            _spread(trainer, layer, name, weight, read.get(name), told[0])
    return told[0]


def _open(folder: Path) -> tuple[Path, Checkpoint]:
    if not (folder / FACTS).is_file():
        whole = _whole(folder)
        if not whole:
            raise InputError(
                f"training.resume: {folder}: no checkpoint there; expected a folder step-<number>"
                f" with a {FACTS}, or the folder of several"
            )
        folder = whole[-1]
    try:
        return folder, msgspec.json.decode((folder / FACTS).read_bytes(), type=Checkpoint)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"training.resume: {folder / FACTS}: {error}") from error


def _whole(home: Path) -> list[Path]:
    """Return the checkpoints of a run that were written to their end, oldest first."""
    found = [path for path in home.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    whole = [path for path in found if (path / FACTS).is_file()]
    return sorted(whole, key=lambda path: int(path.name.removeprefix("step-")))


def _check(trainer: Trainer, folder: Path, facts: Checkpoint) -> None:
    """Raise `InputError` unless training can go on from the checkpoint as if it had not ended."""
    here = {
        "model": _sizes(trainer.plan.model),
        "training.dtype": trainer.training.dtype,
        "--seed": trainer.seed,
    }
    there = {"model": _sizes(facts.model), "training.dtype": facts.dtype, "--seed": facts.seed}
    for name, value in there.items():
        if value != here[name]:
            raise InputError(
                f"training.resume: {folder} was trained with {name} {value}, not {here[name]};"
                " resume with the same"
            )
    for name, expected in facts.files.items():
        if not (folder / name).is_file() or digest(folder / name) != expected:
            raise InputError(
                f"training.resume: {folder / name} is missing or not what was written; resume from"
                " another checkpoint"
            )


def _sizes(model: Model) -> dict[str, object]:
    """Return what weights and batches depend on."""
    return {k: v for k, v in msgspec.structs.asdict(model).items() if k not in ("name", "config")}


def _parts(trainer: Trainer, layer: int, name: str) -> list[Tensor]:
    """Return this rank's slice of a weight and of its moments."""
    own = trainer.layers[layer - trainer.stage.first_layer].get_parameter(name)
    state = trainer.optimizer.state[own]
    return [own.detach(), *(state[moment] for moment in MOMENTS)]


def _holders(trainer: Trainer, layer: int, name: str, weight: Weight) -> list[int]:
    """Return the ranks whose slices make up a weight: those of the replica that updates it."""
    stages = trainer.plan.stages
    stage = next(s for s in stages if s.first_layer <= layer < s.end_layer)
    ranks = tensor_ranks(stage, owners(trainer.plan.model, stage)[layer, name])
    return ranks[:1] if weight.split is None else ranks


def _gather(trainer: Trainer, layer: int, name: str) -> list[Tensor]:
    """Return a whole weight and its moments on rank 0, nothing elsewhere."""
    weight, me = weights(trainer.plan.model, layer)[name], trainer.me.rank
    holders = _holders(trainer, layer, name, weight)
    parts = _parts(trainer, layer, name) if me in holders else []
    if me != 0:
        for part in parts:
            dist.send(part.contiguous(), 0)
        return []
    like = {"dtype": trainer.dtype, "device": trainer.device}
    whole = [torch.empty(weight.shape, **like) for _ in range(1 + len(MOMENTS))]
    for index, holder in enumerate(holders):
        for number, full in enumerate(whole):
            view = TensorGroup(None, index, len(holders)).slice(full, weight.split)
            part = parts[number] if holder == 0 else torch.empty(view.shape, **like)
            if holder != 0:
                dist.recv(part, holder)
            view.copy_(part)
    return whole


def _spread(
    trainer: Trainer, layer: int, name: str, weight: Weight, read: list[Tensor] | None, step: int
) -> None:
    """Hand a whole weight and its moments to all ranks; those that hold the layer cut theirs."""
    like = {"dtype": trainer.dtype, "device": trainer.device}
    whole = [t.to(**like) for t in read] if read else []
    whole = whole or [torch.empty(weight.shape, **like) for _ in range(1 + len(MOMENTS))]
    for full in whole:
        dist.broadcast(full, src=0)
    if not trainer.stage.first_layer <= layer < trainer.stage.end_layer:
        return
    own = trainer.layers[layer - trainer.stage.first_layer].get_parameter(name)
    cut = [trainer.groups.tensor.slice(full, weight.split).contiguous() for full in whole]
    with torch.no_grad():
        own.copy_(cut[0])
    if not trainer.shards.mine(own):
        return
    trainer.optimizer.state[own] = {
        "step": torch.tensor(float(step)),
        **dict(zip(MOMENTS, cut[1:], strict=True)),
    }
