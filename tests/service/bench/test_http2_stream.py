from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from service.bench.http2_stream import StreamConnection
from service.bench.prepared import Prepared
from service.errors import Code
from service.wire import frames
from service.wire.errors import ErrorCode
from tests.service.bench.peer import FINE, OK, Peer, headers, message, until
from tests.service.bench.test_http2_client import BLOCK, Calls


@asynccontextmanager
async def connected(respond, **options):
    async with Peer(respond, streaming=True, **options) as peer:
        calls = Calls()
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: StreamConnection(calls), "127.0.0.1", peer.port)
        async with asyncio.timeout(20):
            await connection.ready
        yield connection, calls, peer
        connection.close()


async def ask(connection, calls, *bodies: bytes) -> list[tuple[int, str, bytes]]:
    start = len(calls.replies)
    for number, body in enumerate(bodies, start):
        connection.request(Prepared(BLOCK, body), number)
    connection.flush()
    await calls.wait(start + len(bodies))
    return [calls.replies[number] for number in range(start, start + len(bodies))]


class Answers:
    """Answers each message with what ``make`` makes of it, in one piece or in pieces."""

    def __init__(self, make=lambda body: body[::-1], size: int = 2**14) -> None:
        self._make = make
        self._size = size
        self._begun: set[tuple[int, int]] = set()

    def __call__(self, talk, stream: int, body: bytes) -> bytes:
        data = message(self._make(body))
        sent = b"" if (id(talk), stream) in self._begun else headers(stream, OK)
        self._begun.add((id(talk), stream))
        pieces = [data[at : at + self._size] for at in range(0, len(data), self._size)]
        return sent + b"".join(frames.frame(frames.DATA, 0, stream, piece) for piece in pieces)


@pytest.mark.parametrize("size", [1, 7, 2**14])
async def test_messages_travel_on_one_stream_and_get_their_own_answers(size) -> None:
    async with connected(Answers(size=size)) as (connection, calls, peer):
        bodies = [b"%d-abc" % number for number in range(50)]
        assert await ask(connection, calls, *bodies) == [(0, "", body[::-1]) for body in bodies]
        assert await ask(connection, calls, b"later") == [(0, "", b"retal")]
        assert connection.open_calls == 0
        assert [stream for _, stream, _ in peer.talks[0].kinds(frames.HEADERS)] == [1]


async def test_several_answers_in_one_frame_are_told_apart() -> None:
    held = []

    def respond(talk, stream, body):
        held.append(message(body))
        if len(held) < 3:
            return None
        return headers(stream, OK) + frames.frame(frames.DATA, 0, stream, b"".join(held))

    async with connected(respond) as (connection, calls, _):
        assert [body for _, _, body in await ask(connection, calls, b"a", b"", b"ccc")] == [b"a", b"", b"ccc"]


async def test_messages_wait_for_the_windows() -> None:
    """The stream's window is 10 bytes, and 10 more come with each look at what arrived."""
    got = bytearray()

    async with connected(Answers(), settings={frames.INITIAL_WINDOW_SIZE: 10}) as (connection, calls, peer):
        connection.request(Prepared(BLOCK, b"0123456789"), 0)
        connection.request(Prepared(BLOCK, b"abc"), 1)
        assert connection.room == 0
        connection.flush()
        while len(calls.replies) < 2:
            await asyncio.sleep(0.005)
            if sum(len(payload) for _, _, payload in peer.talks[0].kinds(frames.DATA)) > len(got):
                got += b"".join(payload for _, _, payload in peer.talks[0].kinds(frames.DATA))[len(got) :]
                peer.talks[0].writer.write(frames.window_update(1, 10))
        assert calls.replies == {0: (0, "", b"9876543210"), 1: (0, "", b"cba")}
        assert bytes(got) == message(b"0123456789") + message(b"abc")
        assert max(len(payload) for _, _, payload in peer.talks[0].kinds(frames.DATA)) == 10
        assert connection.room > 0


async def test_a_stream_that_ends_tells_all_that_were_under_way_and_is_opened_again() -> None:
    def respond(talk, stream, body):
        if stream == 1 and body == b"last":
            end = [(b"grpc-status", b"8"), (b"grpc-message", b"enough")]
            return headers(1, OK) + headers(1, end, end=True)
        return None if stream == 1 else again(talk, stream, body)

    again = Answers()
    async with connected(respond) as (connection, calls, peer):
        replies = await ask(connection, calls, b"first", b"last")
        assert replies == [(Code.RESOURCE_EXHAUSTED, "enough", b"")] * 2
        assert await ask(connection, calls, b"new") == [(0, "", b"wen")]
        # Our half of the first was still open.
        assert [stream for _, stream, _ in peer.talks[0].kinds(frames.RST_STREAM)] == [1]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (headers(1, OK) + headers(1, FINE, end=True), (Code.UNAVAILABLE, "the server ended the stream")),
        (
            frames.frame(frames.RST_STREAM, 0, 1, frames.UINT32.pack(ErrorCode.CANCEL)),
            (Code.CANCELLED, "the server reset the call (HTTP/2 error 8)"),
        ),
        (
            headers(1, OK) + frames.frame(frames.DATA, 0, 1, b"\1" + message(b"x")[1:]),
            (Code.INTERNAL, "a compressed response, which was not asked for"),
        ),
    ],
    ids=["ended in order", "reset", "compressed"],
)
async def test_what_goes_wrong_is_told(sent, expected) -> None:
    async with connected(lambda *_: sent) as (connection, calls, _):
        assert await ask(connection, calls, b"x") == [(*expected, b"")]


async def test_an_answer_to_nothing_ends_the_connection() -> None:
    def twice(talk, stream, body):
        return headers(stream, OK) + 2 * frames.frame(frames.DATA, 0, stream, message(body))

    async with connected(twice) as (connection, calls, _):
        assert await ask(connection, calls, b"x") == [(0, "", b"x")]
        await asyncio.wait_for(calls.gone.wait(), 20)
        assert connection.is_leaving


async def test_a_refused_stream_refuses_its_calls() -> None:
    refused = frames.frame(frames.RST_STREAM, 0, 1, frames.UINT32.pack(ErrorCode.REFUSED_STREAM))
    async with connected(lambda *_: refused) as (connection, calls, _):
        connection.request(Prepared(BLOCK, b"x"), 0)
        connection.request(Prepared(BLOCK, b"y"), 1)
        connection.flush()
        await calls.wait(2)
        assert calls.refusals == [0, 1]
        assert not calls.replies


async def test_a_call_given_up_keeps_its_place() -> None:
    held = []

    def respond(talk, stream, body):
        held.append(body)
        if len(held) < 2:
            return None
        return headers(stream, OK) + b"".join(frames.frame(frames.DATA, 0, stream, message(each)) for each in held)

    async with connected(respond) as (connection, calls, _):
        connection.request(Prepared(BLOCK, b"slow"), 0)
        assert connection.oldest is not None
        number, token = connection.oldest
        assert token == 0
        connection.cancel(number)
        assert (connection.oldest, connection.open_calls) == (None, 0)
        connection.request(Prepared(BLOCK, b"next"), 1)
        connection.flush()
        await calls.wait(1)
        assert calls.replies == {1: (0, "", b"next")}


async def test_a_server_that_leaves_gets_the_end_of_the_stream_and_answers_what_it_has() -> None:
    answers = Answers()

    def respond(talk, stream, body):
        goaway = frames.frame(frames.GOAWAY, 0, 0, frames.UINT32.pack(1) + frames.UINT32.pack(ErrorCode.NO_ERROR))
        return goaway + answers(talk, stream, body)

    async with connected(respond) as (connection, calls, peer):
        assert await ask(connection, calls, b"ab") == [(0, "", b"ba")]
        assert (connection.is_leaving, connection.room) == (True, 0)
        await until(lambda: peer.talks[0].kinds(frames.DATA)[-1][0] == frames.END_STREAM)


async def test_a_lost_connection_tells_every_call() -> None:
    def respond(talk, stream, body):
        talk.writer.transport.abort()

    async with connected(respond) as (connection, calls, _):
        replies = await ask(connection, calls, b"a", b"b")
        assert {code for code, _, _ in replies} == {Code.UNAVAILABLE}


async def test_padding_is_taken_off() -> None:
    def respond(talk, stream, body):
        padded = b"\2" + message(body) + b"\0\0"
        return headers(stream, OK) + frames.frame(frames.DATA, frames.PADDED, stream, padded)

    async with connected(respond) as (connection, calls, _):
        assert await ask(connection, calls, b"padded") == [(0, "", b"padded")]
