"""The switch as a value: golden peer maps and volumes, bounds, and weights put together again."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from puzzle.inputs.experiment import Choice
from puzzle.inputs.layout import Layout, Place
from puzzle.inputs.model import Llama, Tensor, known_models, tensors
from puzzle.paper.experiments import named
from puzzle.plan import volumes
from puzzle.plan.assign import best_assignment
from puzzle.plan.mappings import MappingName
from puzzle.plan.plans import make_plan, switch_of
from puzzle.plan.reshard import Move, ReshardPlan, buckets, make_reshard_plan
from puzzle.plan.shares import shares
from puzzle.plan.slices import Slice, held, held_elements

MODEL = Llama(layers=16, hidden=64, heads=16, ffn=64, vocabulary=64)
SMALL = Llama(layers=5, hidden=16, heads=8, ffn=8, vocabulary=24)


def layout(p: str | int, t: str | int, d: str | int = 1) -> Layout:
    return Layout(pipeline=int(p), tensor=int(t), data=int(d))


def all_layouts(world: int) -> list[Layout]:
    return [
        layout(p, t, world // p // t)
        for p in range(1, world + 1)
        for t in (1, 2, 4, 8)
        if world % (p * t) == 0 and p <= SMALL.layers
    ]


def test_the_original_mapping_equals_the_oracle(golden):
    rows = golden("peer_map_oracle")
    assert len(rows) == 42
    for row in rows:
        train = layout(row["train_p"], row["train_t"], row["train_d"])
        generate = layout(row["gen_p"], row["gen_t"], row["gen_d"])
        plan = make_reshard_plan(train, generate, MODEL, "original")
        expected = tuple(map(int, row["src_ranks_in_stage_order"].split()))
        assert plan.sources(int(row["dst_rank"])) == expected, row


@pytest.mark.parametrize(
    ("train", "generate"),
    [
        (layout(p, t, d), layout(p // k, t * q, d * r))
        for p in (1, 2, 4, 8)
        for t in (1, 2, 4)
        for d in (1, 2)
        for k in (1, 2, 4)
        for q in (1, 2, 4)
        for r in (1, 2)
        if p % k == 0 and k == q * r and p * t * d <= 32 and t * q <= 8
    ],
    ids=lambda x: str(x),
)
def test_the_original_mapping_equals_its_formula(train: Layout, generate: Layout):
    """src(r') = [(k p' + j)(D T) + (d' div R) T + t' div q], specification section 2.9."""
    model = Llama(layers=8, hidden=64, heads=8, ffn=64, vocabulary=64)
    plan = make_reshard_plan(train, generate, model, "original")
    k, q = train.pipeline // generate.pipeline, generate.tensor // train.tensor
    ratio = generate.data // train.data
    for rank in range(train.world):
        p, d, t = generate.place(rank)
        expected = [
            (k * p + j) * train.data * train.tensor + d // ratio * train.tensor + t // q
            for j in range(k)
        ]
        assert list(plan.sources(rank)) == expected


def test_bytes_equal_the_independent_calculation(golden):
    for row in golden("reshard_volumes"):
        model = known_models()[row["actor"]]
        train, generate = (layout(*row[k].split("-")) for k in ("train_p-t-d", "gen_p-t-d"))
        in_order = make_reshard_plan(train, generate, model, "original")
        received = [2 * in_order.received(rank) for rank in range(train.world)]
        assert max(received) / 1e9 == pytest.approx(
            float(row["remote_GB_per_gpu_rank_order_max"]), abs=6e-4
        )
        best = make_reshard_plan(train, generate, model, "overlap")
        mean = sum(2 * best.received(rank) for rank in range(train.world)) / train.world
        assert mean / 1e9 == pytest.approx(
            float(row["remote_GB_per_gpu_tp_assign_mean"]), abs=1.1e-3
        )
        weights = 2 * sum(t.size for t in tensors(model)) / 1e9
        assert volumes.deepspeed_chat(train).received * weights == pytest.approx(
            float(row["dschat_allgather_GB_per_gpu"]), rel=1e-3
        )
        assert volumes.hybridflow(train, generate).received == 0


def check(plan: ReshardPlan, model: Llama) -> None:
    """Put every rank's new shard together and hold it against what it should be."""
    whole = {
        t.name: np.arange(t.size).reshape(t.shape) + 1000 * i for i, t in enumerate(tensors(model))
    }

    def cut(part):
        if part.tensor.axis is None:
            return whole[part.tensor.name]
        return whole[part.tensor.name].take(range(part.start, part.stop), part.tensor.axis)

    for rank, place in enumerate(plan.places):
        wanted = held(model, "actor", plan.generate, place.stage, place.slice)
        pieces = [m for m in (*plan.moves, *plan.aliased) if m.target == rank]
        for want in wanted:
            own = [m for m in pieces if m.part.tensor.name == want.tensor.name]
            for move in own:  # the source really holds it
                source = plan.train.place(move.source)
                there = held(model, "actor", plan.train, source.stage, source.slice)
                (holds,) = [s for s in there if s.tensor.name == want.tensor.name]
                assert holds.overlap(move.part) == move.part
            parts = [cut(m.part) for m in sorted(own, key=lambda m: m.part.start)]
            joined = (
                parts[0] if want.tensor.axis is None else np.concatenate(parts, want.tensor.axis)
            )
            assert np.array_equal(joined, cut(want))
    sent = sum(plan.sent(rank) for rank in range(plan.train.world))
    assert sent == sum(plan.received(rank) for rank in range(plan.train.world))
    for rank, place in enumerate(plan.places):
        total = plan.received(rank) + plan.copied(rank) + plan.kept(rank)
        assert total == held_elements(model, "actor", plan.generate, place.stage, place.slice)
        assert sorted(plan.places) == sorted(plan.generate.places())


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 8])
def test_every_pair_of_layouts_is_put_together_again(world: int):
    for train in all_layouts(world):
        for generate in all_layouts(world):
            for mapping in ("original", "overlap"):
                check(make_reshard_plan(train, generate, SMALL, mapping), SMALL)


def row_of_overlaps(train: Layout, generate: Layout, model: Llama, rank: int) -> list[int]:
    """Return the elements that a rank holds of every generation place, tensor by tensor."""
    place = train.place(rank)
    mine = {p.tensor.name: p for p in held(model, "actor", train, place.stage, place.slice)}

    def shared(part: Slice) -> int:
        both = mine[part.tensor.name].overlap(part) if part.tensor.name in mine else None
        return both.size if both else 0

    return [
        sum(shared(part) for part in held(model, "actor", generate, stage, number))
        for stage, _, number in generate.places()
    ]


@pytest.mark.parametrize("world", [1, 6, 8])
def test_shares_in_closed_form_are_those_of_the_tensors(world: int):
    for train in all_layouts(world):
        for generate in all_layouts(world):
            found = shares(SMALL, "actor", train, generate).resident()
            for rank in range(world):
                stage, _, part = train.place(rank)
                mine = found[stage * train.tensor + part]
                rows = [mine[s * generate.tensor + t] for s, _, t in generate.places()]
                assert rows == row_of_overlaps(train, generate, SMALL, rank)


def least_received(train: Layout, generate: Layout, model: Llama) -> float:
    """Return the bound over all assignments, by trying them all."""
    rows = [row_of_overlaps(train, generate, model, r) for r in range(train.world)]
    most = max(
        sum(rows[r][c] for r, c in enumerate(order)) for order in permutations(range(train.world))
    )
    total = sum(
        held_elements(model, "actor", generate, place.stage, place.slice)
        for place in generate.places()
    )
    return total - most


@pytest.mark.parametrize("world", [2, 4, 6])
def test_the_overlap_mapping_receives_the_lower_bound(world: int):
    for train in all_layouts(world):
        for generate in all_layouts(world):
            plan = make_reshard_plan(train, generate, SMALL, "overlap")
            received = sum(plan.received(rank) for rank in range(world))
            assert received == least_received(train, generate, SMALL)


@pytest.mark.parametrize("world", [4, 6, 8])
def test_replicas_share_out_what_is_sent(world: int):
    """No rank sends more than what any other way to share one part over its holders could save."""
    for train in all_layouts(world):
        for generate in all_layouts(world):
            plan = make_reshard_plan(train, generate, SMALL, "overlap")
            for stage in range(train.pipeline):
                for part in range(train.tensor):
                    holders = [train.rank(Place(stage, d, part)) for d in range(train.data)]
                    sent = [plan.sent(rank) for rank in holders]
                    pieces = [
                        sum(m.part.size for m in plan.moves if (m.source, m.target) == (s, t))
                        for s in holders
                        for t in range(world)
                        if s != t
                    ]
                    assert max(sent) - min(sent) <= max(pieces, default=0)


def test_six_replicas_of_a_half_send_alike_to_three_of_a_whole():
    model = Llama(layers=12, hidden=48, heads=24, ffn=48, vocabulary=48)
    plan = make_reshard_plan(layout(2, 1, 6), layout(1, 4, 3), model, "overlap")
    ranks = range(12)
    assert sorted(map(plan.sent, ranks)) == sorted(map(plan.received, ranks))


def test_interleaving_keeps_one_kth_for_any_tensor_and_data_degree():
    model = Llama(layers=16, hidden=64, heads=16, ffn=64, vocabulary=64)
    for p, t, d, k in ((8, 1, 1, 2), (8, 2, 1, 2), (8, 2, 2, 4), (4, 4, 1, 4), (16, 2, 1, 2)):
        plan = make_reshard_plan(layout(p, t, d), layout(p // k, t * k, d), model, "interleaved")
        blocks = [m for m in plan.aliased if m.part.tensor.axis is not None]
        for rank, place in enumerate(plan.places):
            new = held(model, "actor", plan.generate, place.stage, place.slice)
            layers = {s.tensor.layer for s in new if 0 <= s.tensor.layer < 16}
            kept = {
                m.part.tensor.layer
                for m in blocks
                if m.target == rank and 0 <= m.part.tensor.layer < 16
            }
            assert len(kept) * k == len(layers)
        best = make_reshard_plan(layout(p, t, d), layout(p // k, t * k, d), model, "overlap")
        ranks = range(best.train.world)
        assert sum(map(best.received, ranks)) <= sum(map(plan.received, ranks))


def test_the_peak_counts_resident_slices_once():
    def peak(train: Layout, generate: Layout, mapping: MappingName) -> int:
        found = switch_of(MODEL, Choice(training=train, generation=generate, mapping=mapping))
        assert found is not None
        return found.peak // 2

    fullest = max(held_elements(MODEL, "actor", layout(8, 1), stage, 0) for stage in range(8))
    assert peak(layout(8, 1), layout(4, 2), "interleaved") < 1.6 * fullest
    wide = layout(8, 2), layout(4, 4)
    assert peak(*wide, "original") > peak(*wide, "interleaved")


@settings(max_examples=80)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(1, 2000))
def test_at_most_four_messages_go_from_one_rank_to_another(sizes: list[int], least: int):
    parts = [Tensor(f"{i}", (size,), 0, 0) for i, size in enumerate(sizes)]
    moves = [Move(0, 1, part, part) for part in (Slice(t, 0, t.size) for t in parts)]
    made = buckets(moves, 2, least)
    assert [move for bucket in made for move in bucket] == moves
    assert len(made) <= 4
    if 2 * sum(sizes) <= least:
        assert len(made) == 1


def test_a_whole_model_from_one_peer_is_four_messages():
    plan = make_plan(named()["orion-7b-7b"], "given", Choice(
        training=layout(2, 1), generation=layout(1, 1, 2)))  # fmt: skip
    assert plan.switch is not None
    assert plan.switch.messages == (4, 4)


@settings(max_examples=50)
@given(st.integers(1, 6).flatmap(lambda n: st.lists(
    st.lists(st.integers(0, 9), min_size=n, max_size=n), min_size=n, max_size=n)))  # fmt: skip
def test_assignments_are_the_best_of_all(weights: list[list[int]]):
    found = best_assignment(np.array(weights, dtype=float))
    assert sorted(found) == list(range(len(weights)))
    best = max(
        sum(weights[r][c] for r, c in enumerate(order))
        for order in permutations(range(len(weights)))
    )
    assert sum(weights[r][c] for r, c in enumerate(found)) == best


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="needs the same ranks"):
        make_reshard_plan(layout(2, 1), layout(1, 1), MODEL)
    with pytest.raises(InputError, match="needs P = k P'"):
        make_reshard_plan(layout(1, 2), layout(2, 1), MODEL, "interleaved")
    with pytest.raises(InputError, match="expected one of original"):
        make_reshard_plan(layout(1, 2), layout(2, 1), MODEL, "best")
