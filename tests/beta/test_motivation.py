"""Section 3's figures against the original's code, run again for them."""

import csv

import pytest

from beta.inputs.profile import read_profiles
from beta.paper.grid import points
from beta.paper.motivation import most_communication, most_unevenness, pipelined, sharded
from beta.paper.points import answer
from beta.paper.section3 import OVERHEADS
from beta.paper.suites import OVERHEAD
from beta.paper.sweeps import grids
from common.artifact import Case
from tests.beta.golden_inputs import GOLDEN

FIGURES = {
    "fig2_case1": "fig2-even",
    "fig2_case2": "fig2-uneven",
    "fig2_case3": "fig2-bursty",
    "fig4_case2_mp": "fig4",
    "fig4_case2_sr": "fig4",
    "fig5_rate": "fig5",
    "fig6_cv": "fig6",
    "fig7a_slo": "fig7",
    **{f"fig7b_alpha_{overhead}": f"fig7b-{overhead}" for overhead in OVERHEADS},
}


def golden() -> dict[tuple[str, float, str], tuple[float, float]]:
    found = {}
    for row in csv.DictReader((GOLDEN / "motivation_points.csv").read_text().splitlines()):
        if row["figure"] in FIGURES:
            x = round(float(row["x"] or 2), 4)
            key = (FIGURES[row["figure"]], x, row["policy"])
            found[key] = (float(row["slo_attainment"]), float(row["latency_mean_s"]))
    return found


def wrong(cases: list[Case]) -> list[Case]:
    expect, found = golden(), []
    for case in cases:
        method, x = case.experiment.placement.method, round(float(case.marks["x"]), 4)
        key = (case.experiment.name, x, method)
        if key in expect:
            values = {m.name: m.value for m in answer(case.experiment)}
            mine = values["attainment"], values["latency.with_refused"]
            if mine != pytest.approx(expect[key], abs=1.1e-5):
                found.append(case)
    return found


def cases(name: str) -> list[Case]:
    return list(points(grids()[name]))


@pytest.mark.parametrize(
    "name", ["fig2-even", "fig2-uneven", "fig2-bursty", "fig5", "fig7", *OVERHEAD]
)
def test_points_equal_the_originals(name: str):
    assert wrong(cases(name)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fig4", "fig6"])
def test_longer_points_equal_the_originals(name: str):
    assert wrong(cases(name)) == []


@pytest.mark.parametrize("r", [0.01, 0.3, 1.0, 1.5, 1.9])
def test_at_the_largest_overheads_both_ways_wait_alike(r: float):
    replicas = 1 + r / (4 - 2 * r)
    x, y = most_communication(r), most_unevenness(r)
    assert x + r * x**2 / (8 - 4 * r * x) == pytest.approx(replicas)
    assert 1 + r * y**2 / (8 - 4 * r * y) == pytest.approx(replicas)
    assert 1 < x < 4 / 3
    assert 1 < y < 2


def test_splitting_costs_what_the_profile_says():
    profile = read_profiles()["bert-2.6b"]
    piped, cut = pipelined(profile, 8), sharded(profile, 8)
    assert piped.latency_s == pytest.approx(0.2464, abs=1e-4)
    assert piped.throughput == pytest.approx(1 / 0.0334, rel=2e-3)
    assert cut.latency_s == pytest.approx(0.0643, abs=1e-4)
    assert cut.communication_s == pytest.approx(0.0643 - 0.2376 / 8, abs=1e-4)
