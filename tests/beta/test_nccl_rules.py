"""Under NCCL's rules a group's workers run through, whatever is dropped on the way."""

import pytest

from beta.run.reference import TOLERANCE, Reference
from common.ranks import run_ranks
from tests.beta.rank_tasks import SHAPE, Asked, receive_ahead, serve
from tests.ordered.desk import Stall
from tests.ordered.ranks import run_ordered

NEVER = 99
ASKED: Asked = [
    (seed, [(7 * i + k) % 1000 for i in range(5 + k)], dropped)
    for k, (seed, dropped) in enumerate(
        [(0, NEVER), (1, 1), (0, 2), (0, NEVER), (1, NEVER), (1, 1), (0, NEVER), (0, 3)] * 2
    )
]


def expected(pp: int) -> list[list[float]]:
    models = {seed: Reference(SHAPE, seed) for seed in (0, 1)}
    return [models[seed].logits(tokens) for seed, tokens, dropped in ASKED if dropped >= pp]


@pytest.mark.slow
@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize(("op", "pp"), [(1, 2), (1, 4), (2, 1), (2, 2), (2, 3)])
def test_a_groups_workers_run_through_and_answer_as_one_process(op: int, pp: int, eager: bool):
    results = run_ordered(run_ranks, serve, op * pp, op, pp, ASKED, eager=eager)
    last = results[(pp - 1) * op]
    for found, expect in zip(last, expected(pp), strict=True):
        assert found == pytest.approx(expect, abs=TOLERANCE)


def test_two_stages_run_through_with_a_queue_per_communicator():
    results = run_ordered(run_ranks, serve, 2, 1, 2, ASKED[:6])
    assert len(results[1]) == sum(dropped >= 2 for *_, dropped in ASKED[:6])


def test_a_stage_takes_work_before_the_next_has_taken_what_it_sent():
    assert run_ordered(run_ranks, receive_ahead, 3, False) == [0.0, 3.0, 3.0]


def test_with_all_messages_on_one_group_it_would_wait_for_ever():
    with pytest.raises(Stall, match=r"recv .* from 0 is behind|behind send"):
        run_ordered(run_ranks, receive_ahead, 3, True, connects=False)
