"""V-Half's programs with the vocabulary passes merged in by time."""

import msgspec

from vocab_parallel.plan.passes import Kind, Pass, Schedule
from vocab_parallel.plan.v_half_clock import Clock

_TIE: dict[Kind, int] = {"F": 0, "B": 0, "W": 0, "IF": 1, "T": 2, "S": 3, "IB": 4}
"""Which of several passes that start at one time comes first."""


def with_vocabulary(schedule: Schedule, times: Clock) -> Schedule:
    """Return the schedule with IF, S, T and IB of every micro-batch on every rank.

    Their times are the same on all ranks, so all ranks enter the collectives in one order.
    """
    shared = _vocabulary_passes(times)
    programs = tuple(
        _merge([*zip(starts, program, strict=True), *shared])
        for starts, program in zip(times.starts, schedule.programs, strict=True)
    )
    return msgspec.structs.replace(schedule, programs=programs)


def _vocabulary_passes(times: Clock) -> list[tuple[float, Pass]]:
    of_kind: dict[Kind, tuple[float, ...]] = {
        "IF": times.inputs,
        "S": times.outputs,
        "T": times.output_gradients,
        "IB": times.input_gradients,
    }
    return [
        (start, Pass(kind, batch))
        for kind, starts in of_kind.items()
        for batch, start in enumerate(starts)
    ]


def _merge(timed: list[tuple[float, Pass]]) -> tuple[Pass, ...]:
    ordered = sorted(timed, key=lambda pair: (pair[0], _TIE[pair[1].kind], pair[1].batch))
    return tuple(item for _, item in ordered)
