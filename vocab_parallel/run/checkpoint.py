"""Checkpoints that any method and any number of ranks can go on from.

Weights and Adam's moments are saved under their names with torch.distributed.checkpoint; a
vocabulary matrix as the pieces that the ranks hold, so that another split finds its rows in them; a
layer's matrix, under tensor parallelism, as numbered parts that another split joins and cuts anew.
Every file's digest is written last and checked before anything is loaded.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_pieces
from torch.distributed.checkpoint.state_dict_saver import save as save_pieces

from common.errors import InputError
from common.files import write
from vocab_parallel.inputs.model import Model
from vocab_parallel.run.digests import find_damage, take_digests
from vocab_parallel.run.tensor import Cut, joined, own_part
from vocab_parallel.run.weights import Store, Weight

_MOMENTS = ("exp_avg", "exp_avg_sq")
_ABOUT = "about.json"


class State(NamedTuple):
    """What a checkpoint holds, and what it belongs to."""

    store: Store
    optimizer: torch.optim.Optimizer
    model: Model
    seed: int


class About(msgspec.Struct, frozen=True):
    """What a checkpoint belongs to, and the digests of its files; written last."""

    model: Model
    seed: int
    step: int
    digests: dict[str, str]
    seal: str = ""
    """Digest of the rest."""

    def sealed(self) -> About:
        """Return it with its own digest."""
        bare = msgspec.structs.replace(self, seal="")
        return msgspec.structs.replace(self, seal=sha256(msgspec.json.encode(bare)).hexdigest())


class Loaded(NamedTuple):
    """How many steps a checkpoint has seen, and why later ones were passed over."""

    step: int
    passed_over: tuple[str, ...] = ()


def save(state: State, folder: Path, step: int) -> Path:
    """Write a checkpoint after `step` steps; all ranks call it together."""
    place = folder / f"step-{step:08d}"
    pieces = {
        f"{kind}/{_piece(weight)}": _real(tensor, weight)
        for name, weight in state.store.weights.items()
        for kind, tensor in _tensors(state, name).items()
    }
    if dist.get_rank() == 0:
        (place / _ABOUT).unlink(missing_ok=True)  # no whole checkpoint while it is written
    dist.barrier()
    save_pieces(pieces, checkpoint_id=place)
    dist.barrier()
    digests = take_digests(place, (path.name for path in place.iterdir()))
    if dist.get_rank() == 0:
        about = About(state.model, state.seed, step, digests).sealed()
        write(place / _ABOUT, msgspec.json.encode(about))
    dist.barrier()
    return place


def load(state: State, folder: Path, *, fallback: bool = False) -> Loaded:
    """Load the last whole checkpoint and return how many steps it has seen; 0 without one.

    A damaged one is refused by the name of its file; with `fallback` the one before it is taken.
    """
    passed_over: list[str] = []
    for place in sorted(whole(folder), reverse=True):
        try:
            about, known = _read(place)
        except InputError as error:
            if not fallback:
                raise
            passed_over.append(str(error))
            continue
        _fill_all(state, place, about, known)
        return Loaded(about.step, tuple(passed_over))
    if passed_over:
        raise InputError(f"{folder} holds no checkpoint that is not damaged; {passed_over[0]}")
    return Loaded(0)


def _fill_all(state: State, place: Path, about: About, known: Metadata) -> None:
    """Put a checkpoint's weights and moments into the rank's own."""
    if (about.model, about.seed) != (state.model, state.seed):
        raise InputError(
            f"{place} is of another model or seed; name another training.checkpoint folder"
        )
    wanted: dict[str, Tensor] = {}
    for name, weight in state.store.weights.items():
        for kind, tensor in _tensors(state, name).items():
            for key in _keys(known, kind, weight):
                wanted[key] = torch.empty(_size(known, key), dtype=tensor.dtype)
    load_pieces(wanted, storage_reader=FileSystemReader(place))
    for name, weight in state.store.weights.items():
        for kind, tensor in _tensors(state, name).items():
            keys = _keys(known, kind, weight)
            _fill(tensor, weight, {key: wanted[key] for key in keys})
    for parameter in state.store.main.values():
        state.optimizer.state[parameter]["step"] = torch.tensor(float(about.step))
    state.store.refresh()


def _read(place: Path) -> tuple[About, Metadata]:
    """Return what a checkpoint belongs to and what is in it, after its files were checked."""
    path = place / _ABOUT
    try:
        about = msgspec.json.decode(path.read_bytes(), type=About)
        fault = "" if about == about.sealed() else f"{path} is damaged (its SHA-256 is another)"
    except (OSError, msgspec.DecodeError) as error:
        about, fault = None, f"{path} is damaged ({error})"
    if about is not None and not fault:
        fault = find_damage(place, about.digests)
    if about is None or fault:
        raise InputError(
            f"{fault}; set training.checkpoint_fallback to go on from the checkpoint before, or"
            f" remove {place}"
        )
    return about, FileSystemReader(place).read_metadata()


def whole(folder: Path) -> list[Path]:
    """Return the checkpoints that were written to their end."""
    return [path.parent for path in folder.glob(f"step-*/{_ABOUT}")]


def _tensors(state: State, name: str) -> dict[str, Tensor]:
    """Return a weight's tensors by kind; makes the moments where no step was taken yet."""
    main = state.store.main[name]
    own = state.optimizer.state[main]
    for moment in _MOMENTS:
        own.setdefault(moment, torch.zeros_like(main))
    return {"main": main, **{moment: own[moment] for moment in _MOMENTS}}


def _piece(weight: Weight) -> str:
    if weight.real >= 0:
        return f"{weight.name}/{weight.first}"
    if weight.cut is None or weight.cut.size == 1:
        return weight.name
    return f"{weight.name}/{weight.cut.place}"


def _real(tensor: Tensor, weight: Weight) -> Tensor:
    """Return the rows that are no padding, on their own (a view would save the whole storage)."""
    return tensor if weight.real < 0 else tensor[: weight.real].clone()


def _keys(known: Metadata, kind: str, weight: Weight) -> list[str]:
    """Return the saved pieces that hold some of a weight's values."""
    name = f"{kind}/{weight.name}"
    if name in known.state_dict_metadata:
        return [name]
    pieces = [key for key in known.state_dict_metadata if key.startswith(f"{name}/")]
    pieces.sort(key=_number)
    if weight.real < 0:
        return pieces
    found = []
    for key in pieces:
        begin = _number(key)
        if begin < weight.first + weight.real and begin + _size(known, key)[0] > weight.first:
            found.append(key)
    return found


def _size(known: Metadata, key: str) -> torch.Size:
    about = known.state_dict_metadata[key]
    assert isinstance(about, TensorStorageMetadata)
    return about.size


def _number(key: str) -> int:
    return int(key.rpartition("/")[2])


def _fill(tensor: Tensor, weight: Weight, pieces: dict[str, Tensor]) -> None:
    """Put saved pieces where they belong in a rank's tensor."""
    if weight.real < 0:
        cut = weight.cut or Cut(0)
        tensor.copy_(own_part(joined([*pieces.values()], cut), cut))
        return
    for key, piece in pieces.items():
        _put(tensor, weight, _number(key), piece)


def _put(tensor: Tensor, weight: Weight, begin: int, piece: Tensor) -> None:
    low = max(begin, weight.first)
    high = min(begin + len(piece), weight.first + weight.real)
    tensor[low - weight.first : high - weight.first] = piece[low - begin : high - begin]
