"""The ordered group keeps NCCL's rules, and a stall is found with the heads of the queues."""

from collections.abc import Callable
from typing import Any

import pytest

from common.errors import RankError
from common.ranks import run_ranks
from tests.ordered import tasks
from tests.ordered.desk import Stall
from tests.ordered.ranks import run_ordered
from tests.ordered.stall import Published, Waiting, describe, is_stalled

pytestmark = pytest.mark.timeout(400)


def run(task: Callable[..., Any], ranks: int = 2, **rules: bool) -> list[Any]:
    return run_ordered(run_ranks, task, ranks, **rules)


def test_collectives_give_what_gloo_gives() -> None:
    assert run(tasks.collectives, 3) == [[3.0, 1.0, 0.0, 1.0, 2.0]] * 3


@pytest.mark.parametrize("eager", [True, False])
def test_two_ranks_that_receive_before_they_send_on_one_group_stall(eager: bool) -> None:
    with pytest.raises(Stall) as error:
        run(tasks.both_receive_first, eager=eager)
    text = str(error.value)
    assert "rank 0: send F0 to 1, behind recv F0 from 1" in text
    assert "rank 1: send F1 to 0, behind recv F1 from 0" in text
    assert "Heads of the queues: rank 0: recv F0 from 1 (before 1 more); rank 1: recv" in text


@pytest.mark.parametrize("eager", [True, False])
def test_with_a_group_for_each_direction_they_do_not(eager: bool) -> None:
    assert run(tasks.both_receive_first_in_two_groups, eager=eager) == [1.0, 0.0]


@pytest.mark.parametrize("eager", [True, False])
def test_a_batch_goes_on_as_one_whatever_its_order(eager: bool) -> None:
    assert run(tasks.one_batch, eager=eager) == [1.0, 0.0]


def test_pairs_of_ranks_have_queues_of_their_own_only_without_a_device() -> None:
    """Each rank of a ring receives from the one before it, then sends to the one after it."""
    assert run(tasks.ring_of_receives, 3, eager=False) == [2.0, 0.0, 1.0]
    with pytest.raises(Stall, match="behind recv"):
        run(tasks.ring_of_receives, 3, eager=True)


def test_the_first_use_of_two_groups_in_unlike_orders_holds_the_hosts() -> None:
    with pytest.raises(Stall, match=r"connects .*, which holds its host"):
        run(tasks.first_use_in_two_orders)
    run(tasks.first_use_in_two_orders, connects=False)


def test_a_send_is_over_only_when_its_receive_is_reached() -> None:
    assert run(tasks.send_before_its_receive, connects=False)[0] == [False, True]


def test_a_rank_that_works_for_long_is_no_stall() -> None:
    assert run(tasks.compute_long) == [2.0, 2.0]


def test_a_rank_that_fails_is_the_cause_and_no_stall() -> None:
    with pytest.raises(RankError, match="rank 1 failed: ZeroDivisionError: of no use"):
        run(tasks.fail)


def waiting(route: str, other: int, number: int = 0) -> Waiting:
    return Waiting(f"{route} {number}", route, number, (other,))


def state(*entries: Waiting, finished: int = 0) -> Published:
    queues = {"group": [[entry] for entry in entries]}
    return Published(queues, {("group", "0->1"): finished}, frozenset(), (), ("group", 0))


def test_a_message_at_the_head_of_both_queues_moves() -> None:
    assert not is_stalled([state(waiting("0->1", 1)), state(waiting("0->1", 0))])


def test_a_message_that_is_over_on_one_side_will_be_over_on_the_other() -> None:
    late = state(waiting("0->1", 1))
    assert not is_stalled([late, state(waiting("1->0", 0), finished=1)])
    assert is_stalled([late, state(waiting("1->0", 0), finished=0)])


def test_messages_that_stand_behind_each_other_do_not_move() -> None:
    first = state(waiting("1->0", 1), waiting("0->1", 1))
    second = state(waiting("0->1", 0), waiting("1->0", 0))
    assert is_stalled([first, second])
    assert describe([first, second]) == (
        "stalled: rank 1: 1->0 0, behind 0->1 0; rank 0: 0->1 0, behind 1->0 0."
        " Heads of the queues: rank 0: 1->0 0 (before 1 more); rank 1: 0->1 0 (before 1 more)"
    )


def test_another_number_of_the_same_way_is_another_message() -> None:
    assert is_stalled([state(waiting("0->1", 1, 3)), state(waiting("0->1", 0, 4))])
