"""Metis: compiled searches beside the readable engine and full enumeration (`make bench`)."""

import json
from pathlib import Path

import pytest

from metis.paper.experiments import published_table, strict, table1
from metis.plan.methods import make_problem
from metis.plan.optimal import optimal
from metis.plan.problem import POLICIES, Policy, Problem
from metis.plan.search import search
from metis.plan.wider import wider
from tests.bench.yardstick import Table, Yardstick, start_up, whole_process

pytestmark = pytest.mark.timeout(600)
SAMPLE = 40
"""Layouts that the readable engine walks, spread over all."""


def problem(row: int, mode: str = "compat") -> Problem:
    published = published_table().row[row - 1]
    experiment = table1(published) if mode == "compat" else strict(published)
    cluster = experiment.load_cluster()
    return make_problem(experiment, cluster, experiment.load_profiles(cluster, Path()))


@pytest.mark.parametrize(
    ("row", "policy", "at_least"),
    [
        (1, "metis", 0.8),
        (1, "stratified", 0.8),
        (2, "metis", 30),
        (2, "stratified", 20),
        (3, "metis", 2),
        (3, "stratified", 1.4),
        (4, "metis", 90),
        (4, "stratified", 80),
    ],
)
def test_a_step_of_the_search_beside_the_readable_engines(
    table: Table, row: int, policy: Policy, at_least: float
) -> None:
    """Building the tables takes most of rows 1 and 3.

    Measured, metis and stratified: row 1 2.4 and 2.0, row 2 96 to 107 and 53, row 3 6.3 and 3.5,
    row 4 240 to 250 and 196 to 201.
    """
    case, published = problem(row), published_table().row[row - 1]
    cell = published.metis if policy == "metis" else published.stratified
    layouts = case.layouts()
    some = layouts[:: max(1, len(layouts) // SAMPLE)]
    steps = search(case, policy, layouts=some).steps
    readable = Yardstick(
        f"readable engine, {steps:,} steps",
        lambda: search(case, policy, engine="readable", layouts=some),
        steps,
    )
    table.compare(
        f"metis: search, row {row}, {policy}",
        lambda: search(case, policy, workers=1),
        readable,
        at_least=at_least,
        work=lambda result: {"steps": result.steps},
        exactly={"steps": cell.count},
        per="steps",
    )


@pytest.mark.parametrize(
    ("row", "mode", "cells", "walked", "at_least"),
    [
        (2, "compat", 120, 10, 1),
        (2, "strict", 94, 179, 1.3),
        (4, "compat", 135, 5, 4),
        (4, "strict", 80, 7432, 2),
    ],
)
def test_the_proved_optimum_beside_both_searches(
    table: Table, row: int, mode: str, cells: int, walked: int, at_least: float
) -> None:
    """Measured: 2.6 and 3.3 (row 2), 8.6 to 11 and 5.2 (row 4)."""
    case = problem(row, mode)
    both = Yardstick(
        "search by both policies", lambda: [search(case, policy, workers=1) for policy in POLICIES]
    )
    found = table.compare(
        f"metis: optimal, row {row}, {mode}",
        lambda: optimal(case),
        both,
        at_least=at_least,
        work=lambda one: {"cells": one.cells, "layouts walked": one.layouts_walked},
        exactly={"cells": cells, "layouts walked": walked},
    )
    assert found.proven


@pytest.mark.parametrize(
    ("row", "mode", "parts", "at_least"),
    [
        (2, "compat", 2, 0.06),
        (2, "strict", 26, 0.08),
    ],
)
def test_the_wider_space_beside_the_optimum_of_the_papers(
    table: Table, row: int, mode: str, parts: int, at_least: float
) -> None:
    """Measured: 0.18 to 0.20, 0.21 to 0.24."""
    case = problem(row, mode)
    found = table.compare(
        f"metis: wider, row {row}, {mode}",
        lambda: wider(case),
        Yardstick("optimal", lambda: optimal(case)),
        at_least=at_least,
        work=lambda one: {"parts": one.parts},
        exactly={"parts": parts},
    )
    assert found.finished
    assert found.plan is not None


@pytest.mark.parametrize(
    ("row", "method", "at_least"),
    [(2, "metis", 0.1), (4, "metis", 0.035), (4, "stratified", 0.06)],
)
def test_a_whole_process_beside_a_bare_start(
    table: Table, tmp_path: Path, row: int, method: str, at_least: float
) -> None:
    """Measured: 0.20 to 0.24, 0.08 to 0.12, 0.14; 200 to 225 MB."""
    asked = ["plan", f"table1-row{row}", "--method", method, "--out", str(tmp_path)]
    name = f"metis: plan, row {row}, {method}, whole process"
    table.compare(
        name,
        lambda: whole_process("-m", "metis", *asked),
        start_up("numba"),
        at_least=at_least,
        work=lambda _: {"plan": 1},
        exactly={"plan": 1},
    )
    record = json.loads((tmp_path / "metis/own.jsonl").read_text().splitlines()[-1])
    table.fact(f"{name}: peak memory", record["peak_rss"] / 1e6, 500, "MB")
