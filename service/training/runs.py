"""Create, list, wait for, watch and cancel runs, in any process of a server.

Runs are executed by `service.training.scheduler`; the two communicate through the store.
"""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from service.errors import InvalidRequest, OperationNotFound, ServerStopping
from service.training import filters
from service.training.request import checked
from service.training.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from service.pb import training_pb2 as pb
    from service.training.run import Run, StoredEvent

P = ParamSpec("P")
T = TypeVar("T")

LOOK_EVERY_S = 0.25
"""Interval in seconds of polling for changes by other processes; changes by this one are signalled at once."""
_EVENTS_AT_ONCE = 500
_ID_BYTES = 8


class Changes:
    """Wakes the tasks of this process that wait for a change of a run."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        """Wake all waiting tasks after a change."""
        self._event.set()
        self._event = asyncio.Event()

    def since_now(self) -> asyncio.Event:
        """An event that the next change sets. Get it before reading the store, so that no change is missed."""
        return self._event


class Runs:
    """The runs of one store. Belongs to one event loop; calls of the store run in a worker thread."""

    def __init__(self, store: Store, repository: Path, *, most_queued: int) -> None:
        self._store = store
        self._repository = repository
        self._most_queued = most_queued
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="training-store")
        self._changes = Changes()
        self._is_stopping = False

    async def change(self, method: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the store in its thread, then wake the tasks that wait for changes."""
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: method(self._store, *args, **kwargs)
            )
        finally:
            self._changes.tell()

    async def create(self, request: pb.CreateTrainingRunRequest) -> Run:
        """Queue a run; raises as `service.training.request.checked` and `Store.create` do."""
        if self._is_stopping:
            raise ServerStopping("Server exiting")
        spec = await asyncio.to_thread(checked, request, self._repository)
        return await self.change(
            Store.create,
            secrets.token_hex(_ID_BYTES),
            spec,
            request.SerializeToString(deterministic=True),
            request_id=request.request_id,
            most_queued=self._most_queued,
        )

    async def get(self, name: str) -> Run:
        """Return a run by its operation's name; raises OperationNotFound."""
        run_id = _run_id(name)
        return await self.look(lambda store: store.get(run_id))

    async def page(self, filter_text: str, page_size: int, page_token: str) -> tuple[list[Run], str]:
        """Runs, newest first, and the token of the next page, empty on the last one; raises InvalidRequest."""
        conditions, limit = filters.conditions(filter_text), filters.page_size(page_size)
        before = filters.last_of(page_token, filter_text)
        runs = await self.look(lambda store: store.page(conditions, before=before, limit=limit + 1))
        if len(runs) <= limit:
            return runs, ""
        return runs[:limit], filters.token(filter_text, runs[limit - 1].number)

    async def cancel(self, name: str) -> Run:
        """Ask a run to stop; raises OperationNotFound."""
        return await self.change(Store.request_cancel, _run_id(name))

    async def delete(self, name: str) -> None:
        """Delete a run that is done; raises OperationNotFound, OperationNotDone."""
        await self.change(Store.delete, _run_id(name))

    async def wait(self, name: str, timeout_s: float | None) -> Run:
        """Return the run when it is done, after ``timeout_s`` seconds, or when the server stops."""
        loop = asyncio.get_running_loop()
        until_s = None if timeout_s is None else loop.time() + timeout_s
        while True:
            changed = self._changes.since_now()
            run = await self.get(name)
            left_s = LOOK_EVERY_S if until_s is None else min(LOOK_EVERY_S, until_s - loop.time())
            if run.state.is_done or left_s <= 0 or self._is_stopping:
                return run
            await set_within(changed, left_s)

    async def watch(self, name: str, first: int) -> AsyncIterator[StoredEvent]:
        """Yield every event from number ``first`` on until the run is done.

        Raises:
            OperationNotFound: there is no such run, or it was deleted meanwhile.
            InvalidRequest: ``first`` is negative or greater than the number of the next event.
            ServerStopping: the server stops; watch again on another one.
        """
        run = await self.get(name)
        if not 0 <= first <= run.last_event + 1:
            raise InvalidRequest(
                f"from_event: got {first}, expected 0 to {run.last_event + 1}, the number of the next event",
                field="from_event",
            )
        wanted = max(first, 1)
        while True:
            changed = self._changes.since_now()
            number = wanted
            events = await self.look(lambda store: store.events(run.run_id, first=number, limit=_EVENTS_AT_ONCE))  # noqa: B023 - awaited at once
            for event in events:
                yield event
                wanted = event.number + 1
            if len(events) == _EVENTS_AT_ONCE:
                continue
            if not events and (await self.get(name)).state.is_done:
                return  # nothing follows the last event
            if events and events[-1].body["event"] == "done":
                return
            if self._is_stopping:
                raise ServerStopping("Server exiting: watch again from the next event")
            await set_within(changed, LOOK_EVERY_S)

    def since_now(self) -> asyncio.Event:
        """An event that is set at the next change, as `Changes.since_now` describes."""
        return self._changes.since_now()

    def tell(self) -> None:
        """Report a change, as `Changes.tell` describes."""
        self._changes.tell()

    def stop(self) -> None:
        """End all waiting and watching calls, and take no new runs."""
        self._is_stopping = True
        self._changes.tell()

    def close(self) -> None:
        """Close the store after its current call."""
        self._thread.submit(self._store.close)
        self._thread.shutdown(wait=True)

    async def look(self, look: Callable[[Store], T]) -> T:
        """Call the store in its thread without reporting a change, for reads."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: look(self._store))


def _run_id(name: str) -> str:
    collection, _, run_id = name.partition("/")
    if collection != "operations" or not run_id:
        raise OperationNotFound(f"name: got {name[:200]!r}, expected operations/ID", field="name")
    return run_id


async def set_within(event: asyncio.Event, timeout_s: float) -> None:
    """Wait until the event is set, or until ``timeout_s`` seconds have passed."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass
