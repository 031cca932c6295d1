"""The event loop that a server runs on."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


def run(main: Coroutine[None, None, T], *, transport: str) -> T:
    """Run ``main`` like `asyncio.run`, on uvloop if it is installed and the transport is ``http2``.

    grpcio uses its own threads and sockets, and gains nothing by uvloop.
    """
    with asyncio.Runner(loop_factory=_factory(transport)) as runner:
        return runner.run(main)


def _factory(transport: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if transport != "http2" or importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
