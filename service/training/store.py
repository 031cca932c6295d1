"""Runs and their events in one SQLite file, which several processes of one machine share.

Runs and events are reported to callers only after they were written. The file is in write-ahead mode, so that readers
and the one writer do not block each other, and a process that is killed in the middle of a change leaves the state
before it. Changes of a run's state are synced to disk; events, which come ten times a second, are not: they survive
the death of a process, but a power cut loses the latest.

On a full disk, changes that free space or end a run are still written, into space held in reserve.

The methods block; call them from one thread.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sqlite3
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from service.errors import (
    OperationNotDone,
    OperationNotFound,
    RequestIdReused,
    TrainingQueueFull,
    TrainingStoreBusy,
    TrainingStoreFull,
)
from service.training import failures
from service.training.request import RunSpec
from service.training.reserve import Reserve
from service.training.run import Condition, Failure, Run, RunState, StoredEvent
from service.training.snapshot import folded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

P = ParamSpec("P")
T = TypeVar("T")

FORMAT = 1
MOST_DONE = 1000
"""Most operations of finished runs that are kept; older ones are deleted with their events."""
_BUSY_S = 5.0
_WAL_PAGES = 64
"""Pages of 4 KiB in the log before it is merged into the file; SQLite's default of 1,000 would take 4 MB."""
_SCHEMA = """
CREATE TABLE runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    request_id TEXT UNIQUE,
    request BLOB NOT NULL,
    spec TEXT NOT NULL,
    network TEXT NOT NULL,
    recipe TEXT NOT NULL,
    model TEXT NOT NULL,
    state TEXT NOT NULL,
    is_cancelling INTEGER NOT NULL DEFAULT 0,
    created_s REAL NOT NULL,
    started_s REAL,
    ended_s REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    last_event INTEGER NOT NULL DEFAULT 0,
    snapshot TEXT NOT NULL DEFAULT '{}',
    result TEXT,
    failure TEXT
);
CREATE INDEX runs_by_state ON runs (state, number);
CREATE TABLE events (
    run INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    time_s REAL NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (run, number)
) WITHOUT ROWID;
"""
_AHEAD = "(SELECT count(*) FROM runs q WHERE q.state = 'QUEUED' AND q.number < runs.number) AS ahead"
_QUEUED, _RUNNING = RunState.QUEUED.value, RunState.RUNNING.value


class StoreFormatError(Exception):
    """The file has the format of another version of this program."""


def _with_room(
    *, from_reserve: bool
) -> Callable[[Callable[Concatenate[Store, P], T]], Callable[Concatenate[Store, P], T]]:
    """Decorate a change to be retried once on a full disk, after freeing space, with ``from_reserve`` the reserve's."""

    def wrap(method: Callable[Concatenate[Store, P], T]) -> Callable[Concatenate[Store, P], T]:
        @functools.wraps(method)
        def again(self: Store, /, *args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return method(self, *args, **kwargs)
            except TrainingStoreFull:
                self._make_room(from_reserve=from_reserve)
                return method(self, *args, **kwargs)

        return again

    return wrap


class Store:
    """The file of runs, opened on construction; raises OSError, sqlite3.Error or StoreFormatError if that fails."""

    def __init__(self, path: Path, on_end: Callable[[Run], None] = lambda _: None) -> None:
        """``on_end`` is called with each run whose end was written by this object."""
        self._on_end = on_end
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        self._reserve = Reserve(path.with_name(f"{path.name}-reserve"))
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
            self._connection.execute(f"PRAGMA journal_size_limit = {_WAL_PAGES * 4096}")
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._prepare(path)
        except BaseException:
            self._connection.close()
            raise
        self._reserve.keep()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _prepare(self, path: Path) -> None:
        with self._change():
            (found,) = self._connection.execute("PRAGMA user_version").fetchone()
            if found == FORMAT:
                return
            if found:
                raise StoreFormatError(f"{path} has format {found}, this program reads {FORMAT}")
            for statement in _SCHEMA.split(";\n"):
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {FORMAT}")

    # ---- for any process -----------------------------------------------------------------------------------------

    @_with_room(from_reserve=False)
    def create(self, run_id: str, spec: RunSpec, request: bytes, *, request_id: str, most_queued: int) -> Run:
        """Queue a run; for a ``request_id`` that was used before, return the run that it created.

        Raises:
            TrainingQueueFull: ``most_queued`` runs wait already.
            RequestIdReused: the id was used with another ``request``.
        """
        self._reserve.keep()
        with self._change(force=True):
            if request_id:
                known = self._row("request_id = ?", request_id)
                if known is not None:
                    if known["request"] != request:
                        raise RequestIdReused(
                            f"request_id {request_id!r} came with another request before", field="request_id"
                        )
                    return _run(known)
            (waiting,) = self._connection.execute("SELECT count(*) FROM runs WHERE state = ?", (_QUEUED,)).fetchone()
            if waiting >= most_queued:
                raise TrainingQueueFull(f"{waiting} training runs wait already, as many as may (--training-queue-size)")
            now_s = time.time()
            self._connection.execute(
                "INSERT INTO runs (run_id, request_id, request, spec, network, recipe, model, state, created_s) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(run_id, request_id or None, request, json.dumps(spec.to_dict()), spec.network),
                    *(spec.recipe_name, spec.publish_name, _QUEUED, now_s),
                ),
            )
            self._add_events(run_id, [{"event": "queued"}])
            self._forget_old()
            return self.get(run_id)

    def get(self, run_id: str) -> Run:
        """Return the current state of a run; raises OperationNotFound."""
        row = self._row("run_id = ?", run_id)
        if row is None:
            raise OperationNotFound(f"there is no operation 'operations/{run_id[:200]}'", field="name")
        return _run(row)

    def page(self, conditions: Sequence[Condition], *, before: int | None, limit: int) -> list[Run]:
        """Return at most ``limit`` runs that meet all conditions, newest first, all older than number ``before``."""
        where, values = ["1"], list[Any]()
        for condition in conditions:
            # Column names come from the parser's table of fields, values are bound.
            where.append(f"{condition.column} {'=' if condition.is_equal else '<>'} ?")
            values.append(condition.value)
        if before is not None:
            where.append("number < ?")
            values.append(before)
        rows = self._connection.execute(
            f"SELECT *, {_AHEAD} FROM runs WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT ?",  # noqa: S608 - see above
            (*values, limit),
        )
        return [_run(row) for row in rows]

    @_with_room(from_reserve=True)
    def request_cancel(self, run_id: str) -> Run:
        """Ask a run to stop; one that is done stays as it is. Raises OperationNotFound.

        A run that has never begun ends at once. Any other is ended by the leader, which knows what it has done.
        """
        with self._change(force=True):
            run = self.get(run_id)
            if run.state.is_done or run.is_cancelling:
                return run
            self._connection.execute("UPDATE runs SET is_cancelling = 1 WHERE run_id = ?", (run_id,))
            self._add_events(run_id, [{"event": "cancel_requested"}])
            if run.state is RunState.QUEUED and not run.attempts:
                self._end(run_id, RunState.CANCELLED, failure=cancelled())
            run = self.get(run_id)
        if run.state.is_done:
            self._on_end(run)
        return run

    @_with_room(from_reserve=True)
    def delete(self, run_id: str) -> None:
        """Delete a run that is done; raises OperationNotFound, OperationNotDone."""
        with self._change(force=True):
            run = self.get(run_id)
            if not run.state.is_done:
                raise OperationNotDone(f"operations/{run_id} is {run.state.value}: cancel it, or wait until it is done")
            self._connection.execute("DELETE FROM runs WHERE run_id = ?", (run_id,))

    def events(self, run_id: str, *, first: int, limit: int) -> list[StoredEvent]:
        """Return at most ``limit`` events from number ``first`` on; raises OperationNotFound."""
        rows = self._connection.execute(
            "SELECT number, time_s, body FROM events WHERE run = ? AND number >= ? ORDER BY number LIMIT ?",
            (self.get(run_id).number, first, limit),
        )
        return [StoredEvent(row["number"], row["time_s"], json.loads(row["body"])) for row in rows]

    def active(self) -> list[Run]:
        """Return every run that is not done, oldest first."""
        rows = self._connection.execute(
            f"SELECT *, {_AHEAD} FROM runs WHERE state IN (?, ?) ORDER BY number",  # noqa: S608 - constants
            (_QUEUED, _RUNNING),
        )
        return [_run(row) for row in rows]

    # ---- for the leader ------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Queue the runs again that a former process was running."""
        for run in self.active():
            if run.state is RunState.RUNNING:
                self.requeue(run.run_id, "the server went away")

    @_with_room(from_reserve=False)
    def begin(self, run_id: str) -> Run:
        """Mark a run as running; one that was cancelled just before stays done."""
        self._reserve.keep()
        with self._change(force=True):
            run = self.get(run_id)
            if run.state.is_done:
                return run
            attempt = run.attempts + 1
            self._connection.execute(
                "UPDATE runs SET state = ?, attempts = ?, started_s = coalesce(started_s, ?) WHERE run_id = ?",
                (_RUNNING, attempt, time.time(), run_id),
            )
            self._add_events(run_id, [{"event": "attempt_started", "attempt": attempt}])
            return self.get(run_id)

    @_with_room(from_reserve=False)
    def add_events(self, run_id: str, bodies: Sequence[Mapping[str, Any]]) -> None:
        """Store events of a run."""
        with self._change():
            self._add_events(run_id, bodies)

    @_with_room(from_reserve=True)
    def requeue(self, run_id: str, reason: str) -> None:
        """Queue a run again whose process has ended before the run was done."""
        with self._change(force=True):
            if self.get(run_id).state.is_done:
                return
            self._add_events(run_id, [{"event": "attempt_ended", "reason": reason}])
            self._connection.execute("UPDATE runs SET state = ? WHERE run_id = ?", (_QUEUED, run_id))

    @_with_room(from_reserve=True)
    def end(
        self,
        run_id: str,
        state: RunState,
        *,
        result: Mapping[str, Any] | None = None,
        failure: Failure | None = None,
    ) -> Run:
        """Store the end of a run; one that is done already does not change."""
        with self._change(force=True):
            if (run := self.get(run_id)).state.is_done:
                return run
            self._end(run_id, state, result=result, failure=failure)
            run = self.get(run_id)
        self._on_end(run)
        return run

    # ---- within a change -----------------------------------------------------------------------------------------

    def _end(
        self,
        run_id: str,
        state: RunState,
        *,
        result: Mapping[str, Any] | None = None,
        failure: Failure | None = None,
    ) -> None:
        plain = None if failure is None else asdict(failure)
        self._add_events(run_id, [{"event": "done", "state": state.value, "result": result, "failure": plain}])
        self._connection.execute(
            "UPDATE runs SET state = ?, is_cancelling = 0, ended_s = ?, result = ?, failure = ? WHERE run_id = ?",
            (state.value, time.time(), _json(result), _json(plain), run_id),
        )

    def _add_events(self, run_id: str, bodies: Sequence[Mapping[str, Any]]) -> None:
        run, now_s = self.get(run_id), time.time()
        snapshot = run.snapshot
        for number, body in enumerate(bodies, start=run.last_event + 1):
            snapshot = folded(snapshot, body)
            self._connection.execute(
                "INSERT INTO events (run, number, time_s, body) VALUES (?, ?, ?, ?)",
                (run.number, number, now_s, json.dumps(body)),
            )
        self._connection.execute(
            "UPDATE runs SET snapshot = ?, last_event = ? WHERE number = ?",
            (json.dumps(snapshot), run.last_event + len(bodies), run.number),
        )

    def _forget_old(self) -> None:
        self._connection.execute(
            "DELETE FROM runs WHERE number IN (SELECT number FROM runs WHERE state NOT IN (?, ?) "
            "ORDER BY number DESC LIMIT -1 OFFSET ?)",
            (_QUEUED, _RUNNING, MOST_DONE),
        )

    def _row(self, where: str, value: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._connection.execute(
            f"SELECT *, {_AHEAD} FROM runs WHERE {where}",  # noqa: S608 - constants of this module
            (value,),
        ).fetchone()
        return row

    def _make_room(self, *, from_reserve: bool) -> None:
        """Free space: give up the reserve if allowed, then merge the write-ahead log into the file and truncate it."""
        if from_reserve:
            self._reserve.give_up()
        with contextlib.suppress(sqlite3.OperationalError):  # no space for that either, or a reader is active
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @contextlib.contextmanager
    def _change(self, *, force: bool = False) -> Iterator[None]:
        """Run the block as one transaction; with ``force`` it survives a power cut, too.

        Raises:
            TrainingStoreFull, TrainingStoreBusy: nothing was changed.
        """
        try:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if force else 'NORMAL'}")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            raise _told(error) from error


def cancelled() -> Failure:
    """The failure of a run that was cancelled."""
    return Failure(1, "the run was cancelled", failures.CANCELLED)


def _told(error: sqlite3.OperationalError) -> Exception:
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary == sqlite3.SQLITE_BUSY:
        return TrainingStoreBusy(f"another process has locked the file of training runs for over {_BUSY_S:g} s")
    # A full disk gives SQLITE_FULL, or SQLITE_IOERR where a limit of file size is hit.
    if primary in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return TrainingStoreFull(f"the file of training runs cannot be written: {error}")
    return error


def _run(row: sqlite3.Row) -> Run:
    failure, result = (None if row[name] is None else json.loads(row[name]) for name in ("failure", "result"))
    return Run(
        number=row["number"],
        run_id=row["run_id"],
        spec=RunSpec(**json.loads(row["spec"])),
        state=RunState(row["state"]),
        is_cancelling=bool(row["is_cancelling"]),
        created_s=row["created_s"],
        started_s=row["started_s"],
        ended_s=row["ended_s"],
        attempts=row["attempts"],
        last_event=row["last_event"],
        snapshot=json.loads(row["snapshot"]),
        result=result,
        failure=None if failure is None else Failure(**failure),
        ahead=row["ahead"] if row["state"] == _QUEUED else 0,
    )


def _json(value: object) -> str | None:
    return None if value is None else json.dumps(value)
