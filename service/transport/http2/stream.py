"""One call on one connection: the received part of its request, the unsent part of its response, and what runs it.

It is also the `CallContext` of its handler, and a `Responder` on the express lane.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from service.errors import Code, Status
from service.wire import frames, responses
from service.wire.errors import ErrorCode, StreamFailure
from service.wire.messages import (
    ACCEPT_ENCODING,
    PREFIX_BYTES,
    MessageError,
    MessageReader,
    Packed,
    prefixed,
)
from service.wire.statuses import CUT_OFF, DEFECT, LATE, NO_MESSAGE, TOO_MUCH_UNREAD, TWO_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.rpc.methods import Entered
    from service.transport.http2.connection import Connection
    from service.transport.http2.request_heads import RequestHead
    from service.transport.http2.request_streams import OpenedStream, RequestQueue
    from service.transport.http2.sending import Sender


_log = logging.getLogger(__name__)


def answer_all(answers: Sequence[tuple[Stream, bytes]]) -> list[Stream]:
    """Respond to calls of one method's express lane, and send the responses at once.

    Never raises. Returns the streams that were not answered: their clients read too little, or an exception ended them
    with INTERNAL.
    """
    now_s = time.perf_counter()
    connection = answers[0][0].connection
    sender, runner, flushing = connection.sender, connection.shared.runner, connection.shared.flushing
    path = answers[0][0].path
    took_s: list[float] = []
    parts: list[bytes] = []
    failed: list[Stream] = []
    size = -1
    for stream, message in answers:
        if stream.connection is not connection:
            _write(sender, parts)
            connection = stream.connection
            sender = connection.sender
            if connection.shared.runner is not runner:
                runner.express_ended(path, Code.OK, took_s)
                took_s.clear()
                runner = connection.shared.runner
        # `entered` refers back to its responder, the stream: break the reference cycle.
        stream.entered = stream.asked = None
        try:
            body_bytes = len(message) + PREFIX_BYTES
            if (
                body_bytes > sender.window
                or body_bytes > stream.send_window
                or body_bytes > sender.max_frame_bytes
                or sender.is_paused
                or stream.is_over
            ):
                _write(sender, parts)
                refusal = stream.respond(message)
                if refusal is None:
                    took_s.append(now_s - stream.began_s)
                else:
                    failed.append(stream)
                    runner.express_ended(path, refusal.code, (now_s - stream.began_s,))
                continue
            if body_bytes != size:
                # Not before the checks: a message above the largest frame has no such pieces.
                before, prefix = responses.WHOLE.pieces(len(message))
                size = body_bytes
            # `Stream.respond` inlined for the common case.
            sender.window -= body_bytes
            number = stream.id.to_bytes(4, "big")
            parts += (
                responses.HEAD_START, number, before, number, prefix, message, responses.OK_START, number,
                responses.OK_END,
            )  # fmt: skip
            stream.is_over = True
            if stream.deadline_key:
                connection.shared.deadlines.remove(stream, stream.deadline_key)
            streams = connection.streams
            del streams[stream.id]
            if not streams:
                _write(sender, parts)
                connection.emptied()
            took_s.append(now_s - stream.began_s)
        except Exception:  # noqa: BLE001 - a defect, which fails this call only
            _write(sender, parts)
            end_in_error(stream)
            failed.append(stream)
            runner.express_ended(path, Code.INTERNAL, (now_s - stream.began_s,))
    _write(sender, parts)
    runner.express_ended(path, Code.OK, took_s)
    flushing.now()
    return failed


def end_in_error(stream: Stream) -> None:
    """End a call that could not be answered: with a status or, if that raises too, by a reset. Called in the handler of
    the exception, which is logged.
    """
    _log.exception("unexpected error while a call was answered", extra={"method": stream.path})
    try:
        stream.fail(DEFECT)
    except Exception:  # noqa: BLE001 - the call must end in any case
        _log.exception("unexpected error while a call was ended")
        stream.connection.reset(stream, ErrorCode.INTERNAL_ERROR)


def _write(sender: Sender, parts: list[bytes]) -> None:
    if parts:
        sender.write(b"".join(parts))
        parts.clear()


RECEIVE_WINDOW: Final = 1024 * 1024
"""Bytes that a client may send ahead on one stream."""
SEND_AHEAD: Final = 64 * 1024
"""A handler that streams responses waits while more bytes than this are unsent."""


class Stream:
    """One call. Made when its header fields are complete; removed when both sides have ended or one has reset it."""

    # Attributes that most calls never set are class attributes, which makes a stream cheaper to create.
    receive_window = RECEIVE_WINDOW
    is_remote_closed = False
    is_over = False
    """Whether the call has ended: nothing is sent or received any more, and nothing runs it."""
    requests: RequestQueue | OpenedStream | None = None
    """Receives the messages of a stream of requests; None for methods with one request."""
    opened: OpenedStream | None = None
    """Equal to ``requests`` if the call runs without a task, else None."""
    cancel_run: Callable[[], object] | None = None
    """Cancels the task or the callbacks that run the call."""
    entered: Entered | None = None
    """The running call, if it is on the express lane."""
    asked: bytes | None = None
    """The request of a call on the express lane; None once it is answered."""
    began_s = 0.0
    """When the call entered the express lane, on the clock of ``time.perf_counter``."""
    heard_s = 0.0
    """When the last part of an incomplete request came, on the loop's clock; 0 once it is complete."""
    stalled_s = 0.0
    """When a complete response that waits for flow control last made progress, on the loop's clock; 0 if none waits."""
    pending: deque[memoryview] | None = None
    """Response data that wait for the peer's flow control."""
    pending_bytes = 0
    is_head_due = False
    """Whether the response begins with HEADERS that are not sent yet."""
    _message: bytes | Packed | None = None
    _reader: MessageReader | None = None
    _body_bytes = 0
    _uncredited = 0
    _queued = 0
    _buffered = 0
    has_begun_response = False
    _trailers: bytes | None = None
    _sent: asyncio.Future[None] | None = None
    _sent_ahead = 0
    _deadline_s: float | None = None
    deadline_key = 0
    """The key of the deadline in `Deadlines`; 0 without a deadline."""

    def __init__(
        self, connection: Connection, stream_id: int, head: RequestHead, timeout_s: float | None, send_window: int
    ) -> None:
        """``timeout_s`` is that of this call, whereas the cached head has that of the first call with this head."""
        self.connection = connection
        self.id = stream_id
        self.head = head
        self.send_window = send_window
        if timeout_s is not None:
            now_s = connection.loop.time()
            self._deadline_s = now_s + timeout_s
            self.deadline_key = connection.shared.deadlines.add(self, now_s, timeout_s)

    # ---- what a handler may know ---------------------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """Address of the caller, as gRPC writes it."""
        return self.connection.peer

    @property
    def metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """The caller's metadata."""
        return self.head.metadata

    @property
    def path(self) -> str:
        """Path of the call's method; empty if there is none."""
        return self.head.method.path if self.head.method is not None else ""

    def time_remaining_s(self) -> float | None:
        """Seconds until the caller's deadline; None without one."""
        return None if self._deadline_s is None else self._deadline_s - self.connection.loop.time()

    # ---- the request ---------------------------------------------------------------------------------------------

    def receive_whole(self, data: bytes) -> bool:
        """Take the only DATA frame of a call if it is one whole, uncompressed message; return False if it is not."""
        size = len(data) - PREFIX_BYTES
        if (
            size < 0
            or not self.head.is_plain
            or self._reader is not None
            or self.is_remote_closed
            or self._trailers is not None
            or size > self.receive_window - PREFIX_BYTES
            or data[0]
            or int.from_bytes(data[1:PREFIX_BYTES], "big") != size
            or size > self.connection.shared.limits.max_message_bytes
        ):
            return False
        self.is_remote_closed = True
        self.heard_s = 0.0
        self.connection.shared.runner.run(self, data[PREFIX_BYTES:])
        return True

    def receive(self, data: bytes, flow_bytes: int, *, is_end: bool) -> None:
        """Take one DATA frame: its contents, and its size for flow control. Raises StreamFailure."""
        self.receive_window -= flow_bytes
        if self.receive_window < 0:
            raise StreamFailure(ErrorCode.FLOW_CONTROL_ERROR, "more than the stream's window")
        if self._trailers is not None:  # The call is answered, though not all of the response is sent.
            self.is_remote_closed = is_end
            return
        self._body_bytes += len(data)
        self._read(data)
        if is_end:
            self.end_of_request()
        elif not self.is_over:
            self._uncredited += flow_bytes
            self._credit()

    def end_of_request(self) -> None:
        """Handle the end of the request. Raises StreamFailure."""
        self.is_remote_closed = True
        self.heard_s = 0.0
        expected = self.head.content_length
        if expected is not None and expected != self._body_bytes:
            raise StreamFailure(ErrorCode.PROTOCOL_ERROR, f"content-length is {expected}, came {self._body_bytes}")
        if self.is_over or self._trailers is not None:
            return
        if self.requests is not None:
            self.requests.end_of_requests()
        elif self._reader is not None and self._reader.buffered_bytes:
            self.fail(CUT_OFF)
        elif self._message is None:
            self.fail(NO_MESSAGE)
        else:
            message, self._message = self._message, None
            self._hold(0)
            runner = self.connection.shared.runner
            if isinstance(message, Packed):
                runner.run_packed(self, message)
            else:
                runner.run(self, message)

    def spend(self, flow_bytes: int) -> None:
        """Count DATA that were within the window and are already consumed."""
        self.receive_window -= flow_bytes
        self._body_bytes += flow_bytes
        self._uncredited += flow_bytes
        self._credit()

    def consumed(self) -> None:
        """Update the accounts after a handler has taken a message."""
        if not self.is_over:
            self._account()
            self._credit()

    def reader(self) -> MessageReader:
        """The reader of the call's request messages, made when it is first needed."""
        if self._reader is None:
            self._reader = MessageReader(self.head.encoding, self.connection.shared.limits.max_message_bytes)
        return self._reader

    def _read(self, data: bytes) -> None:
        reader = self.reader()
        reader.feed(data)
        try:
            if self.requests is not None:
                self.requests.arrived()
            else:
                while (message := reader.next()) is not None:
                    if self._message is not None:
                        self.fail(TWO_MESSAGES)
                        return
                    self._message = message
            self._account()
        except MessageError as error:
            self.fail(error.status)

    def _account(self) -> None:
        """Update the count of buffered request bytes; an ended call holds none."""
        if self.is_over:
            return
        reader = self.reader()
        held = reader.buffered_bytes
        self._queued = held if held and self.requests is not None and reader.has_next() else 0
        if self._message is not None:
            held += len(self._message)
        if held != self._buffered:
            self._hold(held)

    def _hold(self, count: int) -> None:
        """Set this call's buffered bytes, and fail the call if those of all connections exceed the limit."""
        shared = self.connection.shared
        shared.buffered_bytes += count - self._buffered
        self._buffered = count
        if shared.buffered_bytes > shared.max_buffered_bytes:
            self.fail(Status(Code.RESOURCE_EXHAUSTED, "the server holds too many incomplete requests"))

    def _credit(self) -> None:
        """Give the client a new window for received data, except for whole messages that are not taken yet."""
        if self.is_remote_closed or self.is_over:
            return
        credit = self._uncredited - self._queued
        if credit >= RECEIVE_WINDOW // 2:
            self._uncredited -= credit
            self.receive_window += credit
            self.connection.write(frames.window_update(self.id, credit))

    # ---- the response --------------------------------------------------------------------------------------------

    answer_all = staticmethod(answer_all)
    """Answers several calls at once; implements `service.rpc.methods.Responder`."""

    def retry(self) -> None:
        """Run the call in the general way: the express lane cannot answer it. Never raises."""
        try:
            self.connection.shared.runner.leave_express(self)
        except Exception:  # noqa: BLE001 - a defect, which fails this call only
            end_in_error(self)

    def respond(self, message: bytes) -> Status | None:
        """Send the only response and end the call. Return the status that the client gets instead, if any."""
        if self.is_over:
            return None
        sender = self.connection.sender
        size = len(message) + PREFIX_BYTES
        if sender.is_paused or size > sender.window or size > self.send_window or size > sender.max_frame_bytes:
            if sender.holds_too_much:
                self.fail(TOO_MUCH_UNREAD)
                return TOO_MUCH_UNREAD
            self._queue(prefixed(message))
            self._finish_with(responses.ok(self.id))
            return None
        sender.window -= size
        sender.write(responses.WHOLE.response(self.id, message))
        if self.is_remote_closed and not self._buffered:
            # `_end` inlined for the common case.
            self.is_over = True
            if self._deadline_s is not None:
                self.connection.shared.deadlines.remove(self, self.deadline_key)
            streams = self.connection.streams
            del streams[self.id]
            if not streams:
                self.connection.emptied()
        else:
            self._end()
        return None

    async def send(self, message: bytes) -> None:
        """Send one of several responses; wait while the client does not read."""
        if self.put((message,)):
            await asyncio.sleep(0)  # Let other tasks run.
        while self.pending_bytes > SEND_AHEAD and not self.is_over:
            self._sent = self.connection.loop.create_future()
            await self._sent

    def put(self, messages: Sequence[bytes]) -> bool:
        """Send some of several responses; return True each time more than SEND_AHEAD bytes have been sent."""
        if self.is_over or self._trailers is not None:
            return False
        sender = self.connection.sender
        written = sender.write_messages(self, messages)
        for message in messages[written:]:
            self._queue(prefixed(message))
        if written < len(messages):
            sender.pump(self)
        self._sent_ahead += sum(map(len, messages))
        if self._sent_ahead <= SEND_AHEAD:
            return False
        # Flush, so that the transport can pause the writing.
        self._sent_ahead = 0
        sender.flush()
        return True

    def finish(self) -> None:
        """End a stream of responses, which may be empty, with OK."""
        if not self.is_over:
            self._begin_response()
            self._finish_with(responses.ok(self.id))

    def fail(self, status: Status, *, accept_encoding: bytes = b"") -> None:
        """End the call with an error status and cancel what runs it; responses may have been sent before."""
        if self.is_over or self._trailers is not None:
            return
        self._stop_run()
        is_first = not self.has_begun_response
        self._finish_with(responses.failed(self.id, status, is_first=is_first, accept_encoding=accept_encoding))

    def refuse(self) -> None:
        """Answer a call that has no method to run."""
        head = self.head
        if head.refusal is None:
            self._finish_with(responses.plain_http(self.id, head.http_status))
        elif head.refusal.code is Code.UNIMPLEMENTED:
            self.fail(head.refusal, accept_encoding=ACCEPT_ENCODING)
        else:
            self.fail(head.refusal)

    def abandon(self) -> None:
        """End the call without sending anything: it was reset by either side, or the connection is gone."""
        if not self.is_over:
            self._close()
            self._stop_run()

    def expire(self) -> None:
        """End the call because its deadline has passed."""
        if self.is_over:
            return
        if self._trailers is not None or self.pending:  # The client did not read the response in time.
            self.connection.reset(self, ErrorCode.CANCEL)
        else:
            self.fail(LATE)

    def take(self, most_bytes: int) -> bytes:
        """Take up to ``most_bytes`` from `pending` for a DATA frame."""
        if self.pending is None:
            return b""
        if self.stalled_s:
            self.stalled_s = self.connection.loop.time()
        first = self.pending[0]
        if len(first) <= most_bytes:
            taken = bytes(self.pending.popleft())
        else:
            taken, self.pending[0] = bytes(first[:most_bytes]), first[most_bytes:]
        self.pending_bytes -= len(taken)
        self.connection.sender.hold(-len(taken))
        if self.pending_bytes <= SEND_AHEAD < self.pending_bytes + len(taken) and self.requests is not None:
            self.connection.loop.call_soon(self.requests.drained)  # Not now: what it sends must come after `taken`.
        if self._sent is not None and self.pending_bytes <= SEND_AHEAD:
            self._wake()
        return taken

    def complete(self) -> None:
        """Send the trailers, if there are any and nothing waits before them."""
        if self._trailers is not None and not self.pending and not self.is_over:
            self.connection.write(self._trailers)
            self._end()

    def _begin_response(self) -> None:
        if not self.has_begun_response:
            self.has_begun_response = self.is_head_due = True

    def _queue(self, data: bytes) -> None:
        self._begin_response()
        if self.pending is None:
            self.pending = deque()
        self.pending.append(memoryview(data))
        self.pending_bytes += len(data)
        self.connection.sender.hold(len(data))

    def _finish_with(self, trailers: bytes) -> None:
        """End the response with ``trailers``, which are sent after all pending data."""
        self.has_begun_response = True
        self._trailers = trailers
        self.heard_s = 0.0
        self.connection.sender.pump(self)
        if self.pending:
            self.stalled_s = self.connection.loop.time()

    def _end(self) -> None:
        """Close the stream after a complete response."""
        self._close()
        self.connection.ended(self)

    def _close(self) -> None:
        self.is_over = True
        if self._deadline_s is not None:
            self.connection.shared.deadlines.remove(self, self.deadline_key)
        if self._buffered:
            self.connection.shared.buffered_bytes -= self._buffered
            self._buffered = 0
        if self.pending_bytes:
            self.connection.sender.hold(-self.pending_bytes)
            self.pending_bytes = 0
            self.pending = None
        self._wake()

    def _stop_run(self) -> None:
        cancel, self.cancel_run = self.cancel_run, None
        if cancel is not None:
            cancel()
        elif self.entered is not None:
            self.connection.shared.runner.cancel_express(self)

    def _wake(self) -> None:
        sent, self._sent = self._sent, None
        if sent is not None and not sent.done():
            sent.set_result(None)
