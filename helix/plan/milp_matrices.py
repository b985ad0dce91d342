"""The paper's MILP (section 4.4) as matrices, column by column as the original builds it.

Columns: start_i, the first layer of machine i; hold_i_k, whether it holds k layers; flow_u_v,
tokens per second on each directed link; switch_u_v, whether the link may carry any; with partial
inference cond1_u_v (v begins by u's end) and cond2_u_v (v ends after it). Here end_i stands for
start_i + sum of k hold_i_k, m for the model's layers.
"""

from collections.abc import Mapping, Sequence

import msgspec

from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster, Link, Node, place_name
from helix.inputs.model import Model
from helix.plan.bounds import capped_compute_bound
from helix.plan.pruning import Pruning
from helix.plan.solvers_matrix import BINARY, INTEGER, Builder, Matrices
from helix.plan.throughput import Throughput

Terms = list[tuple[int, float]]


class MilpOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which form of the problem.

    `partial`: work may enter a machine in the middle of its layers. `remove_redundant`: leave out
    what only says that a switch has to be on where it may. `cap`: no machine or link passes more
    than the capped-compute bound, and layer passes add up; cuts off no placement, but the bound
    of the linear relaxation falls to that of the machines (the original has nothing of the kind).
    """

    partial: bool = False
    remove_redundant: bool = True
    cap: bool = False
    pruning: Pruning | None = None


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """Where each variable's column is: by node, by number of layers less one, by link."""

    start: tuple[int, ...]
    hold: tuple[tuple[int, ...], ...]
    flow: tuple[int, ...]
    switch: tuple[int, ...]
    cond1: Mapping[int, int]  # by the link's number, between machines only
    cond2: Mapping[int, int]

    def end(self, node: int, sign: float = 1.0) -> Terms:
        """Return the terms of the layer after a node's last."""
        held = [(column, sign * k) for k, column in enumerate(self.hold[node], 1)]
        return [(self.start[node], sign), *held]


class Milp(msgspec.Struct, frozen=True, kw_only=True):
    """The problem with its columns and the coefficients that went in (tokens per second)."""

    matrices: Matrices
    columns: Columns
    rates: tuple[tuple[float, ...], ...]  # by node, for 1, 2, ... layers
    capacities: tuple[float, ...]  # by link
    bound: float  # of the machines alone, whatever the links


def milp_matrices(cluster: Cluster, model: Model, speed: Throughput, options: MilpOptions) -> Milp:
    """Return the MILP of a cluster as it is (pruning is up to the caller)."""
    rates = [_rates(node, model, speed) for node in cluster.nodes]
    capacities = [_capacity(link, model) for link in cluster.links]
    bound = capped_compute_bound(rates, model.layers)
    if options.cap:
        rates = [tuple(min(rate, bound) for rate in own) for own in rates]
        capacities = [min(capacity, bound) for capacity in capacities]
    b = Builder()
    columns = _columns(b, cluster, model, rates, options)
    _machine_rows(b, cluster, columns, rates, model.layers)
    for number, link in enumerate(cluster.links):
        switch = columns.switch[number]
        b.row([(columns.flow[number], 1.0), (switch, -capacities[number])], upper=0.0)
        if link.tail == SOURCE or link.head == SINK:
            _outer_rows(b, link, switch, columns, model.layers, options)
        elif options.partial:
            _partial_rows(b, number, link, columns, model.layers, options)
        else:
            _exact_rows(b, link, switch, columns, model.layers)
    if options.cap:
        _layer_passes(b, cluster, columns, rates, model.layers)
    return Milp(
        matrices=b.matrices(),
        columns=columns,
        rates=tuple(rates),
        capacities=tuple(capacities),
        bound=bound,
    )


def _rates(node: Node, model: Model, speed: Throughput) -> tuple[float, ...]:
    card = min(node.machine.nic_in, node.machine.nic_out) / model.activation_bytes
    return tuple(min(rate, card) for rate in speed.rates(node.kind)[: model.layers])


def _capacity(link: Link, model: Model) -> float:
    """Return tokens per second; the original leaves out the token's own bytes between machines."""
    outer = link.tail == SOURCE or link.head == SINK
    return link.bandwidth / (model.token_bytes if outer else model.activation_bytes)


def _columns(
    b: Builder,
    cluster: Cluster,
    model: Model,
    rates: Sequence[Sequence[float]],
    options: MilpOptions,
) -> Columns:
    nodes, links = range(len(cluster.nodes)), cluster.links
    names = [f"{place_name(link.tail)}_{place_name(link.head)}" for link in links]
    limit = {} if options.remove_redundant else {"upper": model.layers - 1.0}
    start = [b.column(f"start_{i}", INTEGER, **limit) for i in nodes]
    hold = [
        tuple(b.column(f"hold_{i}_{k}", BINARY) for k in range(1, len(rates[i]) + 1)) for i in nodes
    ]
    flow = [
        b.column(f"flow_{name}", cost=float(link.tail == SOURCE))
        for name, link in zip(names, links, strict=True)
    ]
    switch = [b.column(f"switch_{name}", BINARY) for name in names]
    cond1, cond2 = dict[int, int](), dict[int, int]()
    for number, link in enumerate(links):
        if options.partial and link.tail != SOURCE and link.head != SINK:
            cond1[number] = b.column(f"cond1_{names[number]}", BINARY)
            cond2[number] = b.column(f"cond2_{names[number]}", BINARY)
    return Columns(
        start=tuple(start),
        hold=tuple(hold),
        flow=tuple(flow),
        switch=tuple(switch),
        cond1=cond1,
        cond2=cond2,
    )


def _machine_rows(
    b: Builder, cluster: Cluster, columns: Columns, rates: Sequence[Sequence[float]], layers: int
) -> None:
    """Each machine holds one run of layers, passes on all it gets, and gets what it can do."""
    into: list[list[int]] = [[] for _ in cluster.nodes]
    out: list[list[int]] = [[] for _ in cluster.nodes]
    for number, link in enumerate(cluster.links):
        if link.head != SINK:
            into[link.head - FIRST].append(columns.flow[number])
        if link.tail != SOURCE:
            out[link.tail - FIRST].append(columns.flow[number])
    for i, held in enumerate(columns.hold):
        b.row([(column, 1.0) for column in held], lower=1.0, upper=1.0)
        b.row(columns.end(i), upper=layers)
    for i in range(len(cluster.nodes)):
        balance = [(flow, 1.0) for flow in into[i]] + [(flow, -1.0) for flow in out[i]]
        b.row(balance, lower=0.0, upper=0.0)
    for i, held in enumerate(columns.hold):
        able = [(column, -rate) for column, rate in zip(held, rates[i], strict=True)]
        b.row([(flow, 1.0) for flow in into[i]] + able, upper=0.0)


def _outer_rows(
    b: Builder, link: Link, switch: int, columns: Columns, m: int, options: MilpOptions
) -> None:
    """Links of the coordinator: only to a first layer, only from a last."""
    if link.tail == SOURCE:
        start = columns.start[link.head - FIRST]
        b.row([(start, 1.0), (switch, m)], upper=m)
        if not options.remove_redundant:
            b.row([(switch, 1.0), (start, 1.0)], lower=1.0)
    else:
        end = columns.end(link.tail - FIRST, -1.0)
        b.row([(switch, m), *end], upper=0.0)
        if not options.remove_redundant:
            b.row([(switch, m - 1.0), *end], lower=1.0 - m)


def _exact_rows(b: Builder, link: Link, switch: int, columns: Columns, m: int) -> None:
    """Work goes on where the next machine begins: switch only if start_j = end_i."""
    i, j = link.tail - FIRST, link.head - FIRST
    b.row([(switch, m), (columns.start[j], -1.0), *columns.end(i)], upper=m)
    b.row([(switch, m), (columns.start[j], 1.0), *columns.end(i, -1.0)], upper=m)


def _partial_rows(
    b: Builder, number: int, link: Link, columns: Columns, m: int, options: MilpOptions
) -> None:
    """Work goes on where the next machine holds the layer: start_j <= end_i < end_j."""
    i, j, n = link.tail - FIRST, link.head - FIRST, m + 1.0
    cond1, cond2 = (columns.cond1[number], 1.0), (columns.cond2[number], 1.0)
    switch = columns.switch[number]
    later = [(columns.start[j], 1.0), *columns.end(i, -1.0)]
    longer = [*columns.end(j), *columns.end(i, -1.0)]
    b.row([(cond1[0], n), *later], upper=n)
    b.row([(cond2[0], -n), *longer], lower=1.0 - n)
    b.row([(switch, 2.0), (cond1[0], -1.0), (cond2[0], -1.0)], upper=0.0)
    if not options.remove_redundant:
        b.row([(cond1[0], n), *later], lower=1.0)
        b.row([(cond2[0], -n), *longer], upper=0.0)
        b.row([cond1, cond2, (switch, -1.0)], upper=1.0)


def _layer_passes(
    b: Builder, cluster: Cluster, columns: Columns, rates: Sequence[Sequence[float]], layers: int
) -> None:
    """All flow passes all layers, and a machine with k layers gives k times its flow of passes."""
    total = [
        (columns.flow[number], -float(layers))
        for number, link in enumerate(cluster.links)
        if link.tail == SOURCE
    ]
    passes = [
        (column, k * rate)
        for held, own in zip(columns.hold, rates, strict=True)
        for k, (column, rate) in enumerate(zip(held, own, strict=True), 1)
    ]
    b.row(total + passes, lower=0.0)
