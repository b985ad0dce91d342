"""The carried-over rows are the published ones; README and claims are made of the same."""

import csv
from pathlib import Path

import pytest

from common.report import claims_of
from vocab_parallel.artifact import ARTIFACT
from vocab_parallel.paper.experiments import suites
from vocab_parallel.paper.published import is_outlier, published

GOLDEN = Path(__file__).parents[1] / "golden/vocab_parallel"


def golden(name: str) -> list[dict[str, str]]:
    with (GOLDEN / name).open() as file:
        return list(csv.DictReader(file))


def test_table_5_is_carried_over_whole() -> None:
    expected = [
        (
            int(r["gpus"]),
            int(r["seq_len"]),
            r["method"],
            int(r["vocab"]),
            r["mfu_pct"],
            r["peak_GB"],
        )
        for r in golden("paper_table5_1f1b.csv")
    ]
    ours = published("paper-table5")
    assert [(r.ranks, r.sequence, r.method, r.vocabulary) for r in ours] == [
        row[:4] for row in expected
    ]
    assert [(r.mfu, r.memory) for r in ours] == [(float(m), float(g)) for *_, m, g in expected]


def test_table_6_is_carried_over_whole() -> None:
    names = {"baseline": "v-half", "vocab-1": "v-half-vocab-1"}
    ours = {
        (r.ranks, r.sequence, r.vocabulary, r.method): (r.mfu, r.memory)
        for r in published("paper-table6")
    }
    for row in (*golden("paper_table6_vhalf.csv"), *golden("paper_table6_vhalf_24gpu.csv")):
        key = int(row["gpus"]), int(row["seq_len"]), int(row["vocab"]), names[row["method"]]
        assert ours.pop(key) == (float(row["mfu_pct"]), float(row["peak_GB"]))
    assert not ours


def test_the_artifacts_rows_are_carried_over_whole() -> None:
    ours = {(r.sequence, r.vocabulary, r.method): (r.mfu, r.memory) for r in published("seed-full")}
    for row in golden("seed_full_exp_rows.csv"):
        key = int(row["seq_len"]), int(row["vocab"]), row["method"]
        assert ours.pop(key) == (float(row["mfu_pct"]), float(row["peak_reserved_GB"]))
    assert not ours
    for row in golden("quick_exp_rows.csv"):
        table = "seed-quick" if row["source"] == "seed document" else "artifact-quick"
        (found,) = [r for r in published(table) if r.method == row["method"]]
        assert (found.mfu, found.memory) == (float(row["mfu_pct"]), float(row["peak_reserved_GB"]))


def test_every_published_8_gpu_row_but_the_outlier_is_claimed() -> None:
    ids = {claim.id: claim for claim in claims_of(ARTIFACT)}
    for table, prefix in (("seed-full", "seed"), ("paper-table5", "paper")):
        for row in published(table):
            if row.ranks != 8:
                continue
            name = f"{prefix}-{row.sequence}-{row.vocabulary // 1000}k-{row.method}"
            if is_outlier(row):
                assert f"{name}-mfu" not in ids
                continue
            assert ids[f"{name}-mfu"].expected == row.mfu
            assert ids[f"{name}-memory"].expected == row.memory


@pytest.mark.parametrize("suite", sorted(suites()))
def test_every_claim_is_served_by_a_case_of_its_suites(suite: str) -> None:
    cases = {
        (case.experiment.name, case.verb, case.experiment.pipeline.method)
        for case in suites()[suite]
    }
    assert {experiment for experiment, _, _ in cases} <= set(ARTIFACT.named())
    for claim in claims_of(ARTIFACT):
        if suite in claim.suites:
            assert (claim.experiment, claim.case["verb"], claim.case["method"]) in cases, claim.id
