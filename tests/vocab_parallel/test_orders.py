"""Pass orders: those of the artifact, and everything that must hold for any size."""

import csv
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from tests.vocab_parallel import spec_orders
from vocab_parallel.plan.check import find_faults, most_live, peak_live
from vocab_parallel.plan.collectives import VOCABULARY, broadcasts
from vocab_parallel.plan.costs import Costs
from vocab_parallel.plan.forward_only import forward_only
from vocab_parallel.plan.interlaced import interlaced
from vocab_parallel.plan.layers import final_stage_layers, redistributed_layers, shared_layers
from vocab_parallel.plan.methods import METHODS, make_schedule
from vocab_parallel.plan.passes import Pass, Schedule
from vocab_parallel.plan.play import play
from vocab_parallel.plan.sharded import sharded
from vocab_parallel.plan.states import rank_states

GOLDEN = Path(__file__).parents[1] / "golden/vocab_parallel"


def rows(name: str) -> Iterator[dict[str, str]]:
    with (GOLDEN / name).open() as file:
        yield from csv.DictReader(file)


def text(schedule: Schedule, rank: int) -> str:
    return " ".join(schedule.label(item) for item in schedule.programs[rank])


GOLDEN_ORDERS = [
    (row["method"], int(row["pp"]), int(row["num_microbatches"]), int(row["rank"]), orders)
    for name in ("pass_orders_1f1b.csv", "pass_orders_vhalf.csv")
    for row in rows(name)
    for orders in [list(row.values())[-1]]
]


@pytest.mark.parametrize(("method", "p", "m", "rank", "order"), GOLDEN_ORDERS)
def test_the_order_is_that_of_the_artifact(
    method: str, p: int, m: int, rank: int, order: str
) -> None:
    schedule = make_schedule(method.replace(" ", "-"), p, m)
    assert text(schedule, rank) == order


def test_peak_live_chunks_of_v_half_are_those_of_the_artifact() -> None:
    for row in rows("pass_orders_vhalf.csv"):
        method, p, m = row["method"].replace(" ", "-"), int(row["pp"]), row["num_microbatches"]
        live = peak_live(make_schedule(method, p, int(m)))[int(row["rank"])]
        assert live == int(row["peak_live_chunk_activations"])


def test_rank_states_are_those_of_the_artifact() -> None:
    found = {p: rank_states(p, Costs()) for p in range(2, 33)}
    for row in rows("vocab_1f1b_rank_states.csv"):
        state = found[int(row["pp"])][int(row["rank"])]
        assert state.after_backward == (row["bsf"] == "1")
        assert state.offset == float(row["offset"])
        assert state.warm_up_slots == int(row["warmup_st_slots"])


@pytest.mark.parametrize("barriers", [1, 2])
@pytest.mark.parametrize("p", [2, 3, 4, 5, 6, 7, 8, 12, 16])
def test_vocab_orders_are_the_spelled_out_ones(p: int, barriers: int) -> None:
    for m in (p + 3, p + 4, 2 * p + 5, 64):
        schedule = sharded(p, m, barriers)
        assert [text(schedule, r) for r in range(p)] == spec_orders.vocab(p, m, barriers=barriers)


@given(
    p=st.integers(2, 12),
    f=st.integers(1, 9),
    more=st.integers(0, 9),
    barriers=st.sampled_from([1, 2]),
)
@settings(max_examples=60, deadline=None)
def test_vocab_orders_are_the_spelled_out_ones_for_other_times(
    p: int, f: int, more: int, barriers: int
) -> None:
    b, m = f + more, 2 * p + 3
    schedule = sharded(p, m, barriers, Costs(forward=f, backward=b))
    expected = spec_orders.vocab(p, m, barriers=barriers, f=f, b=b)
    assert [text(schedule, r) for r in range(p)] == expected


@pytest.mark.parametrize("p", [2, 4, 6, 8, 12, 16])
def test_interlaced_orders_are_the_spelled_out_ones(p: int) -> None:
    for m in (3 * p // 2 + 1, 2 * p + 3, 64):
        schedule = interlaced(p, m)
        assert [text(schedule, r) for r in range(p)] == spec_orders.interlaced(p, m)


@given(method=st.sampled_from(sorted(METHODS)), p=st.integers(1, 12), m=st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_every_schedule_is_complete_and_free_of_deadlock(method: str, p: int, m: int) -> None:
    assert find_faults(make_schedule(method, p, m)) == ()


@given(
    method=st.sampled_from([name for name in sorted(METHODS) if "vocab" in name] + ["naive"]),
    p=st.integers(1, 9),
    m=st.integers(1, 24),
    f=st.floats(0.1, 5),
    more=st.floats(0, 5),
)
@settings(max_examples=150, deadline=None)
def test_schedules_for_other_times_are_right_too(
    method: str, p: int, m: int, f: float, more: float
) -> None:
    costs = Costs(forward=f, backward=f + more)
    assert find_faults(make_schedule(method, p, m, costs)) == ()


@given(method=st.sampled_from(sorted(METHODS)), p=st.integers(1, 10), m=st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_broadcasts_are_posted_after_their_source_and_before_their_use(
    method: str, p: int, m: int
) -> None:
    schedule = make_schedule(method, p, m)
    made = broadcasts(schedule)
    assert len(made) == (2 * m if schedule.barriers else 0)
    for rank, program in enumerate(schedule.programs):
        before = list(accumulate((item.kind in VOCABULARY for item in program), initial=0))
        for one in made:
            use = Pass("S" if one.what == "hidden" else "IB", one.batch)
            assert one.after <= before[program.index(use)]
            if rank == one.root:
                kind, chunk = ("F", schedule.chunks - 1) if one.what == "hidden" else ("B", 0)
                assert before[program.index(Pass(kind, one.batch, chunk))] == one.after


@given(method=st.sampled_from(sorted(METHODS)), p=st.integers(1, 8), m=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_evaluation_keeps_the_forward_passes_and_cannot_stall(method: str, p: int, m: int) -> None:
    schedule = forward_only(make_schedule(method, p, m))
    kinds = {item.kind for program in schedule.programs for item in program}
    assert kinds <= {"F", "IF", "S"}
    unit = {(kind, chunk): 1.0 for kind in ("F", "IF", "S") for chunk in (0, 1)}
    played = play(schedule, [unit] * p, {}, meets=frozenset({"IF", "S"}))  # type: ignore[list-item]
    assert list(map(len, played.ends)) == list(map(len, schedule.programs))


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("p", [2, 4, 6, 8])
def test_live_micro_batches_reach_what_the_paper_says_and_no_more(method: str, p: int) -> None:
    schedule = make_schedule(method, p, 4 * p)
    assert peak_live(schedule) == tuple(most_live(schedule, r) for r in range(p))


def broken(schedule: Schedule, rank: int, program: list[Pass]) -> Schedule:
    programs = [*schedule.programs]
    programs[rank] = tuple(program)
    return Schedule(
        method=schedule.method,
        ranks=schedule.ranks,
        batches=schedule.batches,
        barriers=schedule.barriers,
        programs=tuple(programs),
    )


def test_a_missing_and_a_doubled_pass_are_found() -> None:
    schedule = sharded(2, 3, 1)
    program = [item for item in schedule.programs[1] if item != Pass("T", 1)] + [Pass("B", 0)]
    faults = find_faults(broken(schedule, 1, program))
    assert "rank 1 runs T1 0 times, expected 1" in faults
    assert "rank 1 runs B0 2 times, expected 1" in faults


def test_a_backward_pass_before_its_forward_pass_is_a_deadlock() -> None:
    schedule = sharded(2, 3, 1)
    program = [*schedule.programs[1]]
    place = program.index(Pass("B", 0))
    program.insert(0, program.pop(place))
    faults = find_faults(broken(schedule, 1, program))
    assert any("rank 1 stops at B0" in fault for fault in faults)


def test_collectives_in_another_order_are_found() -> None:
    schedule = sharded(2, 4, 2)
    program = [*schedule.programs[0]]
    a, b = program.index(Pass("IF", 0)), program.index(Pass("IF", 1))
    program[a], program[b] = program[b], program[a]
    faults = find_faults(broken(schedule, 0, program))
    assert any("another order than rank 0" in fault for fault in faults)


def test_a_schedule_that_holds_too_much_is_found() -> None:
    schedule = sharded(3, 8, 1)
    program = [*schedule.programs[0]]
    early = program.pop(program.index(Pass("F", 4)))
    program.insert(program.index(Pass("B", 0)), early)
    faults = find_faults(broken(schedule, 0, program))
    assert faults == ("rank 0 holds 5 micro-batches, vocab-2 promises 4",)


def test_interlaced_ranks_stay_together_from_s_to_t() -> None:
    schedule = interlaced(2, 6)
    program = [item for item in schedule.programs[1] if item != Pass("B", 2)]
    program.insert(program.index(Pass("T", 3)), Pass("B", 2))
    programs = schedule.programs[0], tuple(program)
    (fault,) = find_faults(msgspec.structs.replace(schedule, programs=programs))
    assert fault.startswith("rank 1 runs B2 between S3 and its T")


def test_redis_keeps_the_layers_that_the_artifact_keeps() -> None:
    def ratio(vocabulary: int, sequence: int) -> float:
        return 6 * vocabulary / (72 * 3072 + 12 * sequence)

    for sequence in (2048, 4096):
        kept = [
            final_stage_layers(32, 8, ratio(v, sequence)) for v in (32000, 64000, 128000, 256000)
        ]
        assert kept == ([4, 3, 1, 0] if sequence == 2048 else [4, 3, 2, 0])


@given(layers=st.integers(1, 80), stages=st.integers(1, 16), ratio=st.floats(0, 20))
def test_redistribution_covers_every_layer_once(layers: int, stages: int, ratio: float) -> None:
    if layers < stages - 1:
        with pytest.raises(InputError):
            redistributed_layers(layers, stages, ratio)
        return
    found = redistributed_layers(layers, stages, ratio)
    assert sum(found) == layers
    assert len(found) == stages
    assert min(found[:-1], default=1) >= 1


@given(
    layers=st.integers(1, 80), ranks=st.integers(1, 24), v=st.integers(1, 3), whole=st.booleans()
)
def test_layers_are_shared_as_evenly_as_they_go(
    layers: int, ranks: int, v: int, whole: bool
) -> None:
    stages = v * ranks
    if layers < ranks:
        with pytest.raises(InputError, match=f"{layers} layers cannot fill {ranks} ranks"):
            shared_layers(layers, stages, ranks=ranks, whole_output=whole)
        return
    found = shared_layers(layers, stages, ranks=ranks, whole_output=whole)
    before_last = found[: stages - whole]
    assert (len(found), sum(found)) == (stages, layers)
    assert max(found) - min(found) <= 1
    assert list(before_last) == sorted(before_last)
    assert not whole or found[-1] == min(found)


@pytest.mark.parametrize(("p", "m"), [(0, 1), (1, 0)])
def test_no_ranks_or_no_micro_batches_are_refused(p: int, m: int) -> None:
    for method in METHODS:
        with pytest.raises(InputError):
            make_schedule(method, p, m)
