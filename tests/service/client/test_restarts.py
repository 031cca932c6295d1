"""Two servers, one of which comes and goes while clients call: with the retry preset no call may fail."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import asynccontextmanager

import numpy as np
import pytest

from service.client import RETRIES, AsyncInferenceClient, InferenceClient
from tests import processes
from tests.conftest import publish_affine

ONES = {"x": np.ones((1, 3), np.float32)}
RESTARTS = 3
HANG_S = 60.0


@pytest.fixture
def repositories(tmp_path):
    made = [tmp_path / "a", tmp_path / "b"]
    for repository in made:
        repository.mkdir()
        publish_affine(repository)
    return made


class Callers:
    """Clients of both kinds that call until they are told to stop. Whatever fails is raised by `stop`."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses
        self._told = threading.Event()
        self.calls = 0

    async def _async_caller(self) -> None:
        async with AsyncInferenceClient(self._addresses, retry=RETRIES) as client:
            while not self._told.is_set():
                self._check(await client.infer("affine", ONES))

    def _sync_caller(self) -> None:
        with InferenceClient(self._addresses, retry=RETRIES) as client:
            while not self._told.is_set():
                self._check(client.infer("affine", ONES))

    def _check(self, answer) -> None:
        assert answer.outputs["y"].tolist() == [[3, 3, 3]]
        self.calls += 1  # a race would lose a count, never make one up

    @asynccontextmanager
    async def calling(self):
        tasks = [asyncio.create_task(self._async_caller()) for _ in range(2)]
        tasks += [asyncio.create_task(asyncio.to_thread(self._sync_caller)) for _ in range(2)]
        try:
            yield
        finally:
            self._told.set()
            done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), HANG_S)
        assert [error for error in done if error is not None] == []


async def served(port: int) -> int:
    async with AsyncInferenceClient(f"127.0.0.1:{port}") as client:
        return sum(entry.success.count for entry in await client.statistics())


async def until_it_serves(port: int) -> None:
    """Until round robin has found the server and sends it calls."""
    async with asyncio.timeout(HANG_S):
        while await served(port) < 5:  # noqa: ASYNC110 - the server counts, and tells nobody when
            await asyncio.sleep(0.02)


@asynccontextmanager
async def process(*arguments):
    """`tests.processes.serve`, without holding up the loop on which the other server runs."""
    manager = processes.serve(*arguments)
    server = await asyncio.to_thread(manager.__enter__)
    try:
        yield server
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)


async def test_a_server_that_restarts_costs_no_call(repositories, serving) -> None:
    async with serving(repositories[0]) as staying:
        async with serving(repositories[1]) as leaving:
            port = leaving.port
        callers = Callers([f"127.0.0.1:{staying.port}", f"127.0.0.1:{port}"])
        async with callers.calling():
            for _ in range(RESTARTS):
                async with serving(repositories[1], port=port):
                    await until_it_serves(port)
            before = callers.calls
            await asyncio.sleep(0.1)
        assert callers.calls > before, "nobody calls while one server is away"


async def test_a_server_that_is_killed_costs_no_call(repositories, serving, tmp_path) -> None:
    async with serving(repositories[0]) as staying, process(repositories[1], tmp_path / "first.log") as dying:
        port = dying.port
        callers = Callers([f"127.0.0.1:{staying.port}", f"127.0.0.1:{port}"])
        async with callers.calling():
            await until_it_serves(port)
            assert await asyncio.to_thread(dying.stop, signal.SIGKILL) == -signal.SIGKILL
            async with process(repositories[1], tmp_path / "second.log", "--port", str(port)):
                await until_it_serves(port)
