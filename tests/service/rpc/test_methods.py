from __future__ import annotations

import asyncio
import inspect
import logging
import weakref

import pytest
from google.protobuf.message import DecodeError

from service import errors
from service.errors import Code, InvalidRequest, ServiceError, status_of
from service.rpc.calls import CallFailed, call_bidi, call_server_stream, call_unary
from service.rpc.methods import Bidi, ServerStream, Unary


class Context:
    """A call from nowhere."""

    peer = "test"
    metadata = ()

    def time_remaining_s(self) -> float | None:
        return None


async def upper(request: str, _) -> str:
    return request.upper()


async def letters(request: str, _):
    for letter in request:
        if letter == "!":
            raise InvalidRequest("no shouting")
        yield letter


async def echo(requests, _):
    async for request in requests:
        yield request * 2


async def defect(request, _):
    raise KeyError("a secret of the implementation")


def row(kind, handler):
    return kind("/test.Service/Method", bytes.decode, str.encode, handler)


async def test_a_unary_call_goes_from_bytes_to_bytes() -> None:
    assert await call_unary(row(Unary, upper), b"abc", Context()) == b"ABC"


async def test_streams_go_from_bytes_to_bytes() -> None:
    async def requests():
        yield b"a"
        yield b"b"

    assert [x async for x in call_server_stream(row(ServerStream, letters), b"ab", Context())] == [b"a", b"b"]
    assert [x async for x in call_bidi(row(Bidi, echo), requests(), Context())] == [b"aa", b"bb"]


async def test_an_expected_error_carries_its_code_and_message() -> None:
    got = []
    with pytest.raises(CallFailed) as failure:
        async for response in call_server_stream(row(ServerStream, letters), b"ab!", Context()):
            got.append(response)  # noqa: PERF401 - what came before the error is the point
    assert got == [b"a", b"b"]
    status = failure.value.status
    assert (status.code, status.message) == (Code.INVALID_ARGUMENT, "no shouting")


async def test_a_defect_is_internal_without_detail_and_a_traceback_in_the_log(caplog) -> None:
    with pytest.raises(CallFailed) as failure:
        await call_unary(row(Unary, defect), b"", Context())
    assert failure.value.status.code is Code.INTERNAL
    assert "secret" not in failure.value.status.message
    assert "a secret of the implementation" in caplog.text


async def test_a_failed_call_keeps_nothing_alive_that_it_worked_on() -> None:
    class Model:
        """Something large."""

    made = []

    def read(model: Model) -> None:
        raise ValueError("unreadable")

    async def fail(request: str, _) -> str:
        model = Model()
        made.append(weakref.ref(model))
        try:
            read(model)
        except ValueError as error:
            raise InvalidRequest("refused") from error

    with pytest.raises(CallFailed) as failure:
        await call_unary(row(Unary, fail), b"abc", Context())
    # The failure is still there, as in a transport that keeps it; no collector has come by.
    assert failure.value.status.message == "refused"
    assert made[0]() is None


async def test_one_line_a_request_at_debug_and_none_at_info(caplog) -> None:
    method = Unary("/test.Service/Method", bytes.decode, str.encode, upper, describe=lambda request: {"asked": request})
    with caplog.at_level(logging.INFO):
        await call_unary(method, b"abc", Context())
    assert not caplog.records
    with caplog.at_level(logging.DEBUG):
        await call_unary(method, b"abc", Context())
    (record,) = caplog.records
    assert (record.levelno, record.method, record.asked, record.code, record.peer) == (
        logging.DEBUG,
        "/test.Service/Method",
        "abc",
        "OK",
        "test",
    )
    assert record.took_us >= 0


class Seen:
    """An observer that writes down what it is told."""

    def __init__(self) -> None:
        self.began: list[object] = []
        self.ended: list[Code] = []

    def __call__(self, call):
        self.began.append(call.request)
        self.call = call
        return lambda status: self.ended.append(status.code)


async def test_an_observer_sees_the_request_the_response_and_the_end() -> None:
    seen = Seen()
    method = Unary(
        "/test.Service/Method",
        bytes.decode,
        str.encode,
        upper,
        describe=lambda request: {"asked": request, "version": "none"},
        describe_answer=lambda response: {"version": response},
    )
    await call_unary(method, b"abc", Context(), seen)
    assert (seen.began, seen.ended) == (["abc"], [Code.OK])
    assert seen.call.described() == {"asked": "abc", "version": "ABC"}
    assert 0 <= seen.call.took_s < 3600
    assert seen.call.began_ns > 0


@pytest.mark.parametrize(
    ("handler", "data", "request_seen", "code"),
    [
        (upper, b"\xff", None, Code.INVALID_ARGUMENT),
        (defect, b"abc", "abc", Code.INTERNAL),
    ],
)
async def test_an_observer_sees_a_call_that_fails_once(handler, data, request_seen, code) -> None:
    seen = Seen()

    def parse(data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise DecodeError from error

    with pytest.raises(CallFailed):
        await call_unary(Unary("/test.Service/Method", parse, str.encode, handler), data, Context(), seen)
    assert (seen.began, seen.ended) == ([request_seen], [code])


@pytest.mark.parametrize(
    ("remaining_s", "code"), [(None, Code.CANCELLED), (5.0, Code.CANCELLED), (0.0, Code.DEADLINE_EXCEEDED)]
)
async def test_an_observer_sees_who_gives_up(remaining_s, code) -> None:
    class Impatient(Context):
        def time_remaining_s(self) -> float | None:
            return remaining_s

    seen, running = Seen(), asyncio.Event()

    async def forever(request, _):
        running.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(call_unary(row(Unary, forever), b"abc", Impatient(), seen))
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen.ended == [code]


async def test_an_observer_sees_a_stream_as_one_call() -> None:
    async def requests():
        yield b"a"
        yield b"b"

    seen = Seen()
    assert [x async for x in call_server_stream(row(ServerStream, letters), b"ab", Context(), seen)] == [b"a", b"b"]
    assert [x async for x in call_bidi(row(Bidi, echo), requests(), Context(), seen)] == [b"aa", b"bb"]
    assert (seen.began, seen.ended) == (["ab", None], [Code.OK, Code.OK])
    stream = call_server_stream(row(ServerStream, letters), b"ab", Context(), seen)
    await anext(stream)
    await stream.aclose()
    with pytest.raises(CallFailed):
        [x async for x in call_server_stream(row(ServerStream, letters), b"!", Context(), seen)]
    assert seen.ended[2:] == [Code.CANCELLED, Code.INVALID_ARGUMENT]


def test_every_service_error_has_a_status_of_its_own_class() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, ServiceError)]
    leaves = [c for c in classes if c is not ServiceError]
    assert len(leaves) >= 7
    for leaf in leaves:
        status = status_of(leaf("why"))
        assert (status.code, status.message, status.details.reason) == (leaf.code, "why", leaf.reason)
        assert leaf.code is not Code.OK
    drawn = (errors.__doc__ or "").split()
    assert {leaf.__name__ for leaf in leaves} <= set(drawn)


def test_anything_else_is_internal() -> None:
    for error in (ValueError("x"), RuntimeError("x"), MemoryError()):
        assert status_of(error).code is Code.INTERNAL
        assert "x" not in status_of(error).message.split()
