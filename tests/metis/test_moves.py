"""What moves from a running plan to the next: bytes by node, and who sits where."""

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from metis.inputs.analytic import layer_parameters
from metis.inputs.cluster import Cluster, NodeGroup
from metis.inputs.experiment import ClusterSource
from metis.inputs.model import Model
from metis.plan.change import change
from metis.plan.methods import make_plan
from metis.plan.moves import Migration
from metis.plan.plans import PlacedNode, Plan, Stage
from metis.plan.seats import cheapest_seats
from metis.plan.state import Bytes, bytes_of
from tests.metis.pools import pool, problem_of

ROOT = Path(__file__).parents[2]
CLOSE = 1 + 1e-9
EACH = Bytes(2, 12)
MODEL = Model(layers=6, hidden_size=64, vocabulary=128, heads=4, global_batch=16)

# --- lost nodes --------------------------------------------------------------------------------

NODES = (NodeGroup(device="A100", count=2, devices=4), NodeGroup(device="T4", count=2, devices=2))


def test_a_lost_node_leaves_the_others_their_names() -> None:
    left = Cluster(nodes=NODES).without(("node0-0", "node1-1"))
    assert [(n.host, n.device) for n in left.machines()] == [("node0-1", "A100"), ("node1-0", "T4")]


@pytest.mark.parametrize(
    ("lost", "message"),
    [(("node0-2",), "no node is called 'node0-2'"), (("node0-0", "node0-1"), "no node is left")],
)
def test_a_node_that_is_not_there_cannot_be_lost(lost: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClusterSource(nodes=NODES[:1], lost=lost).load(first_digit_slots=False)


def test_a_plan_names_its_nodes_in_rank_order() -> None:
    asked = pool(*NODES, layers=12, batch=16, time_limit_s=3.0)
    plan = make_plan(asked, problem_of(asked), "wider").plan
    assert plan is not None
    of_ranks = [node.device for node in plan.nodes for _ in range(node.devices)]
    assert of_ranks == [device for stage in plan.stages for device in stage.device_types]
    assert sorted(node.host for node in plan.nodes) == ["node0-0", "node0-1", "node1-0", "node1-1"]


# --- what moves, by counting grains --------------------------------------------------------------


@st.composite
def plans(draw: st.DrawFn, hosts: tuple[str, ...]) -> Plan:
    """Draw a plan on some of the nodes of 4 devices, in any order."""
    nodes = draw(st.permutations(hosts))[: draw(st.integers(1, len(hosts)))]
    count = draw(st.integers(1, min(len(nodes), 3)))
    borders = sorted(draw(st.sets(st.integers(1, 5), min_size=count - 1, max_size=count - 1)))
    cuts = sorted(
        draw(
            st.sets(st.integers(1, max(len(nodes) - 1, 1)), min_size=count - 1, max_size=count - 1)
        )
        if len(nodes) > 1
        else ()
    )
    stages = list[Stage]()
    for first, end, low, high in zip(
        [0, *cuts], [*cuts, len(nodes)], [0, *borders], [*borders, 6], strict=True
    ):
        devices, tp = 4 * (end - first), draw(st.sampled_from([1, 2, 4]))
        dp = devices // tp
        stages.append(
            Stage(
                first_rank=4 * first, device_types=("A100",) * devices, dp=dp, tp=tp,
                first_layer=low, end_layer=high, samples=(1,) * dp, sharded=draw(st.booleans()),
            )
        )  # fmt: skip
    every = sorted(hosts)
    return Plan(
        experiment="toy", method="optimal", mode="strict", model=MODEL, node_sequence=("A100",),
        machines=tuple(every.index(host) for host in nodes), batches=1, stages=tuple(stages),
        nodes=tuple(PlacedNode(host=host, device="A100", devices=4) for host in nodes), cost_ms=1.0,
    )  # fmt: skip


GRAINS = 48
"""A multiple of every tp x dp of these plans."""


def grains(plan: Plan, hosts: list[str]) -> dict[str, set[tuple[str, int, int]]]:
    """What each host holds: (weight or state, layer, grain), counted rank by rank."""
    found: dict[str, set[tuple[str, int, int]]] = {host: set() for host in hosts}
    for stage in plan.stages:
        for rank in range(stage.devices):
            replica, part = divmod(rank, stage.tp)
            host = hosts[(stage.first_rank + rank) // 4]
            for layer in range(stage.first_layer, stage.end_layer):
                for grain in range(GRAINS):
                    middle = Fraction(2 * grain + 1, 2 * GRAINS)
                    if int(middle * stage.tp) != part:
                        continue
                    found[host].add(("weight", layer, grain))
                    within = middle * stage.tp - part
                    if not stage.sharded or int(within * stage.dp) == replica:
                        found[host].add(("state", layer, grain))
    return found


HOSTS = ("h0", "h1", "h2", "h3")


@settings(max_examples=60, deadline=None)
@given(plans(HOSTS), plans(HOSTS[:3]))
def test_what_moves_is_what_a_count_of_grains_says(before: Plan, after: Plan) -> None:
    """The last host is gone: what it alone held comes from the checkpoint."""
    cluster = Cluster(nodes=tuple(NodeGroup(device="A100", devices=4, host=h) for h in HOSTS[:3]))
    what = change(before, MODEL, cluster.machines())
    migration = Migration(what, after, cluster, EACH)
    moves = migration.moves(after.machines)
    parameters = layer_parameters(MODEL)

    def size(grain: tuple[str, int, int]) -> float:
        each = EACH.weight if grain[0] == "weight" else EACH.states
        return each * parameters[grain[1]] / GRAINS

    had = grains(before, [node.host for node in before.nodes])
    had.pop("h3", None)
    need = grains(after, [node.host for node in after.nodes])
    somewhere = set().union(*had.values()) if had else set()
    received, stored = moves.received(), moves.stored
    for number, host in enumerate(HOSTS[:3]):
        missing = need.get(host, set()) - had.get(host, set())
        come = sum(size(grain) for grain in missing & somewhere)
        lost = sum(size(grain) for grain in missing - somewhere)
        assert received[number] == pytest.approx(come)
        assert stored.get(number, 0.0) == pytest.approx(lost)
    assert sum(moves.sent().values()) == pytest.approx(moves.total)
    best = migration.cheapest()
    seated = migration.moves(best.machines)
    assert seated.total + seated.lost <= (moves.total + moves.lost) * CLOSE
    assert len(set(best.machines)) == len(best.machines)
    assert all(node.host == HOSTS[m] for node, m in zip(best.nodes, best.machines, strict=True))


@settings(max_examples=50, deadline=None)
@given(plans(HOSTS))
def test_a_plan_that_stays_moves_nothing(plan: Plan) -> None:
    cluster = Cluster(nodes=tuple(NodeGroup(device="A100", devices=4, host=h) for h in HOSTS))
    migration = Migration(change(plan, MODEL, cluster.machines()), plan, cluster, EACH)
    assert migration.moves(plan.machines).total == 0
    assert migration.moves(migration.cheapest().machines).total == 0


@pytest.mark.parametrize("seed", range(20))
def test_seats_are_the_cheapest_of_all_permutations(seed: int) -> None:
    draw = np.random.default_rng(seed)
    seats = int(draw.integers(1, 6))
    costs = draw.integers(0, 6, (seats, seats + int(draw.integers(0, 3)))).astype(float)
    found = cheapest_seats(costs)
    every = itertools.permutations(range(costs.shape[1]), seats)
    least = min(sum(costs[seat, guest] for seat, guest in enumerate(way)) for way in every)
    assert len(set(found)) == seats
    assert sum(costs[seat, guest] for seat, guest in enumerate(found)) == least


def test_the_state_is_all_that_the_memory_model_counts_but_the_gradient() -> None:
    assert bytes_of("float16") == (2, 12)
    assert bytes_of("float32") == (4, 8)
