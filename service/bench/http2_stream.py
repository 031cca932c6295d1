"""Requests as messages of one bidirectional gRPC stream per connection, answered in order.

For the caller they are calls like those of `http2_client`: each message is a call with its token. If a stream ends,
its open calls get its status, and the next request opens another stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.bench.http2_client import GRPC_PREFIX_BYTES, Http2Connection, Stream
from service.bench.outcome import Headers, outcome
from service.errors import Code
from service.wire import frames
from service.wire.errors import ErrorCode
from service.wire.frames import UINT32

if TYPE_CHECKING:
    from service.bench.http2_client import Caller
    from service.bench.prepared import Prepared

_PLENTY = 2**31
"""Stands for no limit: a stream may carry any number of messages, and only the windows limit their bytes."""


class StreamConnection(Http2Connection):
    """A connection with one stream that carries all calls."""

    def __init__(self, caller: Caller) -> None:
        super().__init__(caller)
        self._number = 0
        """Number of the open stream; 0 while there is none."""
        self._waiting: dict[int, Any] = {}
        """Tokens of the calls without an answer, by their number in the stream."""
        self._asked = 0
        self._answered = 0

    @property
    def room(self) -> int:
        """Number of calls that can be requested now."""
        return _PLENTY if self._can_send and (self._number or self.max_streams) else 0

    @property
    def oldest(self) -> tuple[int, Any] | None:
        """Number and token of the oldest call without an answer."""
        for place, token in self._waiting.items():
            return place, token
        return None

    @property
    def open_calls(self) -> int:
        """Number of calls without an answer."""
        return len(self._waiting)

    def request(self, prepared: Prepared, token: Any) -> int:  # noqa: ANN401 - the caller's own
        """Send a message, on a new stream if there is none, and return its number. Nothing is sent before `flush`."""
        if not self._number:
            self._open(prepared)
        self._asked += 1
        self._waiting[self._asked] = token
        stream = self._streams[self._number]
        size = prepared.size
        if stream.unsent is None and size <= min(self._window, stream.window, self._frame_bytes):
            self._window -= size
            stream.window -= size
            self._out += (prepared.data, b"\0", UINT32.pack(self._number), prepared.message)
        else:
            if stream.unsent is None:
                self._blocked.append(self._number)
            stream.unsent = memoryview(bytes(stream.unsent or b"") + prepared.message)
            self._send_blocked()
        return self._asked

    def cancel(self, number: int) -> None:
        """Cancel a call; there are no more callbacks for it. Its answer still arrives in its turn and is dropped."""
        self._waiting.pop(number, None)

    def close(self) -> None:
        """End the stream, send GOAWAY and close."""
        self._finish()
        super().close()

    def _open(self, prepared: Prepared) -> None:
        self._number = number = self._next_stream
        self._next_stream = number + 2
        self._asked = self._answered = 0
        stream = self._streams[number] = Stream(None)
        stream.goes_on = True
        stream.window = self._stream_window
        self._out += (prepared.head, UINT32.pack(number), prepared.block)

    def _data(self, number: int, flags: int, payload: bytes) -> None:
        super()._data(number, flags, payload)
        stream = self._streams.get(number)
        if stream is not None:
            self._cut(stream)

    def _cut(self, stream: Stream) -> None:
        """Pass the complete messages to the caller."""
        body, at = stream.body, 0
        while len(body) - at >= GRPC_PREFIX_BYTES:
            end = at + GRPC_PREFIX_BYTES + int.from_bytes(body[at + 1 : at + GRPC_PREFIX_BYTES], "big")
            if end > len(body):
                break
            self._answer(body[at], body[at + GRPC_PREFIX_BYTES : end])
            at = end
        stream.body = body[at:]

    def _answer(self, compressed: int, body: bytes) -> None:
        self._answered += 1
        if self._answered > self._asked:
            raise ValueError("a message on a stream that answers no request")
        if self._answered not in self._waiting:
            # The call was cancelled.
            return
        token = self._waiting.pop(self._answered)
        if compressed:
            self._caller.replied(token, Code.INTERNAL, "a compressed response, which was not asked for", b"")
        else:
            self._caller.replied(token, 0, "", body)

    def _end(self, number: int, stream: Stream, headers: Headers | None) -> None:
        del self._streams[number]
        if stream.goes_on or stream.unsent is not None:
            # This side of the stream is still open.
            self._out.append(frames.frame(frames.RST_STREAM, 0, number, UINT32.pack(ErrorCode.CANCEL)))
        code, message = outcome(headers, stream.headers)
        self._replied(stream, code or Code.UNAVAILABLE, message or "the server ended the stream")

    def _replied(self, stream: Stream, code: int, message: str, body: bytes = b"") -> None:  # noqa: ARG002 - there is one stream
        for token in self._closed():
            self._caller.replied(token, code, message, body)

    def _refused(self, stream: Stream) -> None:  # noqa: ARG002 - there is one stream
        for token in self._closed():
            self._caller.refused(token)

    def _closed(self) -> list[Any]:
        """Forget the stream, which has ended; returns the tokens of its calls without an answer."""
        self._number = 0
        waiting, self._waiting = self._waiting, {}
        return list(waiting.values())

    def _leave(self, last: int, error: int, text: bytes) -> None:
        super()._leave(last, error, text)
        # The server finishes the calls that it has.
        self._finish()

    def _finish(self) -> None:
        """Close this side of the stream."""
        stream = self._streams.get(self._number)
        if stream is not None and stream.goes_on:
            stream.goes_on = False
            if stream.unsent is None:
                self._out.append(frames.frame(frames.DATA, frames.END_STREAM, self._number))
