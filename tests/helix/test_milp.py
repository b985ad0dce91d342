"""The paper's MILP: sizes as published, known placements as solutions, solved and verified."""

import csv
from pathlib import Path

import numpy as np
import pytest

from common.errors import InputError
from helix.inputs.cluster import Cluster
from helix.inputs.generate import CLUSTERS, even
from helix.inputs.model import Model, known_models
from helix.inputs.profile import shipped_profiles
from helix.plan.milp import decoded, faults, milp, start_vector
from helix.plan.milp_matrices import MilpOptions, milp_matrices
from helix.plan.placement import wired
from helix.plan.pruning import Pruning, pruned
from helix.plan.solvers import SolverName
from helix.plan.solvers_gurobi import gurobi_licence
from helix.plan.solvers_matrix import BINARY, INTEGER, REAL
from helix.plan.solvers_result import Settings
from helix.plan.throughput import Throughput, throughput
from tests.helix.golden_inputs import SHIPPED, shipped_intervals, situation

SIZES = list(
    csv.DictReader(
        Path(__file__).parents[1].joinpath("golden/helix/milp_sizes.csv").read_text().splitlines()
    )
)
PARTS = {"a100x4": "A100", "l4x8": "L4", "t4x12": "T4"}
MODELS = {"llama70b": "llama2_70b", "llama30b": "llama1_30b"}
FORMS = [
    MilpOptions(partial=partial, remove_redundant=removed, cap=cap)
    for partial in (False, True)
    for removed in (False, True)
    for cap in (False, True)
]


def problem_of(row: dict[str, str]) -> tuple[Cluster, Model, Throughput, MilpOptions]:
    where, model_name = row["problem"].split()[:2]
    cluster = CLUSTERS["single24" if where in PARTS else where]()
    if where in PARTS:
        cluster = cluster.of_kind(PARTS[where])
    name = MODELS[model_name]
    model = known_models()[name]
    speed = throughput(model, shipped_profiles(name), cluster.kind_counts())
    if "pruned" in row["problem"]:
        cluster = pruned(cluster, Pruning(compat=True))
    removed = "full" not in row["problem"] and "all" not in row["problem"]
    partial = row["partial_inference"] == "yes"
    return cluster, model, speed, MilpOptions(partial=partial, remove_redundant=removed)


@pytest.mark.parametrize("row", SIZES, ids=lambda r: f"{r['problem']} {r['partial_inference']}")
def test_sizes_are_those_of_the_artifact(row: dict[str, str]) -> None:
    matrices = milp_matrices(*problem_of(row)).matrices
    kinds = "/".join(str(matrices.count(kind)) for kind in (INTEGER, REAL, BINARY))
    assert (matrices.variables, kinds) == (int(row["variables"]), row["int/real/bin"])
    assert matrices.constraints == int(row["constraints"])
    assert matrices.nonzeros == int(row["nonzeros"])


def test_columns_stand_in_the_artifacts_order() -> None:
    cluster, model, speed, options = problem_of(
        next(row for row in SIZES if row["problem"] == "het42 llama70b pruned(12,12)")
    )
    names = milp_matrices(cluster, model, speed, options).matrices.names
    assert names[:2] == ("start_0", "start_1")
    first = names.index("hold_0_1")
    assert names[first : first + 5] == ("hold_0_1", "hold_0_2", "hold_0_3", "hold_0_4", "hold_1_1")
    first = names.index("flow_source_30")
    assert names[first + 12 : first + 14] == ("flow_30_sink", "flow_31_sink")
    assert names[first + 24 : first + 27] == ("flow_0_36", "flow_36_0", "flow_0_37")


@pytest.mark.parametrize("shipped", SHIPPED)
def test_known_placements_are_solutions_with_the_artifacts_objective(shipped: str) -> None:
    cluster, model, _, speed = situation(shipped)
    intervals = shipped_intervals(shipped)
    for form in (FORMS[2], FORMS[4], FORMS[-1]):
        problem = milp_matrices(cluster, model, speed, form)
        x = start_vector(problem, cluster, model.layers, intervals, form)
        key = "milp_objective_partial" if form.partial else "milp_objective_nopartial"
        assert problem.matrices.costs @ x == pytest.approx(SHIPPED[shipped][key], abs=1e-3)
        assert problem.matrices.violation(x) < 1e-5
        assert tuple(decoded(problem, x)) == intervals
        assert faults(problem, cluster, model.layers, x, form) == []


def test_faults_of_a_solution_are_named() -> None:
    shipped = "single.llama30b.ilp.a100"
    cluster, model, _, speed = situation(shipped)
    options = MilpOptions()
    problem = milp_matrices(cluster, model, speed, options)
    right = start_vector(problem, cluster, model.layers, shipped_intervals(shipped), options)
    ends = {(link.tail, link.head): n for n, link in enumerate(cluster.links)}

    def broken(changes: dict[int, float]) -> str:
        x = right.copy()
        x[list(changes)] = list(changes.values())
        assert problem.matrices.violation(x) > 1e-3
        return "; ".join(faults(problem, cluster, model.layers, x, options))

    back = problem.columns.flow[ends[3, 2]]
    said = broken({back: 5.0})
    assert "5.000 tokens/s on link 1 to 0, where no layers match" in said
    assert "flow both ways on link 0 to 1" in said
    assert "node 0 gets 1049.533 tokens/s and passes on 1044.533" in said
    assert "node 0 gets 1049.533 tokens/s, more than it can do" in said
    assert "node 3 holds layers 50 to 65 of 60" in broken({problem.columns.start[3]: 50.0})


def small(kind: str) -> tuple[Cluster, Model, Throughput]:
    cluster, model, _, speed = situation(f"single.llama30b.ilp.{kind}")
    return cluster, model, speed


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_highs_proves_the_optimum_of_four_machines_in_every_form(form: MilpOptions) -> None:
    cluster, model, speed = small("a100")
    start = wired(model.layers, shipped_intervals("single.llama30b.separate.a100"), cluster.links)
    settings = Settings(max_run_time=20, close=1.0)
    plan = milp(cluster, model, speed, form, settings, start=start)
    assert plan.start == pytest.approx(1044.533, abs=1e-3)
    assert plan.flow == pytest.approx(1044.533, abs=1e-3)
    assert plan.bound == pytest.approx(plan.flow, rel=1e-3)
    assert plan.faults == ()
    assert plan.solved.ended in ("optimal", "near bound")


@pytest.mark.gurobi
def test_gurobi_agrees_with_highs_on_a_small_problem() -> None:
    pytest.importorskip("gurobipy", reason="gurobipy is not installed")
    if gurobi_licence().kind == "none":
        pytest.skip(gurobi_licence().text)
    cluster, model, speed = small("a100")
    solvers: list[SolverName] = ["highs", "gurobi"]
    settings = Settings(max_run_time=20)
    flows = [milp(cluster, model, speed, settings=settings, solver=s).flow for s in solvers]
    assert flows == pytest.approx([1044.533, 1044.533], abs=1e-3)


def test_the_warm_start_of_single24_is_kept_and_the_cap_bounds_it() -> None:
    shipped = "single.llama70b.petals"
    cluster, model, _, speed = situation(shipped)
    start = wired(model.layers, shipped_intervals(shipped), cluster.links)
    options = MilpOptions(cap=True)
    plan = milp(cluster, model, speed, options, Settings(max_run_time=1), start=start)
    assert plan.start == pytest.approx(531.703, abs=1e-3)
    assert plan.start <= plan.flow <= plan.bound * (1 + 1e-9)
    assert plan.bound == pytest.approx(2045.641, abs=1e-3)
    assert plan.solved.bound < 2100
    assert plan.faults == ()


def test_pruning_keeps_the_warm_start_unless_it_is_compat() -> None:
    shipped = "het.llama70b.swarm"
    cluster, model, _, speed = situation(shipped)
    start = wired(model.layers, shipped_intervals(shipped), cluster.links)
    flows = dict[bool, float]()
    for compat in (False, True):
        pruning = Pruning(compat=compat)
        small = pruned(cluster, pruning, () if compat else start.links)
        options = MilpOptions(pruning=pruning)
        problem = milp_matrices(small, model, speed, options)
        x = start_vector(problem, small, model.layers, start.intervals, options)
        flows[compat] = float(problem.matrices.costs @ x)
    assert flows == {False: pytest.approx(4892.242, abs=1e-3), True: 0.0}


def test_unused_machines_of_a_start_hold_the_first_layer() -> None:
    cluster, model, speed = small("a100")
    options = MilpOptions()
    problem = milp_matrices(cluster, model, speed, options)
    x = start_vector(problem, cluster, model.layers, [(0, 15), (0, 0), (15, 30), (0, 0)], options)
    assert decoded(problem, x) == [(0, 15), (0, 1), (15, 30), (0, 1)]
    assert problem.matrices.violation(x) < 1e-6
    assert np.isfinite(x).all()


def test_a_model_that_does_not_fit_is_refused() -> None:
    _, model, _, speed = situation("single.llama30b.swarm")
    with pytest.raises(InputError, match="60 layers do not fit; the machines hold 36"):
        milp(even({"A100": 2}), model, speed)
