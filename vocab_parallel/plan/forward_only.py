"""Evaluation: a schedule without what gradients need."""

import msgspec

from vocab_parallel.plan.passes import Schedule

_FORWARD = ("F", "IF", "S")


def forward_only(schedule: Schedule) -> Schedule:
    """Return the schedule's F, IF and S passes in their order; S then only gives the loss."""
    programs = tuple(
        tuple(item for item in program if item.kind in _FORWARD) for program in schedule.programs
    )
    return msgspec.structs.replace(schedule, programs=programs)
