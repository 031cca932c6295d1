"""Handle Ctrl-C, SIGTERM and a lost terminal as a request to finish the step and leave a checkpoint."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGINT, SIGTERM or SIGHUP was received; pass it to ``train`` as ``stop``.

    SIGHUP is sent when the terminal goes away, as with a lost ssh; if it is ignored (nohup) it stays ignored.
    The first signal only sets the flag. A second SIGINT raises KeyboardInterrupt at once.
    The former handlers are restored at the end. Only the main thread may enter: no other can set signal handlers.
    """
    requested = False

    def request(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (the signature of signal handlers)
        nonlocal requested
        if requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        requested = True

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    former = {number: signal.signal(number, request) for number in numbers}
    try:
        yield lambda: requested
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
