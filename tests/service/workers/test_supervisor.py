"""When workers are started again and when the server gives up, with workers that are no processes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from service.config import ServerConfig
from service.errors import WorkersFailed
from service.signals import Stopping
from service.status import ServerStatus
from service.workers import supervisor as module
from service.workers.addresses import Addresses
from service.workers.backplane import Message
from service.workers.child import Child
from service.workers.supervisor import Supervisor

STANDING = ServerStatus(port=1, is_ready=True, models={}, serving=(), problems=())


class ActedChild(Child):
    """A worker that does what its script says: an exit code for a death during the start, or None to come up."""

    script: dict[int, list[int | None]]
    started: list[int]

    def __init__(self, number: int, *, max_body_bytes: int) -> None:
        super().__init__(number, max_body_bytes=max_body_bytes)
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._handlers = {}

    def on(self, name, handler) -> None:
        self._handlers[name] = handler

    async def start(self, config, *, listens_at_once, log_lock_fd) -> None:
        self.started.append(self.number)
        acts = self.script[self.number]
        code = acts.pop(0) if acts else None
        if code is not None:
            self._exit.set_result(code)
            return
        self.serves()
        for name, fields in (("ready", {"ready": True}), ("up", STANDING.to_dict())):
            await self._handlers[name](Message(fields))

    async def wait(self) -> int:
        code = await self._exit
        self.phase = module.Phase.GONE
        self.is_ready = False
        return code

    def stop(self) -> None:
        self.leave(0)

    def kill(self) -> None:
        self.leave(-9)

    def leave(self, code: int) -> None:
        if not self._exit.done():
            self._exit.set_result(code)


@pytest.fixture
def supervised(repository, monkeypatch):
    """``async with supervised(script) as (supervisor, stopping, run)``: ``run`` is its task."""
    monkeypatch.setattr(module, "Child", ActedChild)
    monkeypatch.setattr("service.workers.restarts._FIRST_PAUSE_S", 0.001)

    @asynccontextmanager
    async def start(script: dict[int, list[int | None]]):
        ActedChild.script, ActedChild.started = script, []
        config = ServerConfig(repository=repository, port=0, control_port=0, metrics=False, grace_s=0.0)
        with Addresses(config) as addresses:
            stopping = Stopping()
            supervisor = Supervisor(config, addresses, len(script), stopping)
            run = asyncio.create_task(supervisor.run(lambda _: None))
            try:
                yield supervisor, stopping, run
            finally:
                stopping.ask()
                with suppress(WorkersFailed):
                    await asyncio.wait_for(run, 10)

    return start


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


def serving(supervisor: Supervisor) -> int:
    return sum(child.phase is module.Phase.SERVING for child in supervisor._living())


async def test_a_server_whose_workers_all_die_while_they_start_gives_up(supervised) -> None:
    async with supervised({0: [1] * 9, 1: [-11] * 9}) as (_, _, run):
        with pytest.raises(WorkersFailed, match=r"worker \d left with .* before it served 3 times in a row") as failed:
            await asyncio.wait_for(run, 10)
    assert failed.value.exit_code == 1
    assert max(ActedChild.started.count(number) for number in (0, 1)) == 3


async def test_a_worker_that_cannot_use_its_settings_ends_the_server_at_once(supervised) -> None:
    async with supervised({0: [2], 1: [2]}) as (_, _, run):
        with pytest.raises(WorkersFailed, match="left with exit code 2 before it served, and") as failed:
            await asyncio.wait_for(run, 10)
    assert failed.value.exit_code == 2


async def test_while_one_serves_the_other_is_tried_for_ever(supervised) -> None:
    async with supervised({0: [None], 1: [1, 2, -9, 1, 1, None]}) as (supervisor, stopping, run):
        await until(lambda: serving(supervisor) == 2)
        assert ActedChild.started.count(1) == 6
        assert [restarts.count for restarts in supervisor._restarts] == [0, 5]
        stopping.ask()
        await asyncio.wait_for(run, 10)


async def test_a_worker_that_leaves_by_itself_is_replaced_at_once(supervised) -> None:
    async with supervised({0: [None, None], 1: [None]}) as (supervisor, stopping, run):
        await until(lambda: serving(supervisor) == 2)
        supervisor._children[0].leave(0)
        await until(lambda: ActedChild.started.count(0) == 2)
        stopping.ask()
        await asyncio.wait_for(run, 10)


async def test_a_worker_that_does_not_drain_well_is_told(supervised) -> None:
    async with supervised({0: [None], 1: [None]}) as (supervisor, stopping, run):
        await until(lambda: serving(supervisor) == 2)
        supervisor._children[1].stop = lambda: supervisor._children[1].leave(1)
        stopping.ask()
        with pytest.raises(WorkersFailed, match="worker 1 left with exit code 1 instead of draining"):
            await asyncio.wait_for(run, 10)


async def test_workers_that_do_not_leave_are_killed(supervised, monkeypatch) -> None:
    monkeypatch.setattr(module, "_SLACK_S", 0.01)
    async with supervised({0: [None], 1: [None]}) as (supervisor, stopping, run):
        await until(lambda: serving(supervisor) == 2)
        supervisor._children[1].stop = lambda: None
        stopping.ask()
        with pytest.raises(WorkersFailed, match="worker 1 left with SIGKILL instead of draining"):
            await asyncio.wait_for(run, 10)
