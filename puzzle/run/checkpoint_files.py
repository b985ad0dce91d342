"""Weights in Hugging Face's safetensors files: read by slices, written by stages."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from common.errors import InputError
from puzzle.inputs.model import LM_HEAD, SCORE, Llama, Role, tensors
from puzzle.plan.slices import Slice
from puzzle.run.groups import Groups
from puzzle.run.weights import Reader, Store, random_weights

_INDEX = "model.safetensors.index.json"


def checkpoint_weights(folder: str, model: Llama, role: Role, seed: int) -> Reader:
    """Return a reader of a folder's weights that loads no more than the slices asked for.

    A critic without a score head in the folder gets a random one. Raises InputError where a tensor
    is missing or of another shape.
    """
    where = _files(Path(folder))
    for tensor in tensors(model, role):
        if tensor.name == SCORE and SCORE not in where:
            continue
        if tensor.name not in where:
            raise InputError(
                f"{folder}: no tensor {tensor.name}; is it a checkpoint of this model?"
            )
        with safe_open(where[tensor.name], "pt") as file:
            shape = tuple(file.get_slice(tensor.name).get_shape())
        if shape != tensor.shape:
            raise InputError(
                f"{folder}: {tensor.name} is {shape}, the experiment's model has {tensor.shape}"
            )
    spare = random_weights(seed, "head")

    def read(part: Slice) -> Tensor:
        name, axis = part.tensor.name, part.tensor.axis
        if name not in where:
            return spare(part)
        with safe_open(where[name], "pt") as file:
            lazy = file.get_slice(name)
            if axis is None:
                return lazy[:].float()
            rows = slice(part.start, part.stop)
            return (lazy[rows] if axis == 0 else lazy[:, rows]).float()

    return read


def _files(folder: Path) -> dict[str, Path]:
    """Return which file of a folder holds each tensor; a tied head is the embedding's."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of safetensors")
    index = folder / _INDEX
    if index.is_file():
        names = json.loads(index.read_text())["weight_map"]
        return {name: folder / file for name, file in names.items()}
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= dict.fromkeys(file.keys(), path)
    if not found:
        raise InputError(f"{folder}: no .safetensors files in it")
    return found


def save_weights(folder: Path, model: Llama, role: Role, groups: Groups, store: Store) -> None:
    """Write whole weights as Hugging Face has them, a file per stage; all ranks call it."""
    whole = {
        name: _whole(value.detach(), store.slices[name], groups)
        for name, value in store.main.items()
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
        config = json.dumps(_config(model, causal=LM_HEAD in names), indent=1)
        (folder / "config.json").write_text(config + "\n")
    dist.barrier()


def _whole(value: Tensor, part: Slice, groups: Groups) -> Tensor:
    """Return a whole tensor from its slices."""
    if groups.tensor is None or part.tensor.axis is None:
        return value
    parts = [torch.empty_like(value) for _ in range(groups.layout.tensor)]
    dist.all_gather(parts, value.contiguous(), group=groups.tensor)
    return torch.cat(parts, part.tensor.axis)


def _config(model: Llama, *, causal: bool) -> dict[str, object]:
    head = "LlamaForCausalLM" if causal else "LlamaForSequenceClassification"
    return {
        "architectures": [head],
        "model_type": "llama",
        "num_labels": 1,
        "hidden_size": model.hidden,
        "intermediate_size": model.ffn,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.heads,
        "vocab_size": model.vocabulary,
        "rms_norm_eps": model.norm_epsilon,
        "rope_theta": model.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_base},
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "dtype": "float32",
    }
