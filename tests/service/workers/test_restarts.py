from __future__ import annotations

from service.workers.restarts import Restarts


def test_after_a_good_life_the_next_start_is_at_once_and_then_the_pauses_grow_to_a_bound() -> None:
    restarts = Restarts()
    assert [restarts.pause_s(5.0) for _ in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]
    assert restarts.pause_s(61.0) == 0
    assert restarts.pause_s(59.0) == 1


def test_a_death_during_the_start_is_followed_by_a_pause_at_once_and_counted() -> None:
    restarts = Restarts()
    assert [restarts.pause_s(None) for _ in range(3)] == [1, 2, 4]
    assert restarts.failed_starts == 3
    assert not restarts.was_up
    restarts.came_up()
    assert restarts.failed_starts == 0
    assert restarts.was_up
