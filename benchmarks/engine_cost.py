"""What a call costs the engine `http2` in Python: frames are fed to connections in-process, and no socket is there.

    python -m benchmarks.engine_cost [--repository DIR] [--model mnist1d-conv] [--rounds 300]

As under loads B and S of `make bench`: in each tick three requests of one example come on each of eight connections, as
calls and then as messages of streams. The time is the processor's in the quietest of many short rounds, so that it can
be compared on a machine that does other things. What the kernel spends on sockets is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import time
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.comparison.environments import BUILD
from benchmarks.comparison.questions import questions, trained
from service.config import ServerConfig
from service.server import event_loop
from service.server.server import Server
from service.transport.http2.connection import Connection
from service.wire import frames, hpack
from service.wire.messages import prefixed

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS = 8
REQUESTS_A_TICK = 3
TICKS = 20
"""Of a round: some ten milliseconds."""
PLENTY = 2**31 - 1


class NoSocket(asyncio.Transport):
    """Takes whatever is written."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def is_reading(self) -> bool:
        return True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        pass

    abort = close


class Client:
    """One connection's side of the client."""

    def __init__(self, connection: Connection, *, is_streaming: bool) -> None:
        method = b"ModelStreamInfer" if is_streaming else b"ModelInfer"
        self.connection = connection
        self._is_streaming = is_streaming
        self._stream = 1
        self._block = hpack.encode(
            [
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", b"/inference.GRPCInferenceService/" + method),
                (b":authority", b"127.0.0.1"),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
            ]
        )
        connection.connection_made(NoSocket())
        connection.data_received(frames.PREFACE + frames.settings({frames.INITIAL_WINDOW_SIZE: PLENTY}))
        if is_streaming:
            connection.data_received(frames.frame(frames.HEADERS, frames.END_HEADERS, 1, self._block))

    def requests(self, messages: Iterator[bytes]) -> bytes:
        """The frames of one tick."""
        parts = []
        for _ in range(REQUESTS_A_TICK):
            if self._is_streaming:
                parts.append(frames.frame(frames.DATA, 0, 1, next(messages)))
                continue
            parts.append(frames.frame(frames.HEADERS, frames.END_HEADERS, self._stream, self._block))
            parts.append(frames.frame(frames.DATA, frames.END_STREAM, self._stream, next(messages)))
            self._stream += 2
        return b"".join(parts)

    def open_windows(self) -> None:
        """It has read everything."""
        self.connection.sender.window = PLENTY
        for stream in self.connection.streams.values():
            stream.send_window = PLENTY


async def least_us(server: Server, model: str, messages: Iterator[bytes], rounds: int, *, is_streaming: bool) -> float:
    """Microseconds of processor time for a request in the quietest round; SystemExit if answers are missing."""
    runner = server.repository.get(model).runner
    shared = server._listeners._main._open()  # type: ignore[union-attr, attr-defined] # there is no other way in
    clients = [Client(Connection(shared), is_streaming=is_streaming) for _ in range(CONNECTIONS)]
    asked = rounds * TICKS * CONNECTIONS * REQUESTS_A_TICK
    before = runner.statistics.snapshot().success.count if runner is not None else 0
    least_s = float("inf")
    for _ in range(rounds):
        ticks = [[(each.connection, each.requests(messages)) for each in clients] for _ in range(TICKS)]
        began_s = time.process_time()
        for tick in ticks:
            for connection, data in tick:
                connection.data_received(data)
            for _ in range(3):
                await asyncio.sleep(0)
        least_s = min(least_s, time.process_time() - began_s)
        for client in clients:
            client.open_windows()
    await asyncio.sleep(0.05)
    done = runner.statistics.snapshot().success.count - before if runner is not None else 0
    for client in clients:
        client.connection.connection_lost(None)
    if done != asked:
        raise SystemExit(f"{asked} requests, {done} answers")
    return 1e6 * least_s / (TICKS * CONNECTIONS * REQUESTS_A_TICK)


async def measure(repository: Path, model: str, rounds: int) -> None:
    asked = questions(repository, model)
    messages = cycle([prefixed(message) for message in asked.messages(1, typed=False)])
    async with Server(
        ServerConfig(repository=repository, port=0, metrics=False, control=False, max_queue_size=1_000_000)
    ) as server:
        gc.freeze()
        for is_streaming in (False, True):
            us = await least_us(server, model, messages, rounds, is_streaming=is_streaming)
            print(f"{'a message of a stream' if is_streaming else 'a call':24}{us:6.1f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, help="a model repository; default: one is made, trained hastily")
    parser.add_argument("--model", default="mnist1d-conv")
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    repository = arguments.repository or trained(BUILD)
    event_loop.run(measure(repository, arguments.model, arguments.rounds), transport="http2")


if __name__ == "__main__":
    main()
