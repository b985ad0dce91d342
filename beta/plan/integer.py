"""Placements by integer programs, solved by HiGHS (AlpaServe's repository; not in its figures).

Both maximise the least tolerance, capacity over rate, of any model, then the sum of tolerances.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from beta.inputs.profile import SINGLE, Config
from beta.plan.partition import alone_s
from beta.plan.placement import Group, Placement
from beta.plan.problem import Problem, Scored, score
from common.errors import InputError

TIME_LIMIT_S = 30.0
NODES_S, SLOWER = 100, 4
"""Nodes that a search tree may grow by in a second; a machine may be so many times slower."""
SUM_SHARE = 1e-4
"""Worth of the sum of tolerances beside the least one."""
MENU = (Config(1, 1), Config(1, 2), Config(1, 4), Config(1, 8))
DEPTH_LOSS = 0.99
"""Share of capacity that each stage of a pipeline keeps."""


class _Program:
    """Rows and columns for HiGHS; rows are lists of (column, coefficient)."""

    def __init__(self) -> None:
        self.cost, self.upper, self.integer = list[float](), list[float](), list[bool]()
        self.rows = list[tuple[float, float, list[tuple[int, float]]]]()

    def column(self, cost: float = 0.0, upper: float = np.inf, *, integer: bool = False) -> int:
        self.cost.append(cost)
        self.upper.append(upper)
        self.integer.append(integer)
        return len(self.cost) - 1

    def row(self, low: float, high: float, terms: Sequence[tuple[int, float]]) -> None:
        self.rows.append((low, high, [*terms]))

    def solve(self, time_limit_s: float) -> list[float]:
        """Return the columns' values at the maximum."""
        import highspy

        solver: Any = highspy.Highs()
        solver.setOptionValue("output_flag", False)
        # Counted in nodes, so that the answer is the same on any machine that is not much slower.
        solver.setOptionValue("mip_max_nodes", max(int(NODES_S * time_limit_s), 1))
        solver.setOptionValue("time_limit", SLOWER * time_limit_s)
        solver.setOptionValue("threads", 1)
        for cost, upper, integer in zip(self.cost, self.upper, self.integer, strict=True):
            solver.addVar(0.0, upper)
            column = solver.getNumCol() - 1
            solver.changeColCost(column, cost)
            if integer:
                solver.changeColIntegrality(column, highspy.HighsVarType.kInteger)
        for low, high, terms in self.rows:
            columns = np.array([column for column, _ in terms], np.int32)
            solver.addRow(low, high, len(terms), columns, np.array([value for _, value in terms]))
        solver.changeObjectiveSense(highspy.ObjSense.kMaximize)
        solver.run()
        values = [float(value) for value in solver.getSolution().col_value]
        if not values or not solver.getInfo().primal_solution_status:
            raise InputError(f"HiGHS found no placement in {time_limit_s:g} s; allow more time")
        return values


class Tolerances(NamedTuple):
    """How much of its rate each model's replicas can take: least, and sum."""

    least: float
    total: float


def tolerances(problem: Problem, placement: Placement) -> Tolerances:
    """Return what `sr-ilp` maximises, for replicas on single devices."""
    replicas = [0] * len(problem.models)
    for group in placement.groups:
        for m in group.models:
            replicas[m] += 1
    each = [
        count / (alone_s(model) * model.rate)
        for count, model in zip(replicas, problem.models, strict=True)
    ]
    return Tolerances(min(each), sum(each))


def replicated_by_program(problem: Problem, time_limit_s: float = TIME_LIMIT_S) -> Scored:
    """Return replicas on single devices that maximise the least tolerance: `sr-ilp`."""
    _need_rates(problem)
    program, models = _Program(), problem.models
    least = program.column(1.0)
    placed = [
        [
            program.column(SUM_SHARE / (alone_s(model) * model.rate), 1.0, integer=True)
            for model in models
        ]
        for _ in range(problem.cluster.devices)
    ]
    weight = [model.profile.memory_bytes(SINGLE) / problem.cluster.memory_bytes for model in models]
    for row in placed:
        program.row(-np.inf, 1.0, [(p, w) for p, w in zip(row, weight, strict=True) if w < np.inf])
    for m, model in enumerate(models):
        each = 1 / (alone_s(model) * model.rate)
        program.row(0.0, np.inf, [(least, -1.0), *((row[m], each) for row in placed)])
        if weight[m] == np.inf:
            program.row(0.0, 0.0, [(row[m], 1.0) for row in placed])
    values = program.solve(time_limit_s)
    groups = [
        Group(SINGLE, tuple(m for m, p in enumerate(row) if values[p] > 0.5)) for row in placed
    ]
    return score(problem, Placement(tuple(groups)))


def piped_by_program(problem: Problem, time_limit_s: float = TIME_LIMIT_S) -> Scored:
    """Return pipelines and replicas that maximise the least capacity over rate: `mp-ilp`.

    Memory is each device's, by a model's heaviest stage; the original takes the weight on one
    device against the memory of the group together, which single devices may not hold.
    """
    _need_rates(problem)
    program, models, slots = _Program(), problem.models, problem.cluster.devices
    least = program.column(1.0)
    chosen = [[program.column(0.0, 1.0, integer=True) for _ in MENU] for _ in range(slots)]
    on = [
        [[program.column(0.0, 1.0, integer=True) for _ in MENU] for _ in models]
        for _ in range(slots)
    ]
    sizes = [
        (column, float(c.devices)) for row in chosen for column, c in zip(row, MENU, strict=True)
    ]
    program.row(-np.inf, float(slots), sizes)
    for slot in range(slots):
        program.row(-np.inf, 1.0, [(column, 1.0) for column in chosen[slot]])
        for i, config in enumerate(MENU):
            _fit(program, problem, chosen[slot][i], [row[i] for row in on[slot]], config)
    for m, model in enumerate(models):
        terms = [
            (on[slot][m][i], _capacity(problem, m, config) / model.rate)
            for slot in range(slots)
            for i, config in enumerate(MENU)
        ]
        program.row(0.0, np.inf, [(least, -1.0), *terms])
        for column, value in terms:
            program.cost[column] = SUM_SHARE * value
    values = program.solve(time_limit_s)
    groups = [
        Group(config, tuple(m for m in range(len(models)) if values[on[slot][m][i]] > 0.5))
        for slot in range(slots)
        for i, config in enumerate(MENU)
        if values[chosen[slot][i]] > 0.5
    ]
    return score(problem, Placement(tuple(groups)))


def _fit(
    program: _Program, problem: Problem, chosen: int, on: Sequence[int], config: Config
) -> None:
    """Allow models on a slot under a config only if it is chosen, as memory holds them."""
    terms = list[tuple[int, float]]()
    for column, model in zip(on, problem.models, strict=True):
        program.row(-np.inf, 0.0, [(column, 1.0), (chosen, -1.0)])
        weight = model.profile.memory_bytes(config) / problem.cluster.memory_bytes
        if weight < np.inf:
            terms.append((column, weight))
        else:
            program.row(0.0, 0.0, [(column, 1.0)])
    program.row(-np.inf, 0.0, [*terms, (chosen, -1.0)])


def _capacity(problem: Problem, m: int, config: Config) -> float:
    """Return requests that one group can answer within the SLO, less a loss per stage."""
    model = problem.models[m]
    record = model.profile.records.get(config)
    if record is None:
        return 0.0
    best = 0.0
    for batch, stages in record.stage_s.items():
        slack = min(model.slo_s, 1e6) - sum(stages)
        if slack >= 0:
            best = max(best, batch * (slack // max(stages) + 1))
    return best * DEPTH_LOSS**config.pp


def _need_rates(problem: Problem) -> None:
    idle = [model.name for model in problem.models if not model.rate > 0]
    if idle:
        raise InputError(f"integer programs need a positive rate of every model, not {idle}")
