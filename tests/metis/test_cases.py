"""Running suites."""

import signal

import pytest

from metis.cases import interruptible


def test_a_ctrl_c_that_got_lost_is_remembered() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as interrupted:
        assert not interrupted()
        # As in a finaliser, where Python drops the exception that the handler raises.
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert interrupted()
    assert signal.getsignal(signal.SIGINT) is before
