"""What a plan's machines hold: weights, and how many tokens the KV cache beside them keeps."""

import msgspec

from helix.inputs.model import Model
from helix.inputs.profile import Profiles
from helix.plan.placement import UNUSED


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """The memory of one machine in use."""

    machine: int
    weights: float
    """Bytes of its layers, and of embedding and head where it has the first and the last."""
    memory: float
    """Bytes of its device; 0: not known, the profile was measured."""
    kv_tokens: int
    """Tokens whose keys and values it keeps in all of its layers."""


def held_by(
    model: Model,
    profiles: Profiles,
    kinds: tuple[str, ...],
    machines: tuple[int, ...],
    intervals: tuple[tuple[int, int], ...],
    kv_entries: dict[str, int],
) -> tuple[Held, ...]:
    """Return what the machines of a service hold; `kinds` is in the order of its machines.

    `kv_entries` are capacities by place in the service where they are not the profile's.
    """
    found = list[Held]()
    for i, (machine, run, kind) in enumerate(zip(machines, intervals, kinds, strict=True)):
        if run == UNUSED:
            continue
        profile, count = profiles[kind], run[1] - run[0]
        entries = profile.limits[min(count, profile.max_layers) - 1].kv_entries
        tokens = kv_entries.get(str(i), entries) // count
        weights = model.held_bytes(*run)
        found.append(
            Held(machine=machine, weights=weights, memory=profile.memory, kv_tokens=tokens)
        )
    return tuple(found)


def kv_tokens(layers: int, intervals: tuple[tuple[int, int], ...], held: tuple[Held, ...]) -> int:
    """Return how many tokens a service keeps at once at most: those of its scarcest layer."""
    runs = [run for run in intervals if run != UNUSED]
    kept = [0] * layers
    for run, one in zip(runs, held, strict=True):
        for layer in range(*run):
            kept[layer] += one.kv_tokens
    return min(kept)
