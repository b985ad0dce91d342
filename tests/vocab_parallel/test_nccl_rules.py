"""Under NCCL's rules every method runs through: by proof for any size, and on real ranks."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.ranks import run_ranks
from tests.ordered.desk import Stall
from tests.ordered.ranks import run_ordered
from tests.vocab_parallel.rank_tasks import (
    Outcome,
    posts_of,
    save_and_go_on,
    train_jobs,
    train_jobs_beside,
    train_on_shared_ways,
)
from tests.vocab_parallel.reference import train_plainly
from tests.vocab_parallel.test_run_equality import assert_equal, job
from vocab_parallel.plan.check import find_faults
from vocab_parallel.plan.costs import Costs
from vocab_parallel.plan.forward_only import forward_only
from vocab_parallel.plan.methods import METHODS, make_schedule
from vocab_parallel.plan.posts import actions
from vocab_parallel.plan.queues import find_stall
from vocab_parallel.run.settings import Job

pytestmark = pytest.mark.timeout(400)
Task = Callable[[int, object, list[Job]], list[Outcome]]


def one_way(source: int, target: int) -> bool:
    """All messages to higher ranks on one communicator, all to lower ones on another."""
    return source < target


@given(
    method=st.sampled_from(sorted(METHODS)),
    p=st.integers(1, 32),
    m=st.integers(1, 48),
    f=st.integers(1, 5),
    more=st.integers(0, 5),
)
@settings(max_examples=60)
def test_no_schedule_of_up_to_32_ranks_stalls_with_one_queue_per_communicator(
    method: str, p: int, m: int, f: int, more: int
) -> None:
    schedule = make_schedule(method, p, m, Costs(forward=f, backward=f + more))
    assert find_stall(schedule) == ()
    assert find_stall(forward_only(schedule)) == ()


@given(method=st.sampled_from(sorted(METHODS)), p=st.integers(3, 12), more=st.integers(0, 20))
@settings(max_examples=40)
def test_every_method_stalls_where_all_ranks_share_a_communicator_per_direction(
    method: str, p: int, more: int
) -> None:
    faults = find_faults(make_schedule(method, p, 8 + more), one_way)
    assert faults
    assert all(fault.startswith("stall: rank ") for fault in faults)
    assert any("is behind recv" in fault for fault in faults)


def test_the_ring_of_messages_that_stalls_is_named() -> None:
    faults = find_stall(make_schedule("baseline", 3, 4), one_way)
    assert faults == (
        "stall: rank 0 waits for recv B0 from 1; its recv B1 from 1 is behind recv B0 from 1",
        "stall: rank 1 waits for recv B1 from 2; its send F1 to 2 is behind recv F3 from 0;"
        " its recv B2 from 2 is behind recv B1 from 2",
        "stall: rank 2 waits for recv F1 from 1; its recv F2 from 1 is behind recv F1 from 1",
    )


def test_the_proof_is_about_what_the_ranks_post() -> None:
    jobs = [job(method, 3, 7) for method in METHODS]
    posted = run_ordered(run_ranks, posts_of, 3, jobs)
    for rank, found in enumerate(posted):
        schedules = [
            form for one in jobs for form in (one.plan.schedule, forward_only(one.plan.schedule))
        ]
        for schedule, words in zip(schedules, found, strict=True):
            planned = [
                action.operation.words(rank)
                for action in actions(schedule, rank)
                if not action.waits
            ]
            assert words == planned, (schedule.method, rank)


def check(jobs: list[Job], *, eager: bool = True, task: Task = train_jobs) -> None:
    """Train under NCCL's rules to the losses, norms and weights of one process."""
    theirs = train_plainly(jobs[0].plan, jobs[0].training, seed=3)
    outcomes = run_ordered(run_ranks, task, jobs[0].world, jobs, eager=eager)[0]
    for one, ours in zip(jobs, outcomes, strict=True):
        try:
            assert_equal(ours, theirs)
        except AssertionError as error:
            raise AssertionError(f"{one.plan.method}: {error}") from error


@pytest.mark.parametrize("p", [3, *(pytest.param(p, marks=pytest.mark.slow) for p in (2, 4))])
def test_every_method_trains_like_one_process_under_nccl_s_rules(p: int) -> None:
    check([job(method, p, 8, steps=1) for method in METHODS])


MODES = [(3, tied, eager) for tied in (False, True) for eager in (False, True)]
MODES += [(p, tied, tied) for p in (2, 5) for tied in (False, True)]
MODES += [(p, tied, not tied) for p in (4, 8) for tied in (False, True)]


@pytest.mark.slow
@pytest.mark.parametrize(("p", "tied", "eager"), MODES)
def test_every_method_in_every_mode_under_nccl_s_rules(p: int, tied: bool, eager: bool) -> None:
    jobs = [job(method, p, 2 * p + 1, tied=tied, layers=16, steps=2) for method in METHODS]
    check(jobs, eager=eager)


BESIDE = [(2, 1), (3, 1), (4, 1), (8, 1), (3, 2)]


@pytest.mark.parametrize(
    ("p", "tensor"),
    [pytest.param(*size, marks=() if size == (3, 1) else pytest.mark.slow) for size in BESIDE],
)
def test_the_statistics_on_a_stream_of_their_own_change_nothing(p: int, tensor: int) -> None:
    """What is posted on the stream waits in its queue for what the stream does before."""
    methods = [method for method in METHODS if make_schedule(method, 2, 2).barriers]
    jobs = [job(method, p, 2 * p + 1, tensor=tensor, layers=16, steps=2) for method in methods]
    check(jobs, task=train_jobs_beside)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("p", "tensor", "replicas", "tied"),
    [
        (3, 2, 1, False),
        (3, 2, 1, True),
        (3, 1, 2, True),
        (4, 2, 1, False),
        (2, 2, 2, True),
        (4, 1, 2, False),
    ],
)
def test_teams_and_replicas_under_nccl_s_rules(
    p: int, tensor: int, replicas: int, tied: bool
) -> None:
    check(
        [
            job(method, p, 7, tied=tied, tensor=tensor, steps=2, data_parallel=replicas)
            for method in METHODS
        ]
    )


@pytest.mark.slow
def test_checkpoints_under_nccl_s_rules(tmp_path: Path) -> None:
    jobs = [
        job(method, 3, 7, steps=steps, checkpoint=str(tmp_path / method))
        for method in METHODS
        for steps in (2, 3)
    ]
    losses = run_ordered(run_ranks, save_and_go_on, 3, jobs)[0]
    plain = job("baseline", 3, 7, steps=3)
    theirs = train_plainly(plain.plan, plain.training, seed=3)
    for method, first, rest in zip(METHODS, losses[::2], losses[1::2], strict=True):
        assert [*first, *rest] == pytest.approx(theirs.losses, rel=1e-9), method


SHARED = [
    "baseline",
    "vocab-1",
    *(
        pytest.param(method, marks=pytest.mark.slow)
        for method in (
            "interlaced",
            "naive",
            "v-half-vocab-2",
            "interleaved",
            "zb-h1-vocab-2",
            "zb-v-vocab-1",
        )
    ),
]
"""That every method stalls so is proved above, and that the proof is about what is posted."""


@pytest.mark.parametrize("method", SHARED)
def test_with_one_group_per_direction_for_all_ranks_a_run_stalls(method: str) -> None:
    with pytest.raises(Stall, match=r"rank \d: send [FB]\d to \d, behind recv [FB]\d from \d"):
        run_ordered(run_ranks, train_on_shared_ways, 3, job(method, 3, 8), connects=False)
