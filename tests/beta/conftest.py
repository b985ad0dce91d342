"""Time for the tests of Beta on a machine that does other work: a limit only finds what hangs."""

from pathlib import Path

import pytest

HERE, SECONDS = Path(__file__).parent, 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test here that says nothing of it a longer limit: kernels compile, cores wait."""
    for item in items:
        if HERE in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SECONDS))
