"""The best flow where links do not matter: a small MILP over kinds and positions.

Machines of one kind are alike, so it is enough to count how many of a kind hold the layers from s
to s + k, and how much flow they pass. Every machine that ends at a layer can feed every one that
begins there, so flow has to balance at each cut between two layers and nowhere else. That is far
smaller and tighter than the MILP of the paper (no big constants), and often solved to the proof.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from common.errors import CaseError, InputError
from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster
from helix.inputs.model import Model
from helix.plan.blocks import LEAST_S, blocks
from helix.plan.bounds import capped_compute_bound
from helix.plan.clock import Clock
from helix.plan.flow import Flow
from helix.plan.flow_graph import placement_flow
from helix.plan.pipelines import best_chain
from helix.plan.placement import UNUSED, Placement, wired
from helix.plan.solvers import SolverName, solve
from helix.plan.solvers_matrix import INTEGER, Builder, Floats, Matrices
from helix.plan.solvers_result import Settings, Solved, never
from helix.plan.throughput import Throughput


class Held(NamedTuple):
    """Machines of a kind that hold layers `start` to `start + layers`."""

    kind: str
    start: int
    layers: int


class PositionFlow(msgspec.Struct, frozen=True, kw_only=True):
    """A placement, the solver's answer, and the bound of all placements (tokens per second)."""

    placement: Placement
    solved: Solved
    bound: float


def links_never_bind(cluster: Cluster, model: Model, flow: float) -> bool:
    """Say whether every two places are linked and any link or card could carry the whole flow."""
    machines, links = len(cluster.nodes), cluster.links
    past = (links.tails == SOURCE) & (links.heads == SINK)  # no machine is on it
    if len(links) - past.sum() < machines * (machines + 1):
        return False
    carried = links.bandwidths / np.where(links.outer, model.token_bytes, model.hop_bytes)
    cards = [min(node.machine.nic_in, node.machine.nic_out) for node in cluster.nodes]
    coordinator = min(cluster.nic_in, cluster.nic_out) / model.token_bytes
    least = min(float(carried.min()), min(cards) / model.hop_bytes, coordinator)
    return least >= flow


def position_flow(
    cluster: Cluster,
    model: Model,
    speed: Throughput,
    settings: Settings | None = None,
    solver: SolverName = "highs",
    start: Placement | None = None,
    clock: Clock | None = None,
) -> PositionFlow:
    """Return the placement of largest flow on a cluster whose links do not bind.

    The solver begins with `start`, or with the best row of blocks or chain. Machines that the
    optimum does not need stay unused. Raises InputError where a link may bind or the model does not
    fit, CaseError if no placement was found in time.
    """
    rates = [speed.rates(node.kind) for node in cluster.nodes]
    cap = capped_compute_bound(rates, model.layers)
    if not links_never_bind(cluster, model, cap):
        raise InputError("position-flow: a link is missing or may bind; use search or milp")
    counts = cluster.kind_counts()
    if sum(len(speed.rates(kind)) * count for kind, count in counts.items()) < model.layers:
        raise InputError(f"position-flow: {model.layers} layers do not fit these machines")
    table = {kind: speed.rates(kind) for kind in counts}
    held, matrices = position_matrices(table, counts, model.layers, cap)
    # A row of blocks passes more than the best chain, but where rates rise with the layers held.
    starts = (
        (start.intervals,)
        if start
        else (blocks(cluster, model.layers, speed, clock), best_chain(rates, model.layers)[1])
    )
    placed = [wired(model.layers, runs, cluster.links) for runs in starts]
    flows = [placement_flow(cluster, model, one, speed) for one in placed]
    known, flow = max(zip(placed, flows, strict=True), key=lambda pair: pair[1].value)
    begin = aggregated(cluster, held, known, flow)
    if clock and settings:
        left = max(clock.left(), LEAST_S)
        settings = msgspec.structs.replace(settings, max_run_time=min(left, settings.max_run_time))
    over = clock.over if clock else never
    solved = solve(matrices, settings, solver=solver, start=begin, over=over)
    if solved.x is None:
        raise CaseError(f"position-flow: nothing found in {solved.seconds:.1f} s; allow more time")
    intervals = disaggregated(cluster, held, solved.x)
    placement = wired(model.layers, intervals, cluster.links)
    return PositionFlow(placement=placement, solved=solved, bound=min(cap, solved.bound))


def position_matrices(
    rates: Mapping[str, Sequence[float]], counts: Mapping[str, int], layers: int, cap: float
) -> tuple[list[Held], Matrices]:
    """Return the positions and the problem; columns: a count for each, a flow for each, the total.

    `cap` is an upper bound of the flow; no machine passes more, which tightens the problem.
    """
    held = [
        Held(kind, start, k)
        for kind, own in rates.items()
        for k in range(1, min(len(own), layers) + 1)
        for start in range(layers - k + 1)
    ]
    b = Builder()
    numbers = [
        b.column(f"n_{h.kind}_{h.start}_{h.layers}", INTEGER, upper=counts[h.kind]) for h in held
    ]
    flows = [b.column(f"y_{h.kind}_{h.start}_{h.layers}", upper=cap) for h in held]
    total = b.column("flow", cost=1.0, upper=cap)
    for h, n, y in zip(held, numbers, flows, strict=True):
        b.row([(y, 1.0), (n, -min(rates[h.kind][h.layers - 1], cap))], upper=0.0)
    for kind, count in counts.items():
        own = [(n, 1.0) for h, n in zip(held, numbers, strict=True) if h.kind == kind]
        b.row(own, upper=count)
    for cut in range(layers):
        begin = [(y, 1.0) for h, y in zip(held, flows, strict=True) if h.start == cut]
        end = [(y, -1.0) for h, y in zip(held, flows, strict=True) if h.start + h.layers == cut]
        b.row([*begin, *(end or [(total, -1.0)])], lower=0.0, upper=0.0)
    return held, b.matrices()


def aggregated(cluster: Cluster, held: Sequence[Held], placement: Placement, flow: Flow) -> Floats:
    """Return a placement and its flow as a start for the solver, whole: so it is never lost."""
    numbers = {h: number for number, h in enumerate(held)}
    x = np.zeros(2 * len(held) + 1)
    mine = [
        numbers.get(Held(node.kind, start, end - start), -1)
        for node, (start, end) in zip(cluster.nodes, placement.intervals, strict=True)
    ]
    for number in mine:
        if number >= 0:  # the others are unused
            x[number] += 1
    for link, passed in zip(placement.links, flow.links, strict=True):
        if link.head != SINK:
            x[len(held) + mine[link.head - FIRST]] += passed
    x[-1] = flow.value
    return x


def disaggregated(cluster: Cluster, held: Sequence[Held], x: Floats) -> tuple[tuple[int, int], ...]:
    """Give the counted positions to the machines of each kind in index order."""
    waiting: dict[str, list[tuple[int, int]]] = {}
    for h, number in zip(held, x, strict=False):
        mine = waiting.setdefault(h.kind, [])
        mine += [(h.start, h.start + h.layers)] * math.floor(number + 0.5)
    for mine in waiting.values():
        mine.sort(reverse=True)
    return tuple(
        waiting[node.kind].pop() if waiting.get(node.kind) else UNUSED for node in cluster.nodes
    )
