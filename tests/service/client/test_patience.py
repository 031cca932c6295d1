from __future__ import annotations

import pytest

from service.client.errors import ServerError
from service.client.patience import Pauses, Waiting
from service.errors import Code

AWAY = ServerError(Code.UNAVAILABLE, "away")


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("service.client.patience.time.monotonic", lambda: now[0])
    return now


def test_pauses_grow_and_end_with_patience(clock) -> None:
    pauses, taken = Pauses(10.0), []
    while pauses.may_pass(AWAY):
        taken.append(pauses.next_s())
        clock[0] += taken[-1]
    assert taken == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("code", [Code.NOT_FOUND, Code.DEADLINE_EXCEEDED, Code.INTERNAL])
def test_what_does_not_pass_is_not_waited_for(code) -> None:
    assert not Pauses(10.0).may_pass(ServerError(code, ""))


def test_without_patience_nothing_is_waited_for() -> None:
    assert not Pauses(0.0).may_pass(AWAY)


def test_each_wait_is_half_of_what_a_call_may_take_and_the_last_one_what_is_left(clock) -> None:
    waiting, taken = Waiting(25.0, call_timeout_s=20.0), []
    while not waiting.is_over:
        taken.append(waiting.next_s())
        clock[0] += taken[-1]
    assert taken == [10.0, 10.0, 5.0]
    clock[0] += 1
    assert waiting.next_s() == 0.0


def test_waiting_for_ever_is_never_over(clock) -> None:
    waiting = Waiting(None, call_timeout_s=20.0)
    clock[0] += 1e6
    assert waiting.next_s() == 10.0
    assert not waiting.is_over
