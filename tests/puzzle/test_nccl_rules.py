"""Under NCCL's rules every schedule runs through, with the switch beside training or after it."""

import pytest

from common.ranks import run_ranks
from puzzle.inputs.experiment import Choice
from puzzle.inputs.layout import Layout
from puzzle.run.settings import Job
from tests.ordered.desk import Stall
from tests.ordered.ranks import run_ordered
from tests.puzzle.rank_tasks import (
    align_jobs,
    align_on_shared_ways,
    align_with_switch_ahead,
    all_ways,
    switch_all,
)
from tests.puzzle.test_run_ranks import ALONE, MODEL, SHORT, job_of, layout, same

pytestmark = pytest.mark.timeout(900)

SCHEDULES = ("sequential", "merged", "fused")


def jobs_of(
    training: Layout, generation: Layout, schedules: tuple[str, ...] = SCHEDULES
) -> list[Job]:
    return [
        job_of(Choice(training=training, generation=generation, schedule=schedule), **SHORT)
        for schedule in schedules
    ]


@pytest.mark.parametrize(
    "schedules", [("merged",), pytest.param(SCHEDULES, marks=pytest.mark.slow)], ids=len
)
def test_a_switch_that_begins_while_the_critic_trains_changes_nothing(schedules: tuple[str, ...]):
    """Messages of the switch and of the pipeline are under way together."""
    jobs = jobs_of(layout(4, 1), layout(2, 2), schedules)
    plain = run_ranks(align_jobs, 4, jobs[:1])[0][0]
    for ahead, began in run_ordered(run_ranks, align_with_switch_ahead, 4, jobs)[0]:
        assert ahead.digest == plain.digest
        assert began == 2  # the first when it is taken, then after each update but the last


MOVES = [
    (layout(2, 1), layout(1, 2)),
    (layout(1, 2), layout(2, 1)),
    (layout(3, 1), layout(3, 1)),
    (layout(4, 1), layout(2, 2)),
    (layout(2, 2), layout(4, 1)),
    (layout(2, 1, 2), layout(1, 1, 4)),
    (layout(1, 2, 2), layout(4, 1)),
    (layout(3, 2), layout(3, 2)),
    (layout(4, 1, 2), layout(2, 2, 2)),
    (layout(4, 2), layout(2, 4)),
    (layout(2, 2, 2), layout(1, 2, 4)),
]


@pytest.mark.slow
@pytest.mark.parametrize("eager", [True, False], ids=["with a device", "without"])
@pytest.mark.parametrize(("training", "generation"), MOVES, ids=str)
def test_every_schedule_and_switch_of_two_to_eight_ranks(
    training: Layout, generation: Layout, eager: bool
):
    alone = run_ranks(align_jobs, 1, [job_of(ALONE, **SHORT)])[0][0]
    jobs, world = jobs_of(training, generation), training.world
    for outcome in run_ordered(run_ranks, align_jobs, world, jobs, eager=eager)[0]:
        same(outcome, alone, 2e-5)
    for outcome, _ in run_ordered(run_ranks, align_with_switch_ahead, world, jobs, eager=eager)[0]:
        same(outcome, alone, 2e-5)


@pytest.mark.slow
def test_switches_alone_and_the_other_engines_gathers():
    pairs = [
        (before, after, mapping)
        for before, after in MOVES
        if before.world == 4
        for mapping in ("original", "overlap")
    ]
    for results in run_ordered(run_ranks, switch_all, 4, MODEL, pairs):
        assert all(right and exact for right, exact, _ in results)
    jobs = [jobs_of(layout(2, 1, 2), layout(1, 1, 4))[0], jobs_of(layout(4, 1), layout(2, 2))[0]]
    for ways in run_ordered(run_ranks, all_ways, 4, jobs)[0]:
        assert all(way.exact for way in ways)


@pytest.mark.parametrize(
    "schedule", ["merged", *(pytest.param(s, marks=pytest.mark.slow) for s in SCHEDULES[::2])]
)
def test_with_groups_of_all_ranks_a_run_with_a_device_stalls(schedule: str):
    jobs = jobs_of(layout(4, 1), layout(2, 2), (schedule,))
    with pytest.raises(Stall, match=r"rank \d: send [FB]\d to \d, behind recv [FB]\d from \d"):
        run_ordered(run_ranks, align_on_shared_ways, 4, jobs, connects=False)


@pytest.mark.slow
def test_with_groups_of_all_ranks_a_run_without_a_device_does_not():
    jobs = jobs_of(layout(4, 1), layout(2, 2))
    run_ordered(run_ranks, align_on_shared_ways, 4, jobs, eager=False, connects=False)
