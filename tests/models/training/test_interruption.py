from __future__ import annotations

import os
import signal

import pytest

from models.training.interruption import interruptible


@pytest.fixture(autouse=True)
def _hangup_is_not_ignored():
    """Under nohup the tests themselves would inherit an ignored signal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_a_request(number):
    with interruptible() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        assert stop()


def test_the_second_ctrl_c_is_not_a_request():
    with interruptible() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop()


def test_a_second_sigterm_stays_a_request():
    with interruptible() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()


def test_former_handlers_come_back_whatever_happened():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def fail() -> None:
        with interruptible():
            assert signal.getsignal(signal.SIGINT) is not before[0]
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_under_nohup_a_lost_terminal_is_no_request():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
