"""The exact layer split and the data balancer, against brute force."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metis.plan.balance import min_max_split, split_samples

times = st.lists(st.integers(1, 9), min_size=3, max_size=7)
speeds = st.lists(st.sampled_from([1.0, 0.5, 0.2]), min_size=1, max_size=4)


def brute_force(layers: list[int], speed: list[float], room: list[int]) -> float | None:
    best = None
    for cuts in combinations(range(1, len(layers)), len(speed) - 1):
        split = (0, *cuts, len(layers))
        spans = [layers[split[s] : split[s + 1]] for s in range(len(speed))]
        if all(len(span) <= room[s] for s, span in enumerate(spans)):
            slowest = max(sum(span) / speed[s] for s, span in enumerate(spans))
            best = slowest if best is None else min(best, slowest)
    return best


@given(layers=times, speed=speeds, data=st.data())
def test_min_max_split_is_the_best_that_fits(
    layers: list[int], speed: list[float], data: st.DataObject
) -> None:
    speed = speed[: len(layers)]
    room = [data.draw(st.integers(1, len(layers))) for _ in speed]

    def time(s: int, first: int, end: int) -> float:
        return sum(layers[first:end]) / speed[s]

    split = min_max_split(
        len(layers), len(speed), time, lambda s, first, end: end - first <= room[s]
    )
    expected = brute_force(layers, speed, room)
    if expected is None:
        assert split is None
        return
    assert split is not None
    assert split[0] == 0
    assert split[-1] == len(layers)
    assert all(0 < split[s + 1] - split[s] <= room[s] for s in range(len(speed)))
    slowest = max(time(s, split[s], split[s + 1]) for s in range(len(speed)))
    assert slowest == pytest.approx(expected, rel=1e-9)


@given(speed=st.lists(st.floats(0.01, 10), min_size=1, max_size=8), samples=st.integers(0, 200))
def test_samples_are_all_dealt_within_one_of_the_exact_share(
    speed: list[float], samples: int
) -> None:
    shares = split_samples(speed, samples)
    assert sum(shares) == samples
    for share, value in zip(shares, speed, strict=True):
        assert abs(share - samples * value / sum(speed)) < 1 + 1e-9
