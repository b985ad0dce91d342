"""What holds for every test: properties are judged by their facts, not by this machine's speed."""

import signal
import time

import pytest
from hypothesis import HealthCheck, settings

BEGIN = time.monotonic()

# A kernel that compiles on its first call, or a busy machine, is no fault of a property.
settings.register_profile("quintet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quintet")

# A shell starts background jobs deaf to Ctrl-C, which is tested here, and our processes inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a check of limited time say what it had no time for."""
    parser.addoption(
        "--within", type=float, default=float("inf"), metavar="S",
        help="skip, and say so, what has not begun S seconds after the start",
    )  # fmt: skip


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what begins too late."""
    within = item.config.getoption("--within")
    if time.monotonic() - BEGIN > within:
        pytest.skip(f"not begun within {within:g} s")
