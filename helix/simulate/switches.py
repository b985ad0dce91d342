"""The original simulator's faults as named switches: all on is `compat`, all off is right.

Each switch keeps one behaviour of the original that is not what its paper means (True), or has the
right one (False). What each changes is said beside it.
"""

from collections.abc import Sequence

import msgspec


class Switches(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of the original's behaviours to keep."""

    doubled_single_decode: bool = False
    """A batch of exactly one decode takes twice the interpolated time, whatever was measured.
    Right: no batch is faster than the smallest measured one (the same for the shipped profiles,
    which begin at two)."""
    receiver_free_while_arriving: bool = False
    """A transfer takes the receiver's network card while it is sent and not while it arrives.
    Right: until it has arrived. Only where transfers compete for cards (not with max-flow)."""
    shuffled_trace: bool = False
    """Arrival intervals of a generated trace are drawn one by one from the recorded hour, so that
    bursts are lost. Right: consecutive intervals from a drawn start."""


def compat(right: Sequence[str] = ()) -> Switches:
    """Return the original's faults, without those in `right`.

    With all of them its numbers come out to the last digit.
    """
    return Switches(**{name: name not in right for name in Switches.__struct_fields__})
