"""Request lengths and traces against the artifact's; traces of one's own."""

import pytest

from common.errors import InputError
from helix.inputs.requests import (
    azure_counts,
    azure_lengths,
    drawn_lengths,
    generated_arrivals,
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


def test_a_rate_of_nothing_is_one_sentence() -> None:
    with pytest.raises(InputError, match="expected both above 0"):
        generated_arrivals(0, 10)
