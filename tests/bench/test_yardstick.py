"""The yardstick itself: what is too slow or does other work fails, and stands in the table."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.yardstick import Table, Yardstick


def loop(count: int) -> Callable[[], int]:
    return lambda: sum(1 for _ in range(count))


def compare(table: Table, ours: int, theirs: int, at_least: float, expected: int) -> int:
    return table.compare(
        "loops",
        loop(ours),
        Yardstick(f"a loop of {theirs:,}", loop(theirs), theirs),
        at_least=at_least,
        work=lambda count: {"rounds": count},
        exactly={"rounds": expected},
        per="rounds",
    )


def test_the_same_loop_is_as_fast_per_round_whatever_its_length(tmp_path: Path) -> None:
    table = Table()
    assert compare(table, 20_000, 200_000, 0.5, 20_000) == 20_000
    table.fact("memory", 3, 5, "MB")
    table.write(tmp_path / "bench.md")
    text = (tmp_path / "bench.md").read_text()
    assert "| loops |" in text
    assert "a loop of 200,000" in text
    assert "20,000 rounds |" in text
    assert "| memory | 3 MB | 5 MB |" in text


def test_a_ratio_below_the_bound_fails_and_stands_in_the_table() -> None:
    table = Table()
    with pytest.raises(AssertionError, match="not 10 x"):
        compare(table, 20_000, 20_000, 10, 20_000)
    assert len(table.rows) == 1


def test_other_work_than_expected_fails() -> None:
    with pytest.raises(AssertionError, match="other work"):
        compare(Table(), 20_000, 20_000, 0.1, 20_001)


def test_more_than_a_fact_allows_fails() -> None:
    with pytest.raises(AssertionError, match="not 5 MB at most"):
        Table().fact("memory", 6, 5, "MB")
