from __future__ import annotations

import pytest

from service.observability.trace_control import TraceControl, TraceSettings


def traced(control: TraceControl, calls: int, model: str = "m", *, has_parent: bool = False) -> list[int]:
    """Which of so many calls are traced."""
    return [number for number in range(1, calls + 1) if control.wants(model, has_parent=has_parent)]


def test_with_something_to_trace_with_every_call_is_traced() -> None:
    assert traced(TraceControl(is_available=True), 3) == [1, 2, 3]
    assert traced(TraceControl(is_available=False), 3) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"is_on": False}, []),
        ({"rate": 3}, [3, 6, 9]),
        ({"count": 2}, [1, 2]),
        ({"rate": 4, "count": 1}, [4]),
        ({"count": 0}, []),
    ],
)
def test_rate_and_count_choose_calls(changes, expected) -> None:
    control = TraceControl(is_available=True)
    control.update("", changes)
    assert traced(control, 10) == expected


def test_a_call_of_a_traced_caller_is_traced_whatever_rate_and_count_say_but_for_off() -> None:
    control = TraceControl(is_available=True)
    control.update("", {"rate": 100, "count": 0})
    assert traced(control, 3, has_parent=True) == [1, 2, 3]
    control.update("", {"is_on": False})
    assert traced(control, 3, has_parent=True) == []


def test_what_is_left_of_a_count_can_be_read() -> None:
    control = TraceControl(is_available=True)
    control.update("", {"count": 5})
    traced(control, 3)
    assert control.settings() == TraceSettings(is_on=True, rate=1, count=2)
    control.update("", {"count": None})
    assert control.settings().count == -1


def test_a_model_has_its_own_and_takes_the_rest_from_the_server() -> None:
    control = TraceControl(is_available=True)
    control.update("m", {"rate": 2})
    control.update("", {"count": 2})
    assert control.settings("m") == TraceSettings(is_on=True, rate=2, count=2)
    assert control.settings("other") == control.settings() == TraceSettings(is_on=True, rate=1, count=2)
    assert traced(control, 10) == [2, 4]
    assert traced(control, 10, "other") == [1, 2]
    control.update("m", {"rate": None})
    assert control.settings("m") == control.settings()
    control.update("m", {"is_on": None})
    assert control.settings("m") == control.settings()
