"""Request lengths and traces against the artifact's; traces of one's own."""

from pathlib import Path

import pytest

from common.errors import InputError
from helix.inputs.requests import (
    Arrival,
    azure_counts,
    azure_lengths,
    drawn_lengths,
    generated_arrivals,
    read_arrivals,
    servable,
)
from tests.helix.golden_inputs import GOLDEN

TRACES = {name: trace for name, trace in GOLDEN["traces"].items() if name.startswith("avg")}


@pytest.mark.parametrize("name", TRACES)
def test_generated_traces_are_the_artifacts(name: str) -> None:
    golden = TRACES[name]
    rate, start = (int("".join(filter(str.isdigit, part))) for part in name.split("_")[:2])
    arrivals = generated_arrivals(rate, 1800, 0, shuffled=True)
    assert len(arrivals) == golden["n"]
    rows = [[start + a.time_s, a.input, a.output] for a in arrivals]
    for ours, theirs in zip(
        [*rows[:5], rows[-1]], [*golden["first5"], golden["last"]], strict=True
    ):
        assert ours == pytest.approx(theirs, rel=1e-14)
    assert sum(a.input for a in arrivals) == golden["sum_in"]
    assert sum(a.output for a in arrivals) == golden["sum_out"]


def test_drawn_lengths_are_the_artifacts() -> None:
    lengths = [[q.input, q.output] for q in drawn_lengths(10)]
    assert lengths == GOLDEN["traces"]["length_sampler_seed0_first10"]
    assert len(azure_lengths()) == sum(azure_counts()) == 16657


def test_a_trace_in_order_keeps_the_mean_rate_and_the_bursts() -> None:
    arrivals = generated_arrivals(2000, 3600, 3)
    offered = sum(a.input + a.output for a in arrivals) / 3600
    assert offered == pytest.approx(2000, rel=0.03)
    per_interval = [0] * 1200
    for arrival in arrivals:
        per_interval[int(arrival.time_s / 3)] += 1
    scale = sum(per_interval) / sum(azure_counts())
    wanted = [count * scale for count in azure_counts()]
    turned = min(
        sum(abs(a - b) for a, b in zip(per_interval, wanted[k:] + wanted[:k], strict=True))
        for k in range(1200)
    )
    assert turned < 0.6 * 1200  # the recorded hour, begun somewhere, but for rounding


def test_own_traces_are_read_in_order_of_time(tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text("arrival,input,output\n12.5,100,20\n10,2000,5000\n11,3,9\n")
    arrivals = read_arrivals(own)
    assert arrivals == [Arrival(0.0, 2000, 5000), Arrival(1.0, 3, 9), Arrival(2.5, 100, 20)]
    assert servable(arrivals) == [Arrival(2.5, 100, 20)]


def test_azure_traces_are_read_as_published(tmp_path: Path) -> None:
    azure = tmp_path / "azure.csv"
    azure.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    )
    first, second = read_arrivals(azure)
    assert first == Arrival(0.0, 374, 44)
    assert second.time_s == pytest.approx(4.314579, abs=2e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arrival,input,output\n", "holds no requests"),
        ("arrival,input\n1,2\n", "line 2: expected a time and two whole numbers"),
        ("arrival,input,output\n1,2.5,3\n", "line 2: expected a time and two whole numbers"),
        ("arrival,input,output\nnan,2,3\n", "expected a finite time and at least one token"),
        ("arrival,input,output\n1,0,3\n", "expected a finite time and at least one token"),
    ],
)
def test_malformed_traces_are_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_arrivals(path)


def test_a_missing_trace_and_a_rate_of_nothing_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as a trace"):
        read_arrivals(tmp_path / "none.csv")
    with pytest.raises(InputError, match="expected both above 0"):
        generated_arrivals(0, 10)
