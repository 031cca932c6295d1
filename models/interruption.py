"""Ctrl-C and SIGTERM as a polite request: finish the step, leave a checkpoint, say so."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Gives a function that tells whether SIGINT or SIGTERM has come; hand it to ``train`` as ``stop``.

    The first signal only sets the flag. A second SIGINT raises KeyboardInterrupt at once, for those who cannot wait.
    The former handlers come back at the end. Only the main thread may enter: signal handlers live there.
    """
    requested = False

    def request(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (the signature of signal handlers)
        nonlocal requested
        if requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        requested = True

    former = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: requested
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
