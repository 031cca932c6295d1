"""Start, watch and stop the generator processes.

The load runs in separate processes, so that drawing progress never delays a request and several cores can be used.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
from dataclasses import replace
from importlib.util import find_spec
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from service.bench.load import Load, Unreachable
from service.bench.plan import Interval, Plan, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

_GO, _STOP, _READY = "go", "stop", "ready"
_LEAVE_S = 5.0
_ASK_S = 0.02


class GeneratorFailed(RuntimeError):
    """A generator process ended without a result, which is a defect of the generator."""


def run(plan: Plan, workers: int, on_interval: Callable[[Interval], None], should_stop: Callable[[], bool]) -> Result:
    """Run a plan, with its connections and rate divided among ``workers`` processes.

    ``on_interval`` is called with each generator's intervals as they end, ``should_stop`` ten times a second.
    Raises Unreachable, GeneratorFailed.
    """
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes = []
    try:
        for share in _shares(plan, workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_generate, args=(share, theirs), daemon=True)
            with _deaf():
                process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        return _watch(pipes, on_interval, should_stop)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(_LEAVE_S)
            if process.is_alive():
                process.kill()
                process.join()


def run_here(plan: Plan, on_interval: Callable[[Interval], None] = lambda _: None) -> Result:
    """Run a plan in this process; raises Unreachable."""

    async def main() -> Result:
        load = Load(plan, on_interval)
        await load.connect()
        return await load.run()

    result: Result = _run_loop(main())
    return result


def _shares(plan: Plan, workers: int) -> list[Plan]:
    shares = []
    for number in range(workers):
        connections = plan.connections // workers + (number < plan.connections % workers)
        requests = plan.requests
        if requests is not None:
            requests = requests // workers + (number < requests % workers)
        rate = plan.rate / workers if plan.rate is not None else None
        shares.append(replace(plan, connections=connections, requests=requests, rate=rate))
    return shares


def _watch(pipes: list[Connection], on_interval: Callable[[Interval], None], should_stop: Callable[[], bool]) -> Result:
    result: Result | None = None
    waiting, stopping = len(pipes), False
    running = set(pipes)
    while running:
        if not stopping and should_stop():
            stopping = True
            for each in running:
                each.send(_STOP)
        readable = wait(list(running), 0.1)
        for pipe in [pipe for pipe in running if pipe in readable]:
            told = _receive(pipe)
            if told == _READY:
                waiting -= 1
                if not waiting:
                    for each in running:
                        each.send(_GO)
            elif isinstance(told, Interval):
                on_interval(told)
            elif isinstance(told, Result):
                running.discard(pipe)
                if result is None:
                    result = told
                else:
                    result.merge(told)
            elif isinstance(told, Unreachable):
                raise told
    if result is None:
        raise GeneratorFailed("no generator was started")
    return result


def _receive(pipe: Connection) -> Any:  # noqa: ANN401 - one of several
    try:
        return pipe.recv()
    except (EOFError, OSError):
        raise GeneratorFailed("a generator process ended without a result") from None


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Block SIGINT for processes that are started in the block, even while they import, since Ctrl-C reaches the whole
    process group. This process receives it at the end of the block."""
    resource_tracker.ensure_running()  # else starting the first process would run it, and unblock SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _generate(plan: Plan, pipe: Connection) -> None:
    # The parent decides when to stop, so that the results are not lost.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _run_loop(_talk(plan, pipe))


async def _talk(plan: Plan, pipe: Connection) -> None:
    def tell(what: object) -> None:
        # If the parent is gone, _told stops the load.
        with contextlib.suppress(OSError):
            pipe.send(what)

    load = Load(plan, tell)
    try:
        await load.connect()
    except Unreachable as error:
        tell(error)
        return
    tell(_READY)
    if await _told(pipe) == _STOP:
        tell(Result(stopped="interrupted"))
        return
    running = asyncio.create_task(load.run())
    stop = asyncio.create_task(_told(pipe))
    await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        load.stop()
    stop.cancel()
    tell(await running)


async def _told(pipe: Connection) -> str:
    """The next command of the parent. Polled, since the event loop would make the pipe non-blocking."""
    try:
        while not pipe.poll():  # noqa: ASYNC110 - the pipe cannot set an event
            await asyncio.sleep(_ASK_S)
        return str(pipe.recv())
    except (EOFError, OSError):
        # The parent is gone.
        return _STOP


def _run_loop(main: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - what main returns
    """Run on uvloop if it is installed, which makes the event loop cheaper."""
    if find_spec("uvloop") is None:
        return asyncio.run(main)
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
