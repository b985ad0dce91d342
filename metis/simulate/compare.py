"""The played timeline beside the closed form of the cost model, term by term.

The closed form is (B-1)·max E + ΣE + F + max U + max D + ΣP + B·(batch generator); Metis §4.
"""

import msgspec

from metis.inputs.savings import FORWARD_SHARE
from metis.plan.plans import Plan
from metis.simulate.timeline import play


class Term(msgspec.Struct, frozen=True):
    """One part of the iteration, by the closed form and as played, in ms."""

    name: str
    closed_ms: float
    played_ms: float
    meaning: str

    @property
    def difference_ms(self) -> float:
        """Closed form minus timeline."""
        return self.closed_ms - self.played_ms


def compare(plan: Plan, forward_share: float = FORWARD_SHARE) -> tuple[Term, ...]:
    """Split closed form and timeline into terms that add up to `cost_ms` and `iteration_ms`.

    The timeline is played once without transfers: what they add is the part of them that the
    pipeline could not hide.
    """
    closed = plan.cost_terms
    full, silent = play(plan, forward_share), play(_without_transfers(plan), forward_share)
    rows = (
        ("compute", ("pipeline", "fill"), silent.pipeline_ms, "passes and waiting for them"),
        ("send", ("send",), full.pipeline_ms - silent.pipeline_ms, "what compute does not hide"),
        (
            "finish",
            ("allreduce", "update"),
            full.iteration_ms - full.pipeline_ms,
            "all-reduce and update after the last backward pass; each stage starts when it is done",
        ),
        (
            "sync",
            ("sync",),
            0.0,
            "time between layers in the profile's whole-model run; not played",
        ),
        ("batch_generator", ("batch_generator",), 0.0, "loading of the micro-batches; not played"),
    )
    terms = tuple(
        Term(name, sum(closed.get(key, 0.0) for key in keys), played, meaning)
        for name, keys, played, meaning in rows
    )
    rest = plan.cost_ms - sum(term.closed_ms for term in terms)
    return (*terms, Term("other", rest, 0.0, "cost that the plan does not explain"))


def _without_transfers(plan: Plan) -> Plan:
    """Return the plan on links that take no time."""
    stages = tuple(msgspec.structs.replace(stage, send_ms=0.0) for stage in plan.stages)
    return msgspec.structs.replace(plan, stages=stages)
