"""Send the answers of one model run: work that is the same for all of them is done once."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from service.errors import Code
from service.wire import responses
from service.wire.errors import ErrorCode
from service.wire.messages import PREFIX_BYTES
from service.wire.statuses import DEFECT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.transport.http2.sender import Sender
    from service.transport.http2.stream import Stream


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
