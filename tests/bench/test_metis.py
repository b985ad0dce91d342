"""Speed and memory of Metis against its targets (`make bench`); never part of the test run.

Targets, on 2 cores: row 4 in one policy under 10 s of wall time with start-up and a warm kernel
cache (published: 757 s and 408 s on an Apple M1), row 2 under 1 s of search, row 4's optimum under
2 s, less than 500 MB.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from metis.experiments import published_table, strict, table1
from metis.plan.methods import make_problem
from metis.plan.optimal import optimal
from metis.plan.problem import POLICIES, Policy, Problem
from metis.plan.search import search
from metis.plan.wider import wider

ROOT = Path(__file__).parents[2]


def problem(row: int, mode: str = "compat") -> Problem:
    published = published_table().row[row - 1]
    experiment = table1(published) if mode == "compat" else strict(published)
    cluster = experiment.load_cluster()
    return make_problem(experiment, cluster, experiment.load_profiles(cluster, Path()))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("row", [1, 2, 3, 4])
@pytest.mark.benchmark(group="metis search, compat")
def test_search(benchmark: BenchmarkFixture, row: int, policy: Policy) -> None:
    case, published = problem(row), published_table().row[row - 1]
    result = benchmark.pedantic(search, (case, policy), rounds=3, iterations=1, warmup_rounds=1)
    cell = published.metis if policy == "metis" else published.stratified
    assert result.steps == cell.count
    benchmark.extra_info |= {"steps": result.steps, "published_s": cell.wall_ms / 1000}


@pytest.mark.parametrize("row", [1, 3])
@pytest.mark.benchmark(group="metis search, readable engine")
def test_readable_search(benchmark: BenchmarkFixture, row: int) -> None:
    case = problem(row)
    benchmark.pedantic(search, (case, "metis"), {"engine": "readable"}, rounds=1, iterations=1)


@pytest.mark.parametrize("mode", ["compat", "strict"])
@pytest.mark.parametrize("row", [2, 4])
@pytest.mark.benchmark(group="metis optimal")
def test_optimal(benchmark: BenchmarkFixture, row: int, mode: str) -> None:
    case = problem(row, mode)
    found = benchmark.pedantic(optimal, (case,), rounds=3, iterations=1, warmup_rounds=1)
    assert found.proven
    benchmark.extra_info |= {"layouts_walked": found.layouts_walked, "cells": found.cells}


@pytest.mark.parametrize("mode", ["compat", "strict"])
@pytest.mark.parametrize("row", [2, 4])
@pytest.mark.benchmark(group="metis wider")
def test_wider(benchmark: BenchmarkFixture, row: int, mode: str) -> None:
    case = problem(row, mode)
    found = benchmark.pedantic(wider, (case,), rounds=1, iterations=1, warmup_rounds=1)
    assert found.plan is not None
    gap = found.plan.cost_ms / found.lower_bound_ms - 1
    benchmark.extra_info |= {"parts": found.parts, "gap_percent": 100 * gap}


@pytest.mark.parametrize(("row", "method"), [(2, "metis"), (4, "metis"), (4, "stratified")])
@pytest.mark.benchmark(group="metis plan, whole process")
def test_whole_process(benchmark: BenchmarkFixture, tmp_path: Path, row: int, method: str) -> None:
    name = f"table1-row{row}"
    command = [sys.executable, "-m", "metis", "plan", name, "--method", method, "--out"]

    def plan() -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([*command, str(tmp_path)], env=environment, check=True, capture_output=True)

    benchmark.pedantic(plan, rounds=2, iterations=1, warmup_rounds=1)
    record = json.loads((tmp_path / "metis/own.jsonl").read_text().splitlines()[-1])
    benchmark.extra_info |= {"peak_rss_mb": record["peak_rss"] / 1e6}
