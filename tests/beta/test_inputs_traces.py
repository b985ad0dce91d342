"""Traces: replays against the original's, Azure's file formats, stand-ins."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from beta.inputs.azure import minutes_of, read_2019, read_2021
from beta.inputs.replay import (
    Counts,
    Replay,
    Stamps,
    gamma_shape,
    owners,
    raw_stamps,
    replay_counts,
    replay_stamps,
)
from beta.inputs.stand_in import HOUR_INVOCATIONS, counts_2019, stamps_2021
from common.errors import InputError
from tests.beta.golden_inputs import cases

MEANS = (50, 5, 0, 200, 1, 20, 0.02, 80)
SIZES = (400, 30, 0, 1500, 3, 1, 90, 700)
DAY = 86_400.0


def golden_traces() -> tuple[Counts, Stamps]:
    random = np.random.RandomState(42)
    counts = np.array([random.poisson(mean, 180) for mean in MEANS])
    stamps = tuple(np.sort(random.uniform(0, DAY, size)) for size in SIZES)
    return Counts(counts[:, :60]), Stamps(stamps, DAY)


def assert_replay(found: Replay, name: str, rel: float, length_s: float):
    for i, (_, expect) in enumerate(sorted(cases("trace")[name]["expect"].items())):
        arrivals, windows = found.arrivals[i], found.windows[i]
        assert len(arrivals) == expect["n"]
        assert arrivals[:3] == pytest.approx(expect["first"], rel=rel)
        assert arrivals.sum() == pytest.approx(expect["sum"], rel=rel)
        assert len(arrivals) / length_s == pytest.approx(expect["rate"], rel=1e-9)
        gaps = np.diff(arrivals)
        assert gaps.std() / (gaps.mean() + 1e-5) == pytest.approx(expect["cv"], rel=rel)
        assert windows.count(None) == expect["n_windows_none"]
        for window, params in zip(windows, expect["params_first"], strict=False):
            assert window == (None if params is None else pytest.approx(params, rel=rel))


def test_counts_are_replayed_as_the_original_does():
    found = replay_counts(golden_traces()[0], 3, rate_scale=0.02, cv_scale=4)
    assert_replay(found, "trace_v1_gamma", 1e-9, 3600)
    assert len(found.workload()) == sum(map(len, found.arrivals))


def test_stamps_are_replayed_as_the_original_does():
    found = replay_stamps(golden_traces()[1], 3, rate_scale=2, cv_scale=1.5, window_s=5400)
    assert_replay(found, "trace_v2_gamma", 1e-4, DAY)


def test_raw_stamps_are_the_trace_itself():
    trace = golden_traces()[1]
    found = raw_stamps(trace, 3, time_scale=2, copies=2, mapping="round_robin")
    assert sum(map(len, found.arrivals)) == 2 * sum(SIZES)
    assert found.arrivals[0].max() == max(trace.arrivals[0].max(), *trace.arrivals[1:4:2][0]) / 2


def test_functions_go_to_models_in_turn_or_in_blocks():
    assert list(owners(7, 3)) == [0, 1, 2, 0, 1, 2, 0]
    assert list(owners(7, 3, "round_robin")) == [0, 0, 0, 1, 1, 2, 2]
    with pytest.raises(InputError, match="2 active functions for 3 models"):
        owners(2, 3)


@pytest.mark.parametrize("shape", [0.05, 0.4, 1.0, 7.0])
def test_fitted_shape_is_the_most_likely(shape: float):
    gaps = np.random.default_rng(3).gamma(shape, 2.0, 4000) + 1e-6
    found = gamma_shape(gaps)
    assert found is not None

    def likelihood(k: float) -> float:
        from math import lgamma

        scale = gaps.mean() / k
        return ((k - 1) * np.log(gaps) - gaps / scale).mean() - lgamma(k) - k * np.log(scale)

    assert likelihood(found) >= max(likelihood(found * 0.999), likelihood(found * 1.001))


def test_equal_gaps_have_no_fit():
    assert gamma_shape([2.0, 2.0, 2.0]) is None


def write_2019(folder: Path, day: int, counts: dict[str, dict[int, int]]) -> None:
    lines = ["HashOwner,HashApp,HashFunction,Trigger," + ",".join(map(str, range(1, 1441)))]
    for name, minutes in counts.items():
        cells = [str(minutes.get(minute, 0)) for minute in range(1440)]
        lines.append(f"o,a,{name},http," + ",".join(cells))
    (folder / f"invocations_per_function_md.anon.d{day:02d}.csv").write_text("\n".join(lines))


def test_2019_files_are_read_across_days_in_order_of_first_appearance(tmp_path: Path):
    write_2019(tmp_path, 1, {"late": {0: 9}, "f": {1439: 4}})
    write_2019(tmp_path, 2, {"f": {1: 2}, "new": {0: 3}, "late": {1: 7}})
    found = read_2019(tmp_path, "0.23.59", "1.0.2").per_minute
    assert found.tolist() == [[0, 0, 7], [4, 0, 2], [0, 3, 0]]
    with pytest.raises(InputError, match=r"d03\.csv: no such file"):
        read_2019(tmp_path, "2.0.0", "2.1.0")
    with pytest.raises(InputError, match="no invocation"):
        read_2019(tmp_path, "0.1.0", "0.2.0")


def test_2021_file_gives_arrivals_sorted_and_cut(tmp_path: Path):
    path = tmp_path / "trace.txt"
    path.write_text("app,func,end_timestamp,duration\na,f,70,5\na,g,62,1.5\na,f,61,1\na,f,59,1\n")
    found = read_2021(path, "0.0.1", "0.0.2")
    assert [list(times) for times in found.arrivals] == [[0.0, 5.0], [0.5]]


@pytest.mark.parametrize("row", ["a,f,x,5", "a,f,7", "a,f,nan,5", "a,f,", "\0\xff"])
def test_damaged_lines_of_2021_are_named(tmp_path: Path, row: str):
    path = tmp_path / "trace.txt"
    path.write_text(f"app,func,end_timestamp,duration\na,f,70,5\n{row}\n", encoding="latin-1")
    with pytest.raises(InputError, match=r"trace\.txt: line 3: "):
        read_2021(path, "0.0.0", "0.0.1")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda line: line[: len(line) // 2], "columns, expected 1444"),
        (lambda line: line + ",1", "1445 columns"),
        (lambda line: line.replace(",7,", ",-7,"), "counts of 0 to"),
        (lambda line: line.replace(",7,", ",99999999999,"), "counts of 0 to"),
        (lambda line: line.replace(",7,", ",,"), "invalid literal"),
        (lambda line: line.replace(",7,", ",1.5,"), "invalid literal"),
        (lambda _: "x", "1 columns"),
    ],
)
def test_damaged_lines_of_2019_are_named(
    tmp_path: Path, damage: Callable[[str], str], message: str
):
    write_2019(tmp_path, 1, {"f": {0: 7, 1: 1}, "g": {0: 7, 1: 7}})
    (path,) = tmp_path.iterdir()
    head, first, second = path.read_text().splitlines()
    path.write_text("\n".join([head, first, "", damage(second)]))
    with pytest.raises(InputError, match=rf"d01\.csv: line 4: .*{message}"):
        read_2019(tmp_path, "0.0.0", "0.1.0")


def test_times_are_day_hour_minute():
    assert minutes_of("13.23.60") == 14 * 1440
    with pytest.raises(InputError, match=r"day\.hour\.minute"):
        minutes_of("12:30")
    with pytest.raises(InputError, match=r"minute 0\.\.60"):
        minutes_of("0.24.0")


def test_stand_ins_say_so_and_have_the_traces_size():
    counts = counts_2019()
    assert counts.stand_in
    assert counts.per_minute.sum() == pytest.approx(HOUR_INVOCATIONS, rel=0.02)
    stamps = stamps_2021()
    assert stamps.stand_in
    assert len(stamps.arrivals) == 424


def test_a_slice_of_the_stand_in_of_2021_is_cut_from_its_day():
    whole, hour = stamps_2021(), stamps_2021(13 * 1440 + 60, 13 * 1440 + 120)
    assert hour.length_s == 3600
    times = whole.arrivals[5]
    expect = times[(times >= 3600) & (times < 7200)] - 3600
    assert hour.arrivals[5].tolist() == expect.tolist()
    with pytest.raises(InputError, match="stand-in of one day"):
        stamps_2021(13 * 1440, 15 * 1440)


def test_exponential_replays_have_cv_one_whatever_the_scale():
    counts, stamps = golden_traces()
    for found in (
        replay_counts(counts, 3, rate_scale=0.02, cv_scale=4, cv_one=True),
        replay_stamps(stamps, 3, rate_scale=2, cv_scale=4, window_s=5400, cv_one=True),
    ):
        assert {window.cv for row in found.windows for window in row if window} == {1.0}
