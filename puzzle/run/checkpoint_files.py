"""Weights in Hugging Face's safetensors files: read by slices, written by stages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from common.errors import InputError
from puzzle.inputs.model import EMBEDDING, LM_HEAD, SCORE, Llama, Role, tensors
from puzzle.plan.slices import Slice
from puzzle.run.checkpoint_config import FILE, check_config, config_of, is_tied, read_config
from puzzle.run.groups import Groups
from puzzle.run.weights import Reader, Store, random_weights

_INDEX = "model.safetensors.index.json"
_BESIDE = (
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "chat_template.jinja",
)  # fmt: skip
"""Files of a folder that belong to its model, beside weights and configuration."""


def checkpoint_weights(folder: str, model: Llama, role: Role, seed: int) -> Reader:
    """Return a reader of a folder's weights that loads no more than the slices asked for.

    A tied head is read from the embedding, and a part of its own from then on. A critic without a
    score head in the folder gets a random one. Raises InputError where the folder's configuration
    or a tensor is of another model, or something is missing or damaged.
    """
    home = Path(folder)
    where, config = _files(home), read_config(home)
    check_config(home, config, model, role)
    stored = {tensor.name: tensor.name for tensor in tensors(model, role)}
    if LM_HEAD in stored and LM_HEAD not in where and is_tied(config):
        stored[LM_HEAD] = EMBEDDING
    for tensor in tensors(model, role):
        if tensor.name == SCORE and SCORE not in where:
            continue
        name = stored[tensor.name]
        if name not in where:
            raise InputError(
                f"{folder}: no tensor {tensor.name}; is it a checkpoint of this model?"
            )
        with opened(where[name]) as file:
            if name not in file.keys():  # noqa: SIM118
                raise InputError(f"{where[name]}: no tensor {name}, though {_INDEX} says so")
            shape = tuple(file.get_slice(name).get_shape())
        if shape != tensor.shape:
            raise InputError(
                f"{folder}: {tensor.name} is {shape}, the experiment's model has {tensor.shape}"
            )
    spare = random_weights(seed, "head")

    def read(part: Slice) -> Tensor:
        name, axis = stored[part.tensor.name], part.tensor.axis
        if name not in where:
            return spare(part)
        with opened(where[name]) as file:
            lazy = file.get_slice(name)
            if axis is None:
                return _finite(lazy[:].float(), where[name], name)
            rows = slice(part.start, part.stop)
            found = (lazy[rows] if axis == 0 else lazy[:, rows]).float()
            return _finite(found, where[name], name)

    return read


def _finite(value: Tensor, path: Path, name: str) -> Tensor:
    """Return a weight, or refuse it: one NaN makes every logit NaN."""
    wrong = int((~value.isfinite()).sum())
    if wrong:
        raise InputError(
            f"{path}: {wrong} elements of {name} are NaN or infinite; use a checkpoint from before"
            " its training diverged"
        )
    return value


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file; raises InputError that names one that is missing or damaged."""
    if not path.is_file():
        raise InputError(f"{path}: no such file, so the checkpoint is not whole")
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise InputError(f"{path}: no whole safetensors file: {error}") from error


def _files(folder: Path) -> dict[str, Path]:
    """Return which file of a folder holds each tensor."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of safetensors")
    index = folder / _INDEX
    if index.is_file():
        try:
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            return {str(name): folder / file for name, file in names.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index}: no JSON object with a 'weight_map' of files") from error
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with opened(path) as file:
            found |= dict.fromkeys(file.keys(), path)
    if not found:
        raise InputError(f"{folder}: no .safetensors files in it")
    return found


def save_weights(
    folder: Path, model: Llama, role: Role, groups: Groups, store: Store, like: str = ""
) -> None:
    """Write whole weights as Hugging Face has them, a file per stage; all ranks call it.

    What the folder `like`, which the weights were begun from, says beside them goes along:
    its configuration's other words, the tokenizer, and how to generate.
    """
    main = store.main
    if store.share is not None:
        parts = store.share.whole(main, next(iter(main.values())))
        main = {name: value.view_as(store.weights[name]) for name, value in parts.items()}
    whole = {
        name: _whole(value.detach(), store.slices[name], groups) for name, value in main.items()
    }
    stages = groups.layout.pipeline
    if groups.place.replica == groups.place.slice == 0:
        folder.mkdir(parents=True, exist_ok=True)
        number = groups.place.stage + 1
        name = f"model-{number:05d}-of-{stages:05d}.safetensors"
        save_file(
            {k: v.cpu().contiguous() for k, v in whole.items()}, folder / name, {"format": "pt"}
        )
    everyone: list[tuple[int, list[str]]] = [(0, [])] * dist.get_world_size()
    dist.all_gather_object(everyone, (groups.place.stage + 1, list(whole)))
    if dist.get_rank() == 0:
        names = {
            tensor: f"model-{number:05d}-of-{stages:05d}.safetensors"
            for number, held in everyone
            for tensor in held
        }
        size = 4 * sum(t.size for t in tensors(model, role))
        index = {"metadata": {"total_size": size}, "weight_map": names}
        (folder / _INDEX).write_text(json.dumps(index, indent=1) + "\n")
        home = Path(like) if like else folder
        before = {k: v for k, v in read_config(home).items() if like and k != "torch_dtype"}
        config = before | config_of(model, causal=LM_HEAD in names)
        (folder / FILE).write_text(json.dumps(config, indent=1) + "\n")
        for path in (home / name for name in _BESIDE if home.resolve() != folder.resolve()):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
    dist.barrier()


def _whole(value: Tensor, part: Slice, groups: Groups) -> Tensor:
    """Return a whole tensor from its slices."""
    if groups.tensor is None or part.tensor.axis is None:
        return value
    parts = [torch.empty_like(value) for _ in range(groups.layout.tensor)]
    dist.all_gather(parts, value.contiguous(), group=groups.tensor)
    return torch.cat(parts, part.tensor.axis)
