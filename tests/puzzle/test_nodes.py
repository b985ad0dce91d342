"""The switch on nodes: tensor groups inside them, least bytes, of these least between nodes."""

from itertools import permutations

import msgspec
import numpy as np
import pytest

from puzzle.inputs.cluster import known_clusters
from puzzle.inputs.experiment import Choice
from puzzle.inputs.layout import Layout, Place
from puzzle.inputs.model import Llama, known_models
from puzzle.inputs.workload import Workload
from puzzle.plan.plans import switch_of
from puzzle.plan.reshard import ReshardPlan, buckets, make_reshard_plan
from puzzle.plan.slices import held, held_elements
from puzzle.plan.sources import exchange
from puzzle.plan.space import layouts
from puzzle.simulate.cost import training_time
from puzzle.simulate.predict import switched
from puzzle.simulate.rates import Rates

pytestmark = pytest.mark.timeout(600)

SMALL = Llama(layers=5, hidden=16, heads=8, ffn=8, vocabulary=24)
ODD = Llama(layers=7, hidden=48, heads=12, ffn=36, vocabulary=84)


def pairs(world: int, node: int, model: Llama) -> list[tuple[Layout, Layout]]:
    every = list(layouts(world, node, model))
    return [(train, generate) for train in every for generate in every if train != generate]


def crossing(plan: ReshardPlan, node: int) -> int:
    """Return how many tensor groups of either layout are on more than one node."""
    rank_of = {place: rank for rank, place in enumerate(plan.places)}
    groups = [
        [rank_of[plan.generate.place(number)] for number in group]
        for group in plan.generate.tensor_groups()
    ]
    every = [*groups, *plan.train.tensor_groups()]
    return sum(len({rank // node for rank in group}) > 1 for group in every)


def groups_on_nodes(places: tuple[Place, ...], generate: Layout) -> bool:
    """Say whether every generation tensor group is on one node of 8."""
    nodes: dict[tuple[int, int], set[int]] = {}
    for rank, place in enumerate(places):
        nodes.setdefault((place.stage, place.replica), set()).add(rank // 8)
    return all(len(found) == 1 for found in nodes.values())


def total(plan: ReshardPlan) -> int:
    return sum(plan.received(rank) for rank in range(plan.train.world))


def between(plan: ReshardPlan, node: int) -> int:
    return sum(m.part.size for m in plan.moves if m.source // node != m.target // node)


def fetched(train: Layout, generate: Layout, model: Llama, node: int, rank: int) -> list[int]:
    """Return what a rank must fetch from other nodes for each place, part by part."""
    own, here = train.place(rank), rank // node * node
    near = {
        (place.stage, place.slice)
        for place in map(train.place, range(here, min(here + node, train.world)))
    }
    found: list[int] = []
    for stage, _, number in generate.places():
        away = 0
        for whole in held(model, "actor", generate, stage, number):
            for s in range(train.pipeline):
                for t in range(train.tensor):
                    pieces = held(model, "actor", train, s, t)
                    for piece in (p for p in pieces if p.tensor == whole.tensor):
                        both = piece.overlap(whole)
                        if whole.tensor.axis is None:
                            like = number * train.tensor // generate.tensor
                            both = whole if t == (own.slice if s == own.stage else like) else None
                        away += both.size if both and (s, t) not in near else 0
        found.append(away)
    return found


def best_by_trying_all(train: Layout, generate: Layout, model: Llama, node: int) -> tuple[int, int]:
    """Return (received, between nodes) of the best assignment that the rules allow."""
    world = train.world
    orders = np.array(list(permutations(range(world))))
    ranks = np.arange(world)
    slots = np.empty_like(orders)
    slots[np.arange(len(orders))[:, None], orders] = ranks  # place number -> rank
    nodes = slots.reshape(len(orders), -1, generate.tensor) // node
    inside = (nodes == nodes[:, :, :1]).all((1, 2))
    orders = orders[inside]
    need = [held_elements(model, "actor", generate, s, t) for s, _, t in generate.places()]
    mine = [
        {p.tensor.name: p for p in held(model, "actor", train, *train.place(r)[::2])}
        for r in range(world)
    ]
    stay = np.array(
        [
            [
                sum(
                    both.size
                    for part in held(model, "actor", generate, s, t)
                    if part.tensor.name in mine[r]
                    and (both := mine[r][part.tensor.name].overlap(part))
                )
                for s, _, t in generate.places()
            ]
            for r in range(world)
        ]
    )
    away = np.array([fetched(train, generate, model, node, r) for r in range(world)])
    received = sum(need) - stay[ranks, orders].sum(1)
    crossed = away[ranks, orders].sum(1)
    allowed = crossed <= away[ranks, ranks].sum()
    return min(zip(received[allowed].tolist(), crossed[allowed].tolist(), strict=True))


@pytest.mark.parametrize(
    ("world", "node"),
    [(4, 2), (6, 2), (6, 3), (6, 4), (8, 2), pytest.param(8, 4, marks=pytest.mark.slow)],
)
def test_up_to_eight_ranks_the_mapping_is_the_best_of_all(world: int, node: int):
    model = ODD if world == 6 else SMALL
    for train, generate in pairs(world, node, model):
        plan = make_reshard_plan(train, generate, model, "overlap", node=node)
        assert crossing(plan, node) == 0
        best = best_by_trying_all(train, generate, model, node)
        assert (total(plan), between(plan, node)) == best, (train, generate)


@pytest.mark.slow
@pytest.mark.parametrize("world", [16, 32])
def test_no_tensor_group_crosses_and_bytes_stay_near_the_bound(world: int):
    """Every pair of layouts on nodes of 8: 182 of 16 ranks, 306 of 32."""
    model = Llama(layers=32, hidden=64, heads=32, ffn=64, vocabulary=64)
    for number, (train, generate) in enumerate(pairs(world, 8, model)):
        choice = Choice(training=train, generation=generate)
        made = switch_of(model, choice, node=8)
        in_order = switch_of(model, msgspec.structs.replace(choice, mapping="original"), node=8)
        assert made is not None
        assert in_order is not None
        assert groups_on_nodes(exchange(train, generate, model, "overlap", node=8).places, generate)
        if world == 16 or number % 5 == 0:  # of 32 ranks at once, an assignment takes long
            free = switch_of(model, choice)
            assert free is not None
            assert sum(made.received) <= 1.05 * sum(free.received)
        assert sum(made.from_nodes) <= sum(in_order.from_nodes)


@pytest.mark.parametrize("mapping", ["overlap", "original"])
def test_a_switchs_figures_are_those_of_its_moves(mapping: str):
    model = known_models()["7b"]
    for train, generate in (
        (Layout(pipeline=8, data=2), Layout(pipeline=1, tensor=4, data=4)),
        (Layout(pipeline=2, tensor=8), Layout(pipeline=4, tensor=2, data=2)),
        (Layout(tensor=4, data=4), Layout(pipeline=16)),
        (Layout(pipeline=4, tensor=2, data=2), Layout(pipeline=2, data=8)),
    ):
        choice = Choice(training=train, generation=generate, mapping=mapping)
        switch = switch_of(model, choice, node=8)
        plan = make_reshard_plan(train, generate, model, mapping, node=8)
        ranks = range(16)
        assert switch is not None
        assert switch.received == tuple(2 * plan.received(r) for r in ranks)
        assert switch.sent == tuple(2 * plan.sent(r) for r in ranks)
        assert switch.copied == tuple(2 * plan.copied(r) for r in ranks)
        assert switch.kept == tuple(2 * plan.kept(r) for r in ranks)
        assert sum(switch.from_nodes) == sum(switch.to_nodes) == 2 * between(plan, 8)
        for r in ranks:
            assert switch.messages[r] == messages(plan, r)


def messages(plan: ReshardPlan, rank: int) -> int:
    return sum(
        len(buckets([m for m in plan.moves if (m.source, m.target) == (peer, rank)], 2))
        for peer in plan.peers(rank)
    )


def test_bytes_between_nodes_count_by_their_own_rate():
    """8 GB/s between nodes of 50 inside: a switch is longer by what goes between, nothing else."""
    base = msgspec.structs.replace(
        known_clusters()["phoenix"].constants, gather_gbps=50.0, p2p_gbps=50.0
    )
    slow = msgspec.structs.replace(base, between_gbps=8.0)
    model, layout = known_models()["13b"], Layout(pipeline=4, tensor=2, data=2)
    away = Choice(training=layout, generation=Layout(tensor=8, data=2))
    found = switch_of(model, away, node=8)
    assert found is not None
    assert sum(found.from_nodes) > 0
    one, other = (switched(found, Rates(c, 8)) for c in (base, slow))
    far = zip((*found.received, *found.sent), (*found.from_nodes, *found.to_nodes), strict=True)
    fullest = max((size - out) / 50e9 + out / 8e9 for size, out in far)
    assert other == pytest.approx(fullest + max(found.messages) * base.message_s)
    assert one <= other
    inside = switch_of(
        model, Choice(training=layout, generation=Layout(pipeline=2, tensor=8)), node=8
    )
    assert inside is not None
    assert sum(inside.from_nodes) == 0


def test_stages_on_other_nodes_are_reached_by_the_slower_link():
    c = msgspec.structs.replace(known_clusters()["phoenix"].constants, between_gbps=5.0)
    on = Rates(c, 8)
    assert on.crossings(Layout(pipeline=4, tensor=2, data=2)) == (False, True, False, False)
    assert on.crossings(Layout(pipeline=2, tensor=8)) == (True, False)
    assert on.replicas_cross(Layout(tensor=8, data=2))
    assert not on.replicas_cross(Layout(pipeline=2, tensor=4, data=2))
    assert Rates(c).crossings(Layout(pipeline=4, tensor=2, data=2)) == (False,) * 4
    assert (on.hop(True), on.hop(False)) == (5e9, 50e9)
    model, work = known_models()["7b"], Workload(batch=64)
    for layout in (Layout(pipeline=2, tensor=8), Layout(tensor=8, data=2)):
        near, far = (
            training_time(model, model, layout, work, rates, merged=True)
            for rates in (Rates(c), on)
        )
        assert near < far
