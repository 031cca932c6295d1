from __future__ import annotations

import errno
import os
import resource
import sqlite3

import pytest

from models.training.recipes import recipe
from service.errors import OperationNotFound, TrainingQueueFull, TrainingStoreBusy, TrainingStoreFull
from service.training import store as store_module
from service.training.request import RunSpec
from service.training.reserve import RESERVE_BYTES, Reserve
from service.training.run import Condition, RunState
from service.training.store import Store, StoreFormatError, cancelled

SPEC = RunSpec(recipe("quick").to_dict(), "quick", "mnist1d-conv")
PROGRESS = {"event": "progress", "step": 1, "total_steps": 9, "loss": 2.0, "accuracy": 0.1, "steps_per_s": 1.0,
            "remaining_s": 8.0}  # fmt: skip


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "runs.sqlite3")
    yield opened
    opened.close()


def create(store: Store, run_id: str = "a"):
    return store.create(run_id, SPEC, b"", request_id="", most_queued=5000)


def events(store: Store, run_id: str = "a") -> list[str]:
    return [event.body["event"] for event in store.events(run_id, first=1, limit=100)]


def test_a_run_comes_back_as_it_was_kept(store, tmp_path) -> None:
    created = create(store)
    store.begin("a")
    store.add_events("a", [PROGRESS])
    other = Store(tmp_path / "runs.sqlite3")
    again = other.get("a")
    assert (again.spec, again.created_s) == (SPEC, created.created_s)
    assert (again.state, again.attempts, again.last_event) == (RunState.RUNNING, 1, 3)
    assert again.snapshot["loss"] == 2.0
    assert events(other) == ["queued", "attempt_started", "progress"]
    other.close()


def test_what_is_done_stays_so(store) -> None:
    create(store)
    ended = store.end("a", RunState.FAILED, failure=cancelled())
    assert store.end("a", RunState.SUCCEEDED, result={"model_name": "m"}) == ended
    assert store.request_cancel("a") == ended
    assert events(store) == ["queued", "done"]


def test_a_run_that_was_cancelled_just_before_it_gets_a_slot_is_not_begun(store) -> None:
    create(store)
    cancelled_run = store.request_cancel("a")
    assert cancelled_run.state is RunState.CANCELLED
    assert store.begin("a") == cancelled_run
    store.requeue("a", "the server stops")
    assert store.get("a") == cancelled_run
    assert events(store) == ["queued", "cancel_requested", "done"]


def test_a_run_that_has_begun_is_only_asked_to_stop(store) -> None:
    create(store)
    store.begin("a")
    store.requeue("a", "the server stops")
    assert store.request_cancel("a").state is RunState.QUEUED
    assert store.request_cancel("a").is_cancelling
    assert events(store).count("cancel_requested") == 1


def test_what_a_process_that_is_gone_was_running_waits_again(store) -> None:
    for run_id in "abc":
        create(store, run_id)
    store.begin("a")
    store.begin("b")
    store.end("b", RunState.FAILED, failure=cancelled())
    store.recover()
    assert [(run.run_id, run.state) for run in store.active()] == [("a", RunState.QUEUED), ("c", RunState.QUEUED)]
    assert events(store)[-1] == "attempt_ended"
    assert [run.ahead for run in store.active()] == [0, 1]


def test_the_oldest_that_are_done_are_forgotten_with_their_events(store, monkeypatch) -> None:
    monkeypatch.setattr(store_module, "MOST_DONE", 2)
    create(store, "waits")
    for run_id in "abc":
        create(store, run_id)
        store.end(run_id, RunState.FAILED, failure=cancelled())
    create(store, "d")
    assert [run.run_id for run in store.page([], before=None, limit=9)] == ["d", "c", "b", "waits"]
    with pytest.raises(OperationNotFound):
        store.events("a", first=1, limit=1)
    (count,) = store._connection.execute("SELECT count(*) FROM events WHERE run = 2").fetchone()
    assert count == 0


def test_a_deleted_run_takes_its_events_along_and_its_number_is_not_used_again(store) -> None:
    first = create(store)
    store.end("a", RunState.FAILED, failure=cancelled())
    store.delete("a")
    assert create(store, "b").number > first.number
    assert events(store, "b") == ["queued"]


def test_conditions_and_pages(store) -> None:
    for run_id in "abcd":
        create(store, run_id)
    store.begin("b")
    found = store.page([Condition("state", "QUEUED")], before=4, limit=1)
    assert [run.run_id for run in found] == ["c"]
    assert [run.run_id for run in store.page([Condition("state", "QUEUED", False)], before=None, limit=9)] == ["b"]


def test_the_queue_is_bounded(store) -> None:
    store.create("a", SPEC, b"", request_id="", most_queued=1)
    with pytest.raises(TrainingQueueFull, match="1 training runs wait already"):
        store.create("b", SPEC, b"", request_id="", most_queued=1)
    store.begin("a")
    store.create("b", SPEC, b"", request_id="", most_queued=1)


def test_a_full_disk_changes_nothing(store) -> None:
    create(store)
    before = store.get("a")
    # SQLite's own way to have no room.
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(TrainingStoreFull, match="full"):
        store.add_events("a", [PROGRESS] * 500)
    assert store.get("a") == before
    store._connection.execute("PRAGMA max_page_count = 100000")
    store.add_events("a", [PROGRESS] * 500)
    assert store.get("a").last_event == 501


def test_what_ends_a_run_or_makes_room_is_written_into_room_that_was_kept_for_it(store, tmp_path, monkeypatch) -> None:
    reserve, add = tmp_path / "runs.sqlite3-reserve", Store._add_events
    for run_id in "abc":
        create(store, run_id)
        store.begin(run_id)
    store.end("b", RunState.FAILED, failure=cancelled())

    def full_with_reserve(self, run_id, bodies) -> None:
        if reserve.exists():
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        add(self, run_id, bodies)

    monkeypatch.setattr(Store, "_add_events", full_with_reserve)
    with pytest.raises(TrainingStoreFull):
        store.add_events("a", [PROGRESS])
    with pytest.raises(TrainingStoreFull):
        create(store, "d")
    assert reserve.stat().st_blocks * 512 >= RESERVE_BYTES  # not for what can as well be refused
    assert store.end("a", RunState.FAILED, failure=cancelled()).state is RunState.FAILED
    assert not reserve.exists()
    monkeypatch.undo()
    store.delete("b")
    create(store, "e")
    assert reserve.stat().st_size == RESERVE_BYTES


def test_a_disk_without_room_for_a_reserve_is_left_without(tmp_path, monkeypatch) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        os.write(descriptor, b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    Reserve(tmp_path / "reserve").keep()
    assert list(tmp_path.iterdir()) == []


def test_the_write_ahead_log_stays_small(store, tmp_path) -> None:
    create(store)
    for _ in range(300):
        store.add_events("a", [PROGRESS] * 5)
        assert (tmp_path / "runs.sqlite3-wal").stat().st_size < 400_000


def test_a_log_that_may_not_grow_is_emptied_and_written_from_its_beginning(store, tmp_path) -> None:
    wal = tmp_path / "runs.sqlite3-wal"
    create(store)
    while wal.stat().st_size < 150_000:
        store.add_events("a", [PROGRESS])
    longest, usual = wal.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (longest, usual[1]))
    try:
        store.add_events("a", [PROGRESS])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert events(store)[-1] == "progress"
    assert wal.stat().st_size < longest


def test_a_file_that_another_process_keeps_locked_is_told_apart(store, tmp_path, monkeypatch) -> None:
    create(store)
    store._connection.execute("PRAGMA busy_timeout = 20")
    with sqlite3.connect(tmp_path / "runs.sqlite3", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TrainingStoreBusy):
            store.begin("a")
        assert store.get("a").state is RunState.QUEUED  # who reads does not wait
        other.execute("ROLLBACK")
    other.close()
    assert store.begin("a").state is RunState.RUNNING


def test_a_file_of_another_version_is_refused_and_left_as_it_is(tmp_path) -> None:
    path = tmp_path / "runs.sqlite3"
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(StoreFormatError, match="has format 99, this program reads 1"):
        Store(path)


def test_the_end_of_a_run_is_told_once_by_whoever_wrote_it(tmp_path) -> None:
    told = {"one": [], "two": []}
    one, two = (Store(tmp_path / "runs.sqlite3", on_end=told[name].append) for name in told)
    for run_id in ("a", "b", "c"):
        create(one, run_id)
    one.begin("a")
    one.request_cancel("a")
    two.request_cancel("b")
    assert [run.run_id for run in told["two"]] == ["b"]
    one.end("a", RunState.CANCELLED, failure=cancelled())
    two.end("a", RunState.FAILED, failure=cancelled())
    two.request_cancel("a")
    one.end("b", RunState.SUCCEEDED, result={})
    assert [(run.run_id, run.state, run.ended_s is not None) for run in told["one"]] == [
        ("a", RunState.CANCELLED, True)
    ]
    assert len(told["two"]) == 1
    one.close()
    two.close()
