"""HiGHS and Gurobi on the same matrices: answers, limits, licences, Ctrl-C."""

import math
import os
import signal
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from helix.plan import solvers_gurobi
from helix.plan.solvers import SolverName, solve
from helix.plan.solvers_gurobi import LIMIT, Licence, gurobi_licence, licence_from
from helix.plan.solvers_matrix import BINARY, INTEGER, REAL, Builder, Matrices
from helix.plan.solvers_result import Settings, Watch
from tests.helix.hard_problem import hard_problem

gurobi = pytest.mark.gurobi


def needs_gurobi() -> None:
    pytest.importorskip("gurobipy", reason="gurobipy is not installed")
    if gurobi_licence().kind == "none":
        pytest.skip(gurobi_licence().text)


def knapsack(values: list[int], weights: list[int], room: int) -> Matrices:
    b = Builder()
    items = [b.column(f"item_{i}", BINARY, cost=value) for i, value in enumerate(values)]
    b.row([(item, weight) for item, weight in zip(items, weights, strict=True)], upper=room)
    return b.matrices()


def best_pack(values: list[int], weights: list[int], room: int) -> int:
    best = [0] * (room + 1)
    for value, weight in zip(values, weights, strict=True):
        for free in range(room, weight - 1, -1):
            best[free] = max(best[free], best[free - weight] + value)
    return best[room]


packs = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 9)), min_size=1, max_size=9)


@given(packs, st.integers(0, 30))
@settings(deadline=None, max_examples=40)
def test_highs_packs_as_well_as_a_dynamic_program(pack: list[tuple[int, int]], room: int) -> None:
    values, weights = ([item[side] for item in pack] for side in (0, 1))
    matrices = knapsack(values, weights, room)
    solved = solve(matrices)
    assert solved.ended == "optimal"
    assert solved.objective == pytest.approx(best_pack(values, weights, room))
    assert solved.bound == pytest.approx(solved.objective)
    assert solved.x is not None
    assert matrices.violation(solved.x) < 1e-6


@gurobi
@given(packs, st.integers(0, 30))
@settings(deadline=None, max_examples=20)
def test_gurobi_finds_what_highs_finds(pack: list[tuple[int, int]], room: int) -> None:
    needs_gurobi()
    matrices = knapsack([item[0] for item in pack], [item[1] for item in pack], room)
    theirs = solve(matrices, solver="gurobi")
    assert theirs.objective == pytest.approx(solve(matrices).objective)
    assert theirs.ended == "optimal"
    assert theirs.solver.startswith("Gurobi 13")


def equations() -> Matrices:
    """Return a problem with rows of every sort: x = 2y, y + z <= 5, x - z >= -1, z whole."""
    b = Builder()
    x, y, z = b.column("x", cost=1), b.column("y", upper=4), b.column("z", INTEGER, cost=2)
    b.row([(x, 1), (y, -2)], lower=0, upper=0)
    b.row([(y, 1), (z, 1)], upper=5)
    b.row([(x, 1), (z, -1)], lower=-1)
    return b.matrices()


@pytest.mark.parametrize("solver", ["highs", pytest.param("gurobi", marks=gurobi)])
def test_rows_of_every_sort_are_kept(solver: SolverName) -> None:
    if solver == "gurobi":
        needs_gurobi()
    solved = solve(equations(), solver=solver)
    assert solved.x is not None
    assert equations().violation(solved.x) < 1e-6
    assert solved.objective == pytest.approx(10)
    assert (equations().count(REAL), equations().count(INTEGER)) == (2, 1)


def test_a_problem_without_whole_numbers_is_solved_too() -> None:
    b = Builder()
    b.row([(b.column("x", cost=1), 2.0)], upper=3.0)
    solved = solve(b.matrices())
    assert (solved.objective, solved.bound, solved.ended) == (1.5, 1.5, "optimal")


@pytest.mark.parametrize("solver", ["highs", pytest.param("gurobi", marks=gurobi)])
def test_an_infeasible_problem_is_said_to_be_one(solver: SolverName) -> None:
    if solver == "gurobi":
        needs_gurobi()
    b = Builder()
    x = b.column("x", BINARY, cost=1)
    b.row([(x, 2.0)], lower=1.0, upper=1.0)
    solved = solve(b.matrices(), solver=solver)
    assert (solved.x, solved.objective, solved.ended) == (None, -math.inf, "infeasible")


@pytest.mark.parametrize("solver", ["highs", pytest.param("gurobi", marks=gurobi)])
def test_a_time_limit_is_kept_and_the_start_is_not_lost(solver: SolverName) -> None:
    if solver == "gurobi":
        needs_gurobi()
    matrices, start, value = hard_problem()
    solved = solve(matrices, Settings(max_run_time=0.5), solver=solver, start=start)
    assert solved.ended == "time"
    assert 0.4 < solved.seconds < 15  # of a minute and more
    assert value * (1 - 1e-9) <= solved.objective <= solved.bound
    assert solved.trace[0].best == pytest.approx(value)
    seconds = [point.seconds for point in solved.trace]
    assert seconds == sorted(seconds)
    bests = [point.best for point in solved.trace if point.best is not None]
    assert bests == sorted(bests)


@pytest.mark.parametrize("solver", ["highs", pytest.param("gurobi", marks=gurobi)])
def test_a_start_is_the_answer_where_there_was_no_time_for_it(solver: SolverName) -> None:
    if solver == "gurobi":
        needs_gurobi()
    matrices, start, value = hard_problem()
    solved = solve(matrices, Settings(max_run_time=1e-3), solver=solver, start=start)
    assert solved.objective == pytest.approx(value)
    assert solved.objective <= solved.bound


@pytest.mark.parametrize("solver", ["highs", pytest.param("gurobi", marks=gurobi)])
def test_control_c_keeps_what_was_found(solver: SolverName) -> None:
    if solver == "gurobi":
        needs_gurobi()
    matrices, start, value = hard_problem()
    ours = signal.signal(signal.SIGINT, signal.SIG_IGN)  # one that comes too early ends no test run
    over = threading.Event()

    def press() -> None:
        while not over.wait(0.5):  # again: a busy machine may not have begun to solve yet
            os.kill(os.getpid(), signal.SIGINT)

    pressing = threading.Thread(target=press)
    try:
        pressing.start()
        solved = solve(matrices, Settings(max_run_time=60), solver=solver, start=start)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        over.set()
        pressing.join()
        signal.signal(signal.SIGINT, ours)
    assert solved.ended == "interrupted"
    assert solved.seconds < 45
    assert solved.objective >= value * (1 - 1e-9)


@pytest.mark.parametrize("solver", ["highs", pytest.param("gurobi", marks=gurobi)])
def test_a_good_share_of_the_bound_ends_the_run_early(solver: SolverName) -> None:
    if solver == "gurobi":
        needs_gurobi()
    matrices, start, value = hard_problem()
    near = Settings(max_run_time=20, upper_bound=value, close=0.9)
    assert solve(matrices, near, solver=solver, start=start).ended == "near bound"
    enough = Settings(
        max_run_time=20, upper_bound=1.9 * value, threshold=0.5, early_stop_time=0.3, close=1.0
    )
    solved = solve(matrices, enough, solver=solver, start=start)
    assert solved.ended == "threshold"


def test_waiting_starts_again_with_every_better_answer() -> None:
    stop = Settings(upper_bound=100, threshold=0.5, early_stop_time=1e-9)
    watch = Watch(stop, lambda: False)
    assert not watch.see(40.0, math.inf)
    assert watch.see(60.0, 200.0) is False  # just found
    assert watch.see(60.0, 200.0) is True
    assert watch.ended == "threshold"
    assert [(p.best, p.bound) for p in watch.trace] == [(40.0, None), (60.0, 200.0)]


def test_a_partial_start_is_completed() -> None:
    start = np.array([math.nan, 2.0, 3.0])
    solved = solve(equations(), start=start)
    assert solved.objective == pytest.approx(10)


def test_the_same_seed_gives_the_same_answer() -> None:
    matrices = knapsack([7, 9, 4, 6], [3, 5, 2, 4], 8)
    first, second = (solve(matrices, Settings(seed=3)) for _ in range(2))
    assert first.x is not None
    assert second.x is not None
    assert first.x.tolist() == second.x.tolist()
    assert first.seed == 3


def test_the_number_of_threads_may_change_within_a_process() -> None:
    values = [solve(equations(), Settings(threads=n)).objective for n in (1, 2, 1)]
    assert values == pytest.approx([10, 10, 10])


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Restricted license - for non-production use only - expires 2027-11-29", "size-limited"),
        ("Academic license - for non-commercial use only - expires 2025-03-19", "academic"),
        ("Set parameter TokenServer to value somewhere", "full"),
    ],
)
def test_the_licence_is_known_by_gurobis_first_lines(said: str, kind: str) -> None:
    licence = licence_from(said)
    assert licence.kind == kind
    assert "\n" not in licence.text


def too_large() -> Matrices:
    b = Builder()
    for i in range(LIMIT + 1):
        b.row([(b.column(f"x_{i}", cost=1, upper=1), 1.0)], upper=1)
    return b.matrices()


def test_a_problem_too_large_for_the_licence_is_refused_in_a_sentence() -> None:
    small = licence_from("Restricted license")
    refusal = small.refusal(too_large())
    assert refusal is not None
    assert (
        "limited to 2000 variables and 2000 constraints; this problem has 2001 and 2001" in refusal
    )
    assert small.refusal(equations()) is None
    assert licence_from("Academic license").refusal(too_large()) is None


@pytest.mark.parametrize("licence", [Licence("none", "gurobi: no licence that works (expired)")])
def test_without_a_licence_gurobi_is_refused_and_auto_takes_highs(
    licence: Licence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solvers_gurobi, "gurobi_licence", lambda: licence)
    monkeypatch.setattr("helix.plan.solvers.gurobi_licence", lambda: licence)
    with pytest.raises(InputError, match="no licence that works"):
        solve(equations(), solver="gurobi")
    assert solve(equations(), solver="auto").solver.startswith("HiGHS")


@gurobi
def test_gurobi_with_the_packages_licence_refuses_large_problems() -> None:
    needs_gurobi()
    if gurobi_licence().kind != "size-limited":
        pytest.skip("a full licence is there")
    with pytest.raises(InputError, match="2001 and 2001"):
        solve(too_large(), solver="gurobi")
    assert solve(too_large(), solver="auto").objective == pytest.approx(LIMIT + 1)
    assert solve(equations(), solver="auto").licence == "size-limited"


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_run_time", 0), ("threshold", 1.5), ("close", 0), ("threads", 0), ("seed", -1)],
)
def test_limits_that_no_run_can_keep_are_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=field):
        Settings(**{field: value})
