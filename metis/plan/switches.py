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

    phantom_pass: bool = False
    """Later node sequences start with a pass whose plans are costed on their first stage only,
    and never see one-stage plans. Right: every sequence visits every stage count once."""
    first_profile_rules: bool = False
    """Optimizer and batch-generator time of every device come from the first profile file.
    Right: from the tp 1, bs 1 profile of the device type itself."""
    doubled_update: bool = False
    """An optimizer step counts twice. Right: once, as it was measured."""
    lossy_balancer: bool = False
    """Layers are split by the sub-layer heuristic, which can lose layers, and an overflowing
    stage shrinks by capacity scaling. Right: exact min-max split, within memory."""
    empty_stages: bool = False
    """A stage may hold no layer. Right: at least one layer per stage."""
    first_device_speed: bool = False
    """A tensor group of several device types runs at the speed of its first device, may span
    nodes for free, and a one-type stage loses the samples that do not divide.
    Right: slowest member, inside one node, every sample counted."""
    group_memory: bool = False
    """One device's demand (x 5, profile of the sequence's first type) against the memory of the
    whole group. Right: every device's own demand, with all in-flight activations, against its
    own memory."""
    intra_bandwidth_only: bool = False
    """Links between nodes have the bandwidth of links inside them. Right: the node's own."""
    activations_in_elements: bool = False
    """One transfer per iteration, counted in elements. Right: bytes (2 per element), both
    directions, per micro-batch."""
    missing_profile_aborts: bool = False
    """A batch without profile ends the search. Right: interpolated between profiled batches,
    or the strategy is passed over."""
    powers_of_two_only: bool = False
    """Device groups have power-of-two sizes. Right: also the sizes of the nodes and types."""
    any_tensor_degree: bool = False
    """A tensor degree need not divide the heads. Right: it divides heads and KV heads."""
    first_success_ends_chain: bool = False
    """The walk stops at the first strategy that fits without repair. Right: walk to its end."""

    @property
    def updates(self) -> int:
        """How often an optimizer step counts."""
        return 2 if self.doubled_update else 1


def of_mode(mode: Mode) -> Switches:
    """Return all switches of a mode."""
    return Switches(**dict.fromkeys(Switches.__struct_fields__, mode == "compat"))


def resolve(mode: Mode, changes: dict[str, bool]) -> Switches:
    """Return a mode's switches with single ones changed by name."""
    unknown = sorted(set(changes) - set(Switches.__struct_fields__))
    if unknown:
        raise InputError(
            f"search.switches has {', '.join(unknown)}, expected some of"
            f" {', '.join(Switches.__struct_fields__)}"
        )
    return msgspec.structs.replace(of_mode(mode), **changes)
