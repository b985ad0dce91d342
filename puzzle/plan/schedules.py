"""The training schedules: one model after the other, merged into one stream, fused both ways.

1F1B is Narayanan et al., SC 2021; merging is the paper's intra-stage switch.
"""

from collections.abc import Callable

import msgspec

from common.errors import InputError
from puzzle.inputs.model import Llama, layer_weights
from puzzle.plan.fused import fused_programs
from puzzle.plan.passes import ModelName, Pass, Schedule

ACTOR: ModelName = "actor"
CRITIC: ModelName = "critic"


def one_f_one_b(stages: int, rank: int, items: list[tuple[ModelName, int]]) -> list[Pass]:
    """Return 1F1B over a stream of micro-batches: P - p - 1 warm-up passes, then in turn."""
    ahead = min(stages - rank - 1, len(items))
    forward = [Pass("F", model, batch) for model, batch in items]
    backward = [Pass("B", model, batch) for model, batch in items]
    steady = [item for pair in zip(forward[ahead:], backward, strict=False) for item in pair]
    return [*forward[:ahead], *steady, *backward[len(items) - ahead :]]


def sequential(stages: int, batches: int) -> Schedule:
    """Return 1F1B of the actor with its update, then the same of the critic."""
    programs: list[tuple[Pass, ...]] = []
    for rank in range(stages):
        program: list[Pass] = []
        for model in (ACTOR, CRITIC):
            program += one_f_one_b(stages, rank, [(model, b) for b in range(batches)])
            program += [Pass("R", model), Pass("N", model), Pass("U", model)]
        programs.append(tuple(program))
    return _schedule("sequential", stages, batches, programs)


def actor_alone(stages: int, batches: int) -> Schedule:
    """Return 1F1B of the actor with its update, where there is no critic."""
    ends = [Pass("R", ACTOR), Pass("N", ACTOR), Pass("U", ACTOR)]
    items: list[tuple[ModelName, int]] = [(ACTOR, b) for b in range(batches)]
    programs = [(*one_f_one_b(stages, rank, items), *ends) for rank in range(stages)]
    made = _schedule("actor", stages, batches, programs)
    return msgspec.structs.replace(made, models=(ACTOR,))


def merged(stages: int, batches: int) -> Schedule:
    """Return one 1F1B over the actor's and then the critic's micro-batches.

    The actor's gradients are summed as soon as its last backward pass is over. Its update, which
    waits for the norm of all stages, comes when the first stage must have had its turn, between
    the critic's passes; so no rank waits for all others.
    """
    stream: list[tuple[ModelName, int]] = [
        (model, batch) for model in (ACTOR, CRITIC) for batch in range(batches)
    ]
    programs: list[tuple[Pass, ...]] = []
    for rank in range(stages):
        program = one_f_one_b(stages, rank, stream)
        place = program.index(Pass("B", ACTOR, batches - 1)) + 1
        program.insert(place, Pass("R", ACTOR))
        program.insert(min(place + 2, len(program)), Pass("N", ACTOR))
        # A norm is complete when stage 0 is through; rank p is then about 2 p passes further on.
        program.insert(min(place + 5 + 2 * rank, len(program)), Pass("U", ACTOR))
        program += [Pass("R", CRITIC), Pass("N", CRITIC), Pass("U", CRITIC)]
        programs.append(tuple(program))
    return _schedule("merged", stages, batches, programs)


def fused(stages: int, batches: int, ratio: float = 1.0) -> Schedule:
    """Return both models at once, the critic's first stage on the last rank.

    `ratio` is the time of an actor's pass over the critic's; the order is found for it.
    """
    programs = list(fused_programs(stages, batches, ratio))
    made = _schedule("fused", stages, batches, programs)
    return msgspec.structs.replace(made, reversed=(CRITIC,))


def inference(
    stages: int,
    batches: int,
    models: tuple[ModelName, ...],
    turned: tuple[ModelName, ...] = (),
) -> Schedule:
    """Return the forward passes of several models as one stream; `turned` run the other way."""
    program = tuple(Pass("F", model, batch) for model in models for batch in range(batches))
    return Schedule(
        name="inference",
        stages=stages,
        batches=batches,
        models=models,
        reversed=turned,
        programs=(program,) * stages,
    )


def _schedule(name: str, stages: int, batches: int, programs: list[tuple[Pass, ...]]) -> Schedule:
    return Schedule(
        name=name,
        stages=stages,
        batches=batches,
        models=(ACTOR, CRITIC),
        programs=tuple(programs),
    )


SCHEDULES: dict[str, Callable[[int, int], Schedule]] = {
    "sequential": sequential,
    "merged": merged,
    "fused": fused,
}


def make_schedule(name: str, stages: int, batches: int, ratio: float = 1.0) -> Schedule:
    """Return a training schedule by its name; `ratio` as in `fused`."""
    if name not in SCHEDULES:
        raise InputError(f"schedule is {name!r}, expected one of {', '.join(SCHEDULES)}")
    if name == "fused":
        return fused(stages, batches, ratio)
    return SCHEDULES[name](stages, batches)


def pass_ratio(actor: Llama, critic: Llama) -> float:
    """Return the time of an actor's pass over the critic's by their matrices, in tenths."""
    sizes = [model.layers * layer_weights(model) for model in (actor, critic)]
    return max(0.1, round(sizes[0] / sizes[1], 1))
