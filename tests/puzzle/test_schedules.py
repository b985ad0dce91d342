"""The pass lists: right, as long as the formulas say, and both models updated."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputError
from puzzle.inputs.model import known_models, layer_weights
from puzzle.plan.check import find_faults, peak_live
from puzzle.plan.passes import Pass, Schedule
from puzzle.plan.play import play
from puzzle.plan.schedules import SCHEDULES, inference, make_schedule

stages = st.integers(1, 9)
batches = st.integers(1, 20)


def seconds(rank: int, item: Pass) -> float:
    return {"F": 1.0, "B": 2.0}.get(item.kind, 0.0)


@given(st.sampled_from(sorted(SCHEDULES)), stages, batches)
def test_every_schedule_is_right(name: str, p: int, m: int):
    assert find_faults(make_schedule(name, p, m)) == ()


@given(st.sampled_from(sorted(SCHEDULES)), stages, batches)
def test_both_models_are_updated_once_after_their_last_backward(name: str, p: int, m: int):
    for program in make_schedule(name, p, m).programs:
        for model in ("actor", "critic"):
            update = program.index(Pass("U", model))
            assert program.count(Pass("U", model)) == 1
            assert all(program.index(Pass("B", model, b)) < update for b in range(m))


@given(stages, batches)
def test_equal_costs_take_what_the_formulas_say(p: int, m: int):
    one = play(make_schedule("sequential", p, m), seconds).seconds
    both = play(make_schedule("merged", p, m), seconds).seconds
    assert one == 6 * (m + p - 1)
    assert both == 3 * (2 * m + p - 1)


@pytest.mark.parametrize(
    ("p", "m", "gain"),
    [(8, 16, 1.115), (4, 16, 1.056), (8, 8, 1.187), (8, 32, 1.065), (4, 32, 1.030)],
)
def test_unequal_costs_take_what_was_simulated_independently(p: int, m: int, gain: float):
    """Specification section 3.2, 13B/7B of figure 10; a pass costs as its matrices' elements."""
    models = known_models()
    weights = {
        name: models[size].layers * layer_weights(models[size])
        for name, size in (("actor", "13b"), ("critic", "7b"))
    }

    def cost(rank: int, item: Pass) -> float:
        return seconds(rank, item) * weights[item.model]

    one, both = (play(make_schedule(n, p, m), cost).seconds for n in ("sequential", "merged"))
    assert one / both == pytest.approx(gain, abs=5e-4)


@pytest.mark.parametrize(
    ("p", "m", "merged", "fused"),
    [(2, 8, 51, 48), (4, 8, 57, 52), (8, 8, 69, 60), (8, 16, 117, 110), (16, 32, 237, 226)],
)
def test_fused_is_shorter_than_merged(p: int, m: int, merged: float, fused: float):
    assert play(make_schedule("merged", p, m), seconds).seconds == merged
    found = make_schedule("fused", p, m)
    assert play(found, seconds).seconds <= fused
    assert play(found, seconds).seconds >= 6 * m  # what every rank computes


def test_inference_fills_the_pipeline_once():
    merged = inference(4, 6, ("reference", "reward", "critic"))
    assert play(merged, seconds).seconds == 3 * 6 + 3
    assert play(inference(4, 6, ("reference",)), seconds).seconds == 6 + 3


def test_live_micro_batches_are_those_of_1f1b():
    schedule = make_schedule("merged", 4, 8)
    assert peak_live(schedule, "actor") == (4, 3, 2, 1)
    assert peak_live(schedule, "critic") == (4, 3, 2, 1)


def with_program(schedule: Schedule, rank: int, program: list[Pass]) -> Schedule:
    programs = list(schedule.programs)
    programs[rank] = tuple(program)
    return msgspec.structs.replace(schedule, programs=tuple(programs))


def test_faults_are_found():
    right = make_schedule("merged", 2, 3)
    never = [item for item in right.programs[1] if item != Pass("U", "critic")]
    assert find_faults(with_program(right, 1, never)) == ("rank 1 runs Uc 0 times, expected 1",)
    turned = list(reversed(right.programs[0]))
    assert any("deadlock" in fault for fault in find_faults(with_program(right, 0, turned)))
    right = make_schedule("sequential", 2, 3)
    ahead = sorted(right.programs[0], key=lambda item: (item.model, "FBRNU".index(item.kind)))
    assert any("sequential needs" in fault for fault in find_faults(with_program(right, 0, ahead)))


def test_sums_over_all_stages_in_unlike_orders_are_found():
    """Neither deadlock nor a pass too many: two ranks would add up norms of different models."""
    right = make_schedule("fused", 2, 3)
    program = list(right.programs[1])
    a, b = (program.index(Pass("N", model)) for model in ("actor", "critic"))
    program[a], program[b] = program[b], program[a]
    (fault,) = find_faults(with_program(right, 1, program))
    assert fault == ("rank 1 sums the norms critic before actor, rank 0 actor before critic")


@given(st.sampled_from(sorted(SCHEDULES)), st.integers(2, 5), st.integers(1, 6), st.data())
def test_every_change_that_breaks_an_order_is_found(name: str, p: int, m: int, data: st.DataObject):
    """A pass is moved to before one that it needs, left out, doubled, or another's."""
    right = make_schedule(name, p, m)
    rank = data.draw(st.integers(0, p - 1))
    program = list(right.programs[rank])
    at = data.draw(st.integers(0, len(program) - 1))
    item = program[at]
    own = [need for other, need in right.needs(rank, item) if other == rank]
    changed = program[:at] + program[at + 1 :]
    kind = data.draw(st.sampled_from(["left out", "doubled", "renamed", "too early"]))
    if kind == "doubled":
        changed = [*program, item]
    elif kind == "renamed":
        changed = [*changed[:at], item._replace(batch=m), *changed[at:]]
    elif kind == "too early" and own:
        before = changed.index(own[-1])
        changed.insert(before, item)
    assert find_faults(with_program(right, rank, changed))


def test_an_unknown_schedule_is_refused():
    with pytest.raises(InputError, match="expected one of sequential, merged, fused"):
        make_schedule("bulk", 2, 2)
