"""The default answer beside the wider space, on clusters of which it leaves group sizes out."""

import random

import pytest

from metis.inputs.cluster import NodeGroup
from metis.plan.beside import Beside, cheaper
from metis.plan.lines import EVERY_SIZE
from metis.plan.methods import make_plan
from metis.plan.problem import Problem
from tests.metis.pools import pool, problem_of


def large_pool(seed: int):
    """Draw 36 to 96 devices in nodes of 4 or 12, so that good groups are no powers of two."""
    draw = random.Random(seed)
    nodes = tuple(
        NodeGroup(
            device=device,
            count=draw.choice([3, 5, 7]),
            devices=draw.choice([4, 12]),
            inter_bandwidth=draw.choice([0.1, 1.25, 10.0]),
        )
        for device in draw.sample(["A100", "V100", "T4"], k=2)
    )
    # Long enough for the wider space on a machine with more to do: either is cut by the clock.
    return pool(*nodes, layers=draw.choice([12, 26]), batch=60, time_limit_s=40.0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_default_is_no_worse_than_wider_beyond_32_devices(seed: int) -> None:
    asked = large_pool(seed)
    problem = problem_of(asked)
    ours, theirs = (make_plan(asked, problem, method).plan for method in ("optimal", "wider"))
    if theirs is not None:
        assert ours is not None
        assert ours.cost_ms <= theirs.cost_ms * (1 + 1e-9)
        assert ours.lower_bound_ms <= ours.cost_ms


def small() -> Problem:
    return problem_of(pool(NodeGroup(device="A100", devices=4), layers=10, batch=8))


def test_only_a_cheaper_plan_of_the_wider_space_is_taken() -> None:
    other, interrupted = Beside(small(), 60.0).result()
    assert not interrupted
    assert other is not None
    assert other.plan is not None
    assert cheaper(other, other.plan.cost_ms * 1.01) is other.plan
    assert cheaper(other, other.plan.cost_ms) is None
    assert cheaper(None, 1.0) is None


def test_it_ends_soon_once_it_is_stopped() -> None:
    problem = problem_of(large_pool(1))
    wide = Beside(problem, 600.0)
    wide.stop()
    other, interrupted = wide.result()
    assert not interrupted
    assert other is not None
    assert not other.finished
    assert other.seconds < 60


def test_where_the_strict_search_had_no_time_the_wider_space_still_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The search does nothing here, so nothing else can have found the plan."""
    monkeypatch.setattr("metis.plan.nearby.Staged.run", lambda _: None)
    asked = pool(NodeGroup(device="A100", count=5, devices=12), layers=12, batch=60)
    assert problem_of(asked).devices > EVERY_SIZE
    found = make_plan(asked, problem_of(asked), "optimal")
    alone = make_plan(asked, problem_of(asked), "wider")
    assert found.plan is not None
    assert alone.plan is not None
    assert found.plan.cost_ms == pytest.approx(alone.plan.cost_ms, rel=1e-12)
    assert found.plan.method == "optimal"
    assert "--method wider, which has found this one" in found.summary
