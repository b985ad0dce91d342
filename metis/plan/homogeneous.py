"""The estimator for clusters of one device type: every (dp, pp, tp, micro-batch) with equal stages.

Metis' homogeneous cost model; the search space is small enough to list.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from common.errors import InputError
from metis.inputs.profile import ProfileKey
from metis.plan import cost
from metis.plan.lookups import ProfileTables
from metis.plan.memory import slacks
from metis.plan.problem import Problem
from metis.plan.ranks import Ranks
from metis.plan.search import RankedPlan
from metis.plan.space import Layout
from metis.plan.stages import StageModel
from metis.plan.walk import Survivor, stage_cost


class UniformPlan(NamedTuple):
    """A plan with the same (dp, tp) on every stage."""

    dp: int
    pp: int
    tp: int
    micro_batch: int
    cost_ms: float
    split: tuple[int, ...]
    stage_memory_mb: tuple[float, ...]
    """Profiled memory of one device of each stage."""
    fits: bool


def uniform_layers(layers: int, stages: int) -> list[int]:
    """Return the layers of each stage: blocks evenly, embedding to the first, head to the last.

    Blocks that are left over go one each to stages 1, 2, ...
    """
    blocks, rest = divmod(layers - 2, stages)
    counts = [blocks + (1 <= s <= rest) for s in range(stages)]
    counts[0] += 1
    counts[-1] += 1
    return counts


def degrees(devices: int, max_tp: int) -> Iterator[tuple[int, int, int]]:
    """Yield every (dp, pp, tp) whose product is `devices`, in the original's order."""
    for pp in range(1, devices + 1):
        for tp in range(1, max_tp + 1):
            dp = devices // tp // pp
            if dp * pp * tp == devices:
                yield dp, pp, tp


def uniform_plans(problem: Problem) -> list[UniformPlan]:
    """Return every uniform plan of a one-type cluster, in the original's order."""
    if len(problem.node_types) != 1:
        raise InputError(
            f"the homogeneous estimator takes one device type, the cluster has"
            f" {', '.join(problem.node_types)}; use method metis, stratified or optimal"
        )
    device, batch = problem.node_types[0], problem.model.global_batch
    plans, known = list[UniformPlan](), _Known(problem)
    for dp, pp, tp in degrees(problem.devices, problem.max_tp):
        if pp > problem.model.layers - 2:
            continue
        plans += [
            _estimate(known, device, (dp, pp, tp), mbs)
            for mbs in problem.profiles.batch_sizes(device, tp)
            if mbs <= batch // dp and batch % mbs == 0
        ]
    return plans


class _Known:
    """Sums over layer ranges and bandwidths, each worked out once."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.lookup = problem, ProfileTables(problem.profiles)
        self.ranks = problem.ranks(problem.node_types)
        self._between = dict[int, _Bandwidths]()

    def bandwidths(self, stages: int) -> "_Bandwidths":
        if stages not in self._between:
            self._between[stages] = _bandwidths(self.problem, self.ranks, stages)
        return self._between[stages]


def _estimate(known: _Known, device: str, degree: tuple[int, int, int], mbs: int) -> UniformPlan:
    dp, pp, tp = degree
    problem = known.problem
    profiles, layers = problem.profiles, problem.model.layers
    entry = profiles[ProfileKey(device, tp, mbs)]
    split = [0, *(int(c) for c in np.cumsum(uniform_layers(layers, pp)))]
    bounds = list(pairwise(split))
    times = known.lookup.sums("time", device, tp, mbs)
    batches = problem.model.global_batch // mbs // dp
    first = profiles[next(iter(profiles))]
    largest = max(
        cost.original_parameters(first.parameters_bytes, tp=tp, first=a, end=e) for a, e in bounds
    )
    bandwidths = known.bandwidths(pp)
    terms = cost.combine(
        batches=batches,
        execution=[float(times[a, e]) for a, e in bounds],
        sends=[
            cost.send_ms(_amount(problem, mbs, tp, e), bandwidth=bandwidths.between)
            for _, e in bounds[:-1]
        ],
        sends_every_batch=False,
        sync_ms=entry.sync_ms,
        updates=[problem.switches.updates * first.optimizer_ms / pp / tp],
        allreduces=[cost.allreduce_ms(largest, dp=dp, bandwidth=bandwidths.inside)],
        batch_generator_ms=first.batch_generator_ms,
    )
    memory = known.lookup.sums("memory", device, tp, mbs)
    stage_memory = tuple(float(memory[a, e]) for a, e in bounds)
    capacity = min(node.memory_mb for node in problem.cluster.machines())
    return UniformPlan(
        dp, pp, tp, mbs, terms.total, tuple(split), stage_memory, max(stage_memory) <= capacity
    )


class _Bandwidths(NamedTuple):
    inside: float
    """GB/s of a stage's gradient all-reduce."""
    between: float
    """GB/s between neighbouring stages."""


def _bandwidths(problem: Problem, ranks: Ranks, stages: int) -> _Bandwidths:
    size = problem.devices // stages
    spans = [ranks.node_span(s * size, size) for s in range(stages)]
    intra, inter = ranks.bandwidths(0, problem.devices)
    if problem.switches.intra_bandwidth_only:
        inter = intra
    one_node = len(ranks.nodes) == 1
    return _Bandwidths(
        inside=intra if all(low == high for low, high in spans) else inter,
        between=intra if one_node else inter,
    )


def _amount(problem: Problem, mbs: int, tp: int, end: int) -> float:
    model = problem.model
    if problem.switches.activations_in_elements and end == model.layers - 1:
        return mbs * model.sequence_length * model.vocabulary / tp
    elements = mbs * model.sequence_length * model.hidden_size
    if problem.switches.activations_in_elements:
        return float(elements)
    return float(cost.DIRECTIONS * cost.BYTES_PER_ELEMENT * elements)


def uniform_survivor(problem: Problem, plan: UniformPlan) -> RankedPlan | None:
    """Return a uniform plan in the form of the heterogeneous search, costed by its model.

    None where the strategy is not valid on this cluster (a tensor group across nodes, say), or
    where its micro-batches do not add up to the global batch, which the original lets pass.
    """
    if problem.model.global_batch % (plan.micro_batch * plan.dp):
        return None
    model = StageModel(problem, problem.ranks(problem.node_types))
    batches = problem.model.global_batch // plan.micro_batch // plan.dp
    size = plan.dp * plan.tp
    options = [model.option(s * size, size, plan.dp, plan.tp, batches) for s in range(plan.pp)]
    stages = tuple(option for option in options if option)
    if len(stages) < plan.pp or min(slacks(stages, plan.split, batches)) < 0:
        return None
    terms = stage_cost(stages, plan.split, problem, batches)
    strategies = ((plan.dp, plan.tp),) * plan.pp
    survivor = Survivor(strategies, plan.split, 1, 0, terms, stages)
    return RankedPlan(Layout(problem.node_types, (size,) * plan.pp), batches, survivor, model)


def best_uniform(problem: Problem) -> RankedPlan | None:
    """Return the first of the estimator's plans, cheapest first, that can be carried out."""
    plans = sorted(uniform_plans(problem), key=lambda plan: plan.cost_ms)
    return next((s for s in (uniform_survivor(problem, p) for p in plans) if s), None)
