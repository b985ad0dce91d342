"""The original's defects as named switches: all on is `compat`, all off is `strict`.

Each switch keeps one behaviour of the original that is not what its paper means (True), or the
right behaviour (False). What each one changes is said beside it.
"""

from typing import Literal

import msgspec

from common.errors import InputError

Mode = Literal["strict", "compat"]


class Switches(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of the original's behaviours to keep."""

    legacy_ties: bool = False
    """Equal keys sort as numpy before 1.25 left them (an unstable introsort above 16 keys).
    Right: a stable sort, the same on every machine."""
    round_robin_stops: bool = False
    """Round robin ends when the group at its pointer is full. Right: the next group is tried."""
    strict_beam_memory: bool = False
    """Beam search refuses an addition that fills memory exactly. Right: it fits."""
    beam_ignores_configs: bool = False
    """Beam search takes placements of equal models for the same one even where the groups'
    configs differ. Right: they are different."""
    fresh_windows: bool = False
    """At a switch of placements work in flight is forgotten, the first request of a window is
    still served by the old placement, and one request passes one switch at most. Right: devices
    stay busy with what they run, and a request is served by its own window's placement."""
    dead_leftovers: bool = False
    """Devices left over beside the regular groups form groups of powers of two even where no
    profile has that size. Right: the largest profiled size that fits, again and again."""
    idle_break: bool = False
    """With batching, a group that falls idle and finds nothing to do keeps the others from
    looking until the next arrival. Right: the others look."""


def of_mode(mode: Mode) -> Switches:
    """Return all switches of a mode."""
    return Switches(**dict.fromkeys(Switches.__struct_fields__, mode == "compat"))


def resolve(mode: Mode, changes: dict[str, bool]) -> Switches:
    """Return a mode's switches with single ones changed by name."""
    unknown = sorted(set(changes) - set(Switches.__struct_fields__))
    if unknown:
        raise InputError(
            f"placement.switches has {', '.join(unknown)}, expected some of"
            f" {', '.join(Switches.__struct_fields__)}"
        )
    return msgspec.structs.replace(of_mode(mode), **changes)
