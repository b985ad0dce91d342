"""A question whose requests take their part of a batch: how methods search where requests batch.

Methods fill groups by the fast simulator, one request at a time, and so see a model as overloaded
that batches serve with ease. Here each request takes its part of the batch that is most efficient
of those that can be in time. What is found so is played as it is, like every other placement.
"""

from collections.abc import Iterable, Iterator

import msgspec

from beta.inputs.model import Model
from beta.inputs.profile import Record
from beta.plan.problem import Problem, Scored, score


def amortised(problem: Problem) -> Problem:
    """Return the question with each model's batch of one replaced by its part of a batch."""
    return problem._replace(models=tuple(_model(model) for model in problem.models))


def as_it_is(problem: Problem, found: Iterable[Scored]) -> Iterator[Scored]:
    """Yield placements that were found for the amortised question, scored on the question."""
    for scored in found:
        true = score(problem, scored.placement)
        yield true._replace(
            simulations=scored.simulations + true.simulations, walked=scored.walked + true.walked
        )


def _model(model: Model) -> Model:
    records = {config: _record(r, model.slo_s) for config, r in model.profile.records.items()}
    profile = msgspec.structs.replace(model.profile, records=records)
    return msgspec.structs.replace(model, profile=profile)


def _record(record: Record, slo_s: float) -> Record:
    if 1 not in record.stage_s:  # it cannot be played
        return record
    parts = [
        tuple(seconds / size for seconds in stages)
        for size, stages in record.stage_s.items()
        if size == 1 or sum(stages) <= slo_s
    ]
    return msgspec.structs.replace(record, stage_s={1: min(parts, key=max)})
