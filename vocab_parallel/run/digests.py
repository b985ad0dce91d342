"""Digests (SHA-256) of a folder's files, taken by all ranks together, each of a part of them."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import torch.distributed as dist

from common.files import digest


def take_digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the digests of files, on every rank; empty for one that is not there."""
    world, rank = dist.get_world_size(), dist.get_rank()
    own = {name: _digest(folder / name) for name in sorted(names)[rank::world]}
    every: list[dict[str, str]] = [own] * world
    dist.all_gather_object(every, own)
    return {name: found for part in every for name, found in part.items()}


def find_damage(folder: Path, expected: Mapping[str, str]) -> str:
    """Return what is wrong with the first file that is not as it was written; empty if all are."""
    found = take_digests(folder, expected)
    for name in sorted(expected):
        if found[name] != expected[name]:
            how = "is damaged (its SHA-256 is another)" if found[name] else "is missing"
            return f"{folder / name} {how}"
    return ""


def _digest(path: Path) -> str:
    with suppress(OSError):
        return digest(path)
    return ""
