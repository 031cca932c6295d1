"""A call on the express lane, seen from its stream: where the answer goes, and what is counted of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from service.errors import Code

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.transport.calls import Tally
    from service.transport.http2.stream import Stream
    from service.transport.methods import Unary


class ExpressRun:
    """A `service.transport.methods.Responder`."""

    __slots__ = ("_began_s", "_message", "_method", "_run_generally", "_stream", "_tally", "cancel_run")

    def __init__(
        self,
        stream: Stream,
        method: Unary,
        message: bytes,
        tally: Tally | None,
        run_generally: Callable[[Stream, Unary, bytes], None],
    ) -> None:
        self._stream = stream
        self._method = method
        self._message = message
        self._tally = tally
        self._run_generally = run_generally
        self._began_s = time.perf_counter()
        self.cancel_run: Callable[[], None] | None = None
        """What the lane gave back."""

    def answer(self, message: bytes) -> None:
        """Send it."""
        stream = self._stream
        # What cancels it knows whom to answer, which is this: a ring, unless it is opened here.
        self.cancel_run = stream.cancel_run = None
        if self._tally is not None:
            self._tally.ended(self._method.path, Code.OK, time.perf_counter() - self._began_s)
        stream.respond(message)

    def flush(self) -> None:
        """All that ran together is answered: there is nothing to wait for."""
        self._stream.connection.shared.flushing.now()

    def retry(self) -> None:
        """Run it as every other call."""
        self.cancel_run = self._stream.cancel_run = None
        if self._tally is not None:
            self._tally.forget()
        self._run_generally(self._stream, self._method, self._message)

    def cancel(self) -> None:
        """The caller has gone, or its deadline has passed."""
        cancel_run, self.cancel_run = self.cancel_run, None
        if cancel_run is not None:
            cancel_run()
        if self._tally is not None:
            remaining_s = self._stream.time_remaining_s()
            is_late = remaining_s is not None and remaining_s <= 0
            code = Code.DEADLINE_EXCEEDED if is_late else Code.CANCELLED
            self._tally.ended(self._method.path, code, time.perf_counter() - self._began_s)
