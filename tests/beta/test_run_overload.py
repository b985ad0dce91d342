"""Back-pressure by made-up time: goodput under overload, what is dropped, what is learnt.

Table of an admission in front of a FIFO worker that never looks at a deadline again, profile 20 ms,
60 requests/s for 15 s, target 2 s: 148 in time at real 30 ms, 45 at 60 ms, 10 at 200 ms.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beta.inputs.shapes import SHAPES
from beta.run.controller import Controller
from beta.run.line import AHEAD, Line
from beta.run.pipeline import Work
from beta.run.specs import Deployment, GroupSpec, ModelSpec, Reply
from tests.beta.virtual_time import Answer, Device, Group, played, run

PROFILE_S, TARGET_S, RATE, LASTS_S = 0.02, 2.0, 60.0, 15.0
GIVEN = {0: {1: (PROFILE_S,)}}
ASKED = [(0, i / RATE, TARGET_S) for i in range(int(RATE * LASTS_S))]


def capacity(seconds: float) -> int:
    """Return how many answers fit between the first request and the last one's deadline."""
    return int((LASTS_S + TARGET_S) / seconds)


@pytest.mark.parametrize("slower", [1.5, 3.0, 10.0])
def test_overload_by_a_profile_too_fast_keeps_nine_tenths_of_capacity(slower: float):
    real = slower * PROFILE_S
    answers = played(Line(GIVEN, margin_s=0.004), {0: {1: (real,)}}, ASKED)
    in_time = sum(answer.in_time for answer in answers)
    assert in_time >= 0.9 * capacity(real)
    assert in_time == sum(answer.served for answer in answers)  # nothing late was computed
    refused = sum(not answer.admitted for answer in answers)
    assert refused >= 0.9 * (len(ASKED) - capacity(real))  # most are told at once


@pytest.mark.parametrize(("low", "high"), [(0.5, 1.5), (0.25, 4.0)])
def test_overload_with_unsteady_stages_keeps_eight_tenths_of_capacity(low: float, high: float):
    random = np.random.default_rng(0)
    device = Device(lambda *_: 0.06 * float(random.choice([low, 1.0, 1.0, high])))
    group = Group(Line(GIVEN, margin_s=0.004), [device])
    answers = run(group.put(ASKED))
    mean = 0.06 * (low + 2 + high) / 4
    assert sum(answer.in_time for answer in answers) >= 0.8 * capacity(mean)


def test_the_first_request_after_an_overload_is_answered_in_time():
    after = ASKED[-1][1] + 0.5
    asked = [*ASKED, (0, after, TARGET_S)]
    answers = played(Line(GIVEN, margin_s=0.004), {0: {1: (0.2,)}}, asked)
    assert answers[-1].in_time
    assert max(answer.at for answer in answers) <= after + TARGET_S  # no dead work is left


def test_what_was_slow_for_a_while_is_believed_to_be_fast_again():
    # For 5 s it takes longer than any target allows, then it is as profiled.
    device = Device(lambda _, now: 3.0 if now < 5 else PROFILE_S)
    group = Group(Line(GIVEN, margin_s=0.004), [device])
    asked = [(0, float(second), TARGET_S) for second in range(60)]
    answers = run(group.put(asked))
    assert not any(answer.in_time for answer in answers[:5])
    assert all(answer.in_time for answer in answers[25:])
    assert group.line.speeds.pace(0).slow.sum() == pytest.approx(PROFILE_S)


def test_a_model_that_never_fits_its_target_takes_a_fifth_of_the_time_at_most():
    given = {0: {1: (0.02,)}, 1: {1: (0.02,)}}
    device = Device(lambda work, _: (0.5, 0.02)[work.model])
    group = Group(Line(given, margin_s=0.0), [device])
    asked = sorted(
        [(0, i / 10, 0.1) for i in range(1000)] + [(1, i / 4, 2.0) for i in range(400)],
        key=lambda one: one[1],
    )
    answers = run(group.put(asked))
    others = [answer for (model, *_), answer in zip(asked, answers, strict=True) if model == 1]
    assert all(answer.in_time for answer in others)
    assert device.busy_s - 0.02 * len(others) <= 0.2 * 100


@given(
    st.lists(
        st.tuples(st.floats(0, 0.1), st.sampled_from([0, 1]), st.floats(0.05, 1.0)),
        min_size=1,
        max_size=60,
    ),
    st.floats(0.3, 8),
)
def test_every_stage_sees_the_same_order_and_takes_what_the_one_before_sent(requests, slower):
    given = {0: {1: (0.01, 0.03)}, 1: {1: (0.02, 0.01)}}
    logs: list[list[Work]] = [[], []]

    def device(stage: int) -> Device:
        def seconds(work: Work, _: float) -> float:
            return slower * given[work.model][1][stage]

        return Device(seconds)

    group = Group(Line(given, margin_s=0.004), [device(0), device(1)])
    plain = group._call

    async def logged(stage: int, work: Work) -> list[tuple[float, ...]]:
        logs[stage].append(work)
        assert len(group.line.stages[stage].inside) <= AHEAD
        return await plain(stage, work)

    group.pipeline.call = logged
    times = np.cumsum([gap for gap, *_ in requests])
    asked = [(m, float(at), slo) for (_, m, slo), at in zip(requests, times, strict=True)]

    async def play() -> list[Answer]:
        answers = await group.put(asked)
        # Who is dropped is told at once; what passes its stages on is still under way.
        await asyncio.sleep(slower)
        return answers

    answers = run(play())
    assert not any(work.skip for work in logs[0])
    assert [work[:3] for work in logs[0]] == [work[:3] for work in logs[1]]
    served = sum(answer.served for answer in answers)
    assert served == sum(not work.skip for work in logs[1])
    assert group.line.outstanding == 0


def deployment(groups: int, most: int = 1000) -> Deployment:
    model = ModelSpec(name="m", shape=SHAPES["bert-micro"], seed=0, slo_s=1.0)
    return Deployment(
        models=(model,),
        groups=tuple(
            GroupSpec(number=g, op=1, pp=1, models=(0,), stage_s={0: {1: (0.01,)}})
            for g in range(groups)
        ),
        backend="gloo", wait=0.0, margin_s=0.004, correct=True, most_outstanding=most,
        timeout_s=60.0, cpus_per_device=1.0, host="", port=0, threads=1, per_node=8,
    )  # fmt: skip


class Remote:
    """A method of an actor: what is called by `.remote`."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.remote = method


class Manager:
    """A group's manager without Ray: answers after so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.asked = seconds, 0
        self.handle = Remote(self._handle)

    async def _handle(self, *_: Any) -> Reply:
        self.asked += 1
        await asyncio.sleep(self.seconds)
        return Reply(admitted=True, logits=(1.0,))


def controller_over(seconds: list[float]) -> Controller:
    controller = Controller(deployment(len(seconds)))
    controller.opened = True
    for group, took in zip(controller.groups, seconds, strict=True):
        group.manager, group.ready = Manager(took), Any
    return controller


def test_a_request_is_outstanding_until_its_group_is_done_with_it():
    async def main() -> None:
        controller = controller_over([5.0, 0.1])
        first = await controller.submit(0, [1], 1.0)
        assert (first.status, first.group) == (504, 0)
        assert controller.outstanding.tolist() == [1, 0]  # answered, but the group still works
        assert controller.books.totals().in_flight == 0
        for _ in range(4):
            answer = await controller.submit(0, [1], 1.0)
            assert (answer.status, answer.group) == (200, 1)  # not the swamped one, though first
        await asyncio.sleep(5)
        assert controller.outstanding.tolist() == [0, 0]

    run(main())


def test_no_more_wait_for_a_group_to_be_built_than_it_may_hold():
    async def main() -> None:
        controller = controller_over([0.1])
        controller.deployment = deployment(1, most=3)
        (group,) = controller.groups
        ready, group.ready, group.build_s = group.ready, None, 0.1
        asked = [asyncio.create_task(controller.submit(0, [1], 1.0)) for _ in range(5)]
        await asyncio.sleep(0.2)
        crowded = [task.result() for task in asked if task.done()]
        assert [(answer.status, answer.outcome) for answer in crowded] == [(503, "rejected")] * 2
        group.ready = ready
        controller.changed.set()
        answers = await asyncio.gather(*asked)
        assert sorted(answer.status for answer in answers) == [200, 200, 200, 503, 503]
        assert controller.books.totals().balanced

    run(main())
