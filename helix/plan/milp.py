"""Placement by the paper's MILP: build, warm-start, solve, decode, verify.

The solver's flow is not taken on trust: its switches are multiplied by capacities of up to 5e8
tokens per second, so one that is off by a millionth lets hundreds pass where no layers match. The
flow of the decoded placement is computed again, and what the solver broke is listed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from common.errors import CaseError, InputError
from helix.inputs.cluster import FIRST, SINK, SOURCE, Cluster, Link, place_name
from helix.inputs.model import Model
from helix.plan.blocks import LEAST_S
from helix.plan.bounds import compute_sum_bound
from helix.plan.clock import Clock
from helix.plan.max_flow import max_flow
from helix.plan.milp_matrices import Milp, MilpOptions, milp_matrices
from helix.plan.placement import UNUSED, Placement, carries, wired
from helix.plan.pruning import pruned
from helix.plan.solvers import SolverName, solve
from helix.plan.solvers_matrix import Floats
from helix.plan.solvers_result import Settings, Solved, never
from helix.plan.throughput import Throughput

TOLERANCE = 1e-3  # tokens per second that count as nothing

Intervals = Sequence[tuple[int, int]]


class MilpPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The placement found; flows in tokens per second, as the MILP counts link capacities.

    `flow` is what the placement carries, `solved.objective` what the solver claims; `bound` holds
    for every placement on these links, `start` is the flow of the warm start.
    """

    placement: Placement
    flow: float
    start: float | None
    bound: float
    solved: Solved
    faults: tuple[str, ...]


def milp(
    cluster: Cluster,
    model: Model,
    speed: Throughput,
    options: MilpOptions | None = None,
    settings: Settings | None = None,
    *,
    solver: SolverName = "highs",
    start: Placement | None = None,
    clock: Clock | None = None,
) -> MilpPlan:
    """Return the best placement found in the settings' time, or in the clock's.

    Pruning keeps the start's links unless it is `compat`. Without an upper bound in `settings`
    early stopping goes by the original's (the machines' layer rates summed), or with `cap` by the
    capped one. Raises InputError if the model does not fit, CaseError if nothing was found in time.
    """
    options, settings = options or MilpOptions(), settings or Settings()
    _refuse_misfits(cluster, model, speed)
    if options.pruning:
        keep = start.links if start and not options.pruning.compat else ()
        cluster = pruned(cluster, options.pruning, keep)
    problem = milp_matrices(cluster, model, speed, options)
    if settings.upper_bound == np.inf:
        summed = compute_sum_bound(problem.rates, model.layers)
        settings = msgspec.structs.replace(
            settings, upper_bound=problem.bound if options.cap else summed
        )
    begin = start and start_vector(problem, cluster, model.layers, start.intervals, options)
    if clock:  # to make the problem took some of the time
        left = max(clock.left(), LEAST_S)
        settings = msgspec.structs.replace(settings, max_run_time=min(left, settings.max_run_time))
    over = clock.over if clock else never
    solved = solve(problem.matrices, settings, solver=solver, start=begin, over=over)
    if solved.x is None:
        raise CaseError(f"milp: nothing found in {solved.seconds:.1f} s; allow more time")
    intervals = decoded(problem, solved.x)
    placement = wired(model.layers, intervals, cluster.links, options.partial)
    return MilpPlan(
        placement=placement,
        flow=sum(_source_flows(problem, cluster, model.layers, intervals, options)),
        start=None if begin is None else float(problem.matrices.costs @ begin),
        bound=min(problem.bound, solved.bound),
        solved=solved,
        faults=tuple(faults(problem, cluster, model.layers, solved.x, options)),
    )


def _refuse_misfits(cluster: Cluster, model: Model, speed: Throughput) -> None:
    most = sum(len(speed.rates(node.kind)) for node in cluster.nodes)
    if most < model.layers:
        raise InputError(f"milp: {model.layers} layers do not fit; the machines hold {most}")


def start_vector(
    problem: Milp, cluster: Cluster, layers: int, intervals: Intervals, options: MilpOptions
) -> Floats:
    """Return a whole solution from runs of layers; unused machines hold the first layer."""
    x, columns = np.zeros(problem.matrices.variables), problem.columns
    placed = [(0, 1) if run == UNUSED else run for run in intervals]
    for node, (begin, end) in enumerate(placed):
        x[columns.start[node]] = begin
        x[columns.hold[node][end - begin - 1]] = 1.0
    flows = _flows(problem, cluster, layers, placed, options)
    for number, (link, flow) in enumerate(zip(cluster.links, flows, strict=True)):
        x[columns.flow[number]] = flow
        x[columns.switch[number]] = float(carries(layers, placed, link, options.partial))
    for number in columns.cond1:
        link = cluster.links[number]
        tail, head = placed[link.tail - FIRST], placed[link.head - FIRST]
        x[columns.cond1[number]] = float(head[0] <= tail[1])
        x[columns.cond2[number]] = float(tail[1] < head[1])
    return x


def decoded(problem: Milp, x: Floats) -> list[tuple[int, int]]:
    """Return every machine's run of layers from a solution."""
    intervals = list[tuple[int, int]]()
    for start, hold in zip(problem.columns.start, problem.columns.hold, strict=True):
        begin = round(float(x[start]))
        intervals.append((begin, begin + 1 + int(np.argmax(x[list(hold)]))))
    return intervals


def _flows(
    problem: Milp, cluster: Cluster, layers: int, intervals: Intervals, options: MilpOptions
) -> Floats:
    """Return a maximum flow by link of these runs of layers, with the MILP's coefficients."""
    runs = zip(problem.rates, intervals, strict=True)
    able = [rates[end - start - 1] for rates, (start, end) in runs]
    places = len(cluster.nodes) + FIRST
    tails, heads, capacities = list[int](), list[int](), list[float]()
    for link, capacity in zip(cluster.links, problem.capacities, strict=True):
        tails.append(places + link.tail if link.tail >= FIRST else link.tail)
        heads.append(link.head)
        capacities.append(capacity if carries(layers, intervals, link, options.partial) else 0.0)
    nodes = range(FIRST, places)
    flow = max_flow(
        2 * places,
        np.array([*tails, *nodes]),
        np.array([*heads, *(places + node for node in nodes)]),
        np.array(capacities + able),
        SOURCE,
        SINK,
    )
    return flow[: len(cluster.links)]


def _source_flows(
    problem: Milp, cluster: Cluster, layers: int, intervals: Intervals, options: MilpOptions
) -> list[float]:
    flows = _flows(problem, cluster, layers, intervals, options)
    pairs = zip(cluster.links, flows, strict=True)
    return [float(flow) for link, flow in pairs if link.tail == SOURCE]


class _Used(NamedTuple):
    link: Link
    flow: float


def faults(
    problem: Milp, cluster: Cluster, layers: int, x: Floats, options: MilpOptions
) -> list[str]:
    """Return what a solution breaks: flow where no layers match, both ways, lost or too much."""
    intervals = decoded(problem, x)
    used = [
        _Used(link, float(x[column]))
        for link, column in zip(cluster.links, problem.columns.flow, strict=True)
        if x[column] > TOLERANCE
    ]
    ends = {(u.link.tail, u.link.head) for u in used}
    found = [
        f"{u.flow:.3f} tokens/s on {_name(u.link)}, where no layers match"
        for u in used
        if not carries(layers, intervals, u.link, options.partial)
    ]
    found += [f"flow both ways on {_name(u.link)}" for u in used if _back(u.link) in ends]
    for node, (start, end) in enumerate(intervals):
        into = sum(u.flow for u in used if u.link.head == node + FIRST)
        out = sum(u.flow for u in used if u.link.tail == node + FIRST)
        slack = TOLERANCE * (1 + into)
        if end > layers or start < 0:
            found.append(f"node {node} holds layers {start} to {end} of {layers}")
        if abs(into - out) > slack:
            found.append(f"node {node} gets {into:.3f} tokens/s and passes on {out:.3f}")
        if into > problem.rates[node][end - start - 1] + slack:
            found.append(f"node {node} gets {into:.3f} tokens/s, more than it can do")
    return found


def _name(link: Link) -> str:
    return f"link {place_name(link.tail)} to {place_name(link.head)}"


def _back(link: Link) -> tuple[int, int]:
    return link.head, link.tail
