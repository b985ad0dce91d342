"""Interleaved 1F1B, ZB-H1, ZB-V: their orders and bubbles, and vocabulary passes put into them."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.pipelining.schedules import ScheduleZBVZeroBubble

from common.artifact import with_field
from common.errors import InputError
from vocab_parallel.inputs.examples import examples
from vocab_parallel.inputs.experiment import Experiment, Pipeline
from vocab_parallel.inputs.model import Model
from vocab_parallel.plan.check import find_faults, most_live, peak_live
from vocab_parallel.plan.choose import compare
from vocab_parallel.plan.methods import make_schedule
from vocab_parallel.plan.passes import Kind, Schedule
from vocab_parallel.plan.plans import make_plan
from vocab_parallel.plan.play import play
from vocab_parallel.plan.posts import actions
from vocab_parallel.plan.show import told
from vocab_parallel.simulate.activations import activations_over_time
from vocab_parallel.simulate.memory import GIB
from vocab_parallel.simulate.predict import predict

INTERLEAVED = ("interleaved", "interleaved-vocab-1", "interleaved-vocab-2")
SPLIT = ("zb-h1", "zb-h1-vocab-1", "zb-h1-vocab-2")
V_SHAPED = ("zb-v", "zb-v-vocab-1", "zb-v-vocab-2")


def seconds(schedule: Schedule, *, forward: float, backward: float, output: float = 0.0) -> float:
    """Return the time of an iteration; a stage's passes are shared out over its rank's chunks."""
    times: dict[tuple[Kind, int], float] = {("S", 0): output, ("T", 0): output}
    times |= {("IF", 0): 0.0, ("IB", 0): 0.0}
    split = 2 if schedule.split_backward else 1
    for chunk in range(schedule.chunks):
        times["F", chunk] = forward / schedule.chunks
        times["B", chunk] = backward / split / schedule.chunks
        times["W", chunk] = backward / 2 / schedule.chunks
    return play(schedule, [times] * schedule.ranks, {}).seconds


def test_interleaved_is_the_order_of_megatron() -> None:
    """Warm-up of 2 (p - r - 1) + (v - 1) p passes, groups of p micro-batches chunk by chunk."""
    schedule = make_schedule("interleaved", 2, 4)
    assert [" ".join(map(schedule.label, program)) for program in schedule.programs] == [
        "F0.0 F0.1 F1.0 F1.1 F0.2 B1.0 F0.3 B1.1 F1.2 B0.0 F1.3 B0.1 B1.2 B1.3 B0.2 B0.3",
        "F0.0 F0.1 F1.0 B1.0 F1.1 B1.1 F0.2 B0.0 F0.3 B0.1 F1.2 B1.2 F1.3 B1.3 B0.2 B0.3",
    ]


def test_zb_h1_is_the_published_order() -> None:
    """Qi et al. 2024, figure 3: rank r has r more B than W before its first W."""
    schedule = make_schedule("zb-h1", 3, 4)
    assert [" ".join(map(schedule.label, program)) for program in schedule.programs] == [
        "F0 F1 F2 B0 W0 F3 B1 W1 B2 W2 B3 W3",
        "F0 F1 B0 F2 B1 W0 F3 B2 W1 B3 W2 W3",
        "F0 B0 F1 B1 F2 B2 W0 F3 B3 W1 W2 W3",
    ]


@given(p=st.integers(1, 12), m=st.integers(1, 40))
def test_zb_v_is_the_order_of_torch(p: int, m: int) -> None:
    names = {"FORWARD": "F", "BACKWARD_INPUT": "B", "BACKWARD_WEIGHT": "W"}
    asked = SimpleNamespace(pp_group_size=p, num_stages=2 * p, _n_microbatches=m)
    schedule = make_schedule("zb-v", p, m)
    for rank, program in enumerate(schedule.programs):
        order = ScheduleZBVZeroBubble._calculate_single_rank_operations(asked, rank)  # type: ignore[arg-type]
        theirs = [
            (names[one.computation_type.name], one.microbatch_index, one.stage_index)
            for one in order
            if one is not None
        ]
        ours = [(one.kind, one.batch, schedule.stage(rank, one.chunk)) for one in program]
        assert ours == theirs


@pytest.mark.parametrize("v", [2, 3, 4])
@pytest.mark.parametrize(("p", "m"), [(2, 4), (4, 8), (4, 24), (8, 16)])
def test_interleaved_waits_v_times_less_than_1f1b(p: int, m: int, v: int) -> None:
    found = seconds(make_schedule("interleaved", p, m, virtual=v), forward=1.0, backward=2.0)
    assert found == pytest.approx(3 * m + 3 * (p - 1) / v)


@pytest.mark.parametrize(("p", "m"), [(2, 4), (4, 8), (4, 24), (8, 16)])
def test_zb_h1_waits_a_third_of_1f1b(p: int, m: int) -> None:
    found = seconds(make_schedule("zb-h1", p, m), forward=1.0, backward=2.0)
    assert found == pytest.approx(3 * m + (p - 1))


@pytest.mark.parametrize("sharded", ["", "-vocab-1", "-vocab-2"])
@pytest.mark.parametrize(("p", "m"), [(2, 5), (4, 9), (4, 24), (8, 17), (8, 128)])
def test_zb_v_waits_half_of_zb_h1(p: int, m: int, sharded: str) -> None:
    """Only until a micro-batch has come down to the last rank: nothing is left of it in large m."""
    found = seconds(make_schedule(f"zb-v{sharded}", p, m), forward=1.0, backward=2.0)
    assert found == pytest.approx(3 * m + (p - 1) / 2)


@given(
    method=st.sampled_from(INTERLEAVED + SPLIT + V_SHAPED),
    p=st.integers(2, 8),
    groups=st.integers(2, 6),
    output=st.floats(0.0, 0.4),
)
@settings(max_examples=25, deadline=None)
def test_barriers_cost_no_more_than_their_own_passes(
    method: str, p: int, groups: int, output: float
) -> None:
    """S and T of all micro-batches, and at the two ends what a stage's own passes would take."""
    m = groups * p
    plain = make_schedule(method.split("-vocab")[0], p, m)
    found = seconds(make_schedule(method, p, m), forward=1.0, backward=2.0, output=output)
    sharded = "vocab" in method
    least = seconds(plain, forward=1.0, backward=2.0) + sharded * 2 * m * output
    assert least - 1e-9 <= found + sharded * 3.0
    assert found <= least + sharded * (3.0 + 2 * output)


@given(
    p=st.integers(1, 6),
    m=st.integers(1, 20),
    v=st.integers(1, 4),
    method=st.sampled_from(INTERLEAVED),
)
@settings(max_examples=40, deadline=None)
def test_any_number_of_chunks_is_right(p: int, m: int, v: int, method: str) -> None:
    schedule = make_schedule(method, p, m, virtual=v)
    assert find_faults(schedule) == ()
    assert all(schedule.stage(*schedule.place(s)) == s for s in range(schedule.stages))
    if m % p == 0 and m * v >= most_live(schedule, 0):
        assert peak_live(schedule) == tuple(most_live(schedule, rank) for rank in range(p))


@given(p=st.integers(1, 8), m=st.integers(1, 30), method=st.sampled_from(SPLIT + V_SHAPED))
@settings(max_examples=40, deadline=None)
def test_until_their_w_no_more_micro_batches_are_kept_than_of_1f1b(
    p: int, m: int, method: str
) -> None:
    """The p of its first rank, and one for every barrier."""
    schedule = make_schedule(method, p, m)
    for program in schedule.programs:
        kept = most = 0
        for item in program:
            kept += (item.kind == "F") - (item.kind == "W")
            most = max(most, kept)
        assert most <= schedule.chunks * (p + schedule.barriers)


@given(p=st.integers(1, 8), m=st.integers(1, 30), each=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_no_rank_of_zb_v_keeps_more_bytes_than_the_first_of_1f1b(p: int, m: int, each: int) -> None:
    model = Model(layers=2 * p * each, hidden=64, heads=2, sequence=8, vocabulary=100)
    experiment = Experiment(name="v", model=model, pipeline=Pipeline(ranks=p, batches=m))
    plain, ours = (make_plan(experiment, method) for method in ("baseline", "zb-v"))
    most = max(activations_over_time(plain, 0))
    assert max(max(activations_over_time(ours, rank)) for rank in range(p)) <= most * (1 + 1e-12)


def test_a_micro_batch_that_passes_a_way_twice_is_two_messages() -> None:
    schedule = make_schedule("interleaved", 4, 4, virtual=3)
    sent = [a.operation for rank in range(4) for a in actions(schedule, rank) if not a.waits]
    messages = [one for one in sent if one.what == "message"]
    assert len({*messages}) == 2 * 4 * 11  # both directions, micro-batches, ways between 12 stages
    assert any(one.ranks == (3, 0) for one in messages)


def test_as_many_virtual_stages_as_are_asked_for_are_planned() -> None:
    model = Model(layers=12, hidden=64, heads=2, sequence=8, vocabulary=100)
    experiment = Experiment(
        name="virtual", model=model, pipeline=Pipeline(ranks=2, batches=4, virtual_stages=3)
    )
    assert make_plan(experiment, "interleaved-vocab-1").layers == (2,) * 6
    assert make_plan(experiment, "v-half").layers == (3,) * 4
    with pytest.raises(InputError, match=r"virtual_stages is -1, expected 0 \(auto\) or more"):
        Pipeline(virtual_stages=-1)


@pytest.mark.parametrize("layers", [9, 12, 15])
def test_of_fewer_layers_than_chunks_some_chunks_have_none(layers: int) -> None:
    """So that a rank with two layers is fed as early as where all have two."""
    experiment = with_field(examples()["multilingual-8"], "model.layers", layers)
    plan = make_plan(experiment, "zb-v-vocab-1")
    assert plan.layers == (0,) * (16 - layers) + (1,) * layers
    one_chunk = make_plan(experiment, "zb-h1-vocab-1")
    assert predict(plan).iteration_s < predict(one_chunk).iteration_s
    assert all(found.plan for found in compare(experiment))


def test_auto_takes_the_fastest_number_of_virtual_stages() -> None:
    base = with_field(examples()["multilingual-8"], "model.layers", 48)
    base = with_field(base, "pipeline.batches", 16)
    for found in compare(base):
        if not found.method.startswith("interleaved"):
            continue
        assert found.prediction is not None
        named = [
            predict(make_plan(with_field(base, "pipeline.virtual_stages", v), found.method))
            for v in (2, 3, 4, 5, 6)
        ]
        fitting = [one.iteration_s for one in named if max(one.needed) <= 80 * GIB]
        assert found.prediction.iteration_s == min(fitting)
    given = with_field(base, "pipeline.layers", (2,) * 24)
    plans = [found.plan for found in compare(given) if found.plan is not None]
    assert {plan.schedule.chunks for plan in plans} == {3}
    assert {told(plan) for plan in plans} >= {"interleaved of 3 chunks a rank"}
