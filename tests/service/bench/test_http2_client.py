from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from service.bench.http2_client import Http2Connection
from service.bench.prepared import Prepared
from service.errors import Code
from service.wire import frames, hpack
from service.wire.errors import ErrorCode
from tests.service.bench.peer import FINE, OK, Peer, answer, headers, message, until

BLOCK = hpack.encode([(b":method", b"POST"), (b":path", b"/p")])


class Calls:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.replies: dict[object, tuple[int, str, bytes]] = {}
        self.refusals: list[object] = []
        self.gone = asyncio.Event()
        self._waiting: list[tuple[int, asyncio.Event]] = []

    def replied(self, token, code, text, body) -> None:
        assert token not in self.replies
        self.replies[token] = (code, text, body)

    def refused(self, token) -> None:
        self.refusals.append(token)

    def woken(self, connection) -> None:
        pass

    def lost(self, connection) -> None:
        self.gone.set()

    async def wait(self, count: int) -> None:
        await until(lambda: len(self.replies) + len(self.refusals) >= count)


@asynccontextmanager
async def connected(respond, **options):
    async with Peer(respond, **options) as peer:
        calls = Calls()
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: Http2Connection(calls), "127.0.0.1", peer.port)
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


async def test_many_calls_on_one_connection_get_their_own_answers() -> None:
    async with connected(lambda _, stream, body: answer(stream, body[::-1])) as (connection, calls, _):
        bodies = [b"%d-abc" % number for number in range(200)]
        replies = await ask(connection, calls, *bodies)
        assert replies == [(0, "", body[::-1]) for body in bodies]
        assert connection.open_calls == 0


def trickle(data: bytes, talk) -> None:
    """Each byte in a packet of its own, as far as the system lets us."""
    for byte in data:
        talk.writer.write(bytes([byte]))


def padded(stream: int) -> bytes:
    block = hpack.encode(OK)
    first = frames.frame(
        frames.HEADERS,
        frames.END_HEADERS | frames.PADDED | frames.HAS_PRIORITY,
        stream,
        b"\x03" + bytes(5) + block + b"pad",
    )
    data = frames.frame(frames.DATA, frames.PADDED, stream, b"\x02" + message(b"yes") + b"xx")
    return first + data + headers(stream, FINE, end=True)


def continued(stream: int) -> bytes:
    block = hpack.encode(FINE)
    return (
        headers(stream, [(b":status", b"103")])
        + headers(stream, OK)
        + frames.frame(frames.DATA, 0, stream, message(b"yes")[:3])
        + frames.frame(frames.DATA, 0, stream, message(b"yes")[3:])
        + frames.frame(frames.HEADERS, frames.END_STREAM, stream, block[:2])
        + frames.frame(frames.CONTINUATION, 0, stream, block[2:4])
        + frames.frame(frames.CONTINUATION, frames.END_HEADERS, stream, block[4:])
    )


def unknown_frames(stream: int) -> bytes:
    return frames.frame(0x20, 0xFF, stream, b"whatever") + frames.frame(2, 0, stream, bytes(5)) + answer(stream, b"yes")


@pytest.mark.parametrize("form", [padded, continued, unknown_frames, lambda stream: answer(stream, b"yes")])
@pytest.mark.parametrize("slowly", [False, True])
async def test_every_form_of_an_answer_is_understood(form, slowly) -> None:
    def respond(talk, stream, _):
        if not slowly:
            return form(stream)
        trickle(form(stream), talk)
        return None

    async with connected(respond) as (connection, calls, _):
        assert await ask(connection, calls, b"a", b"b") == [(0, "", b"yes")] * 2


def only_trailers(stream: int) -> bytes:
    return headers(stream, [*OK, (b"grpc-status", b"5"), (b"grpc-message", b"no %C3%A9%25")], end=True)


def reset(error: int):
    return lambda stream: frames.frame(frames.RST_STREAM, 0, stream, frames.UINT32.pack(error))


def http(status: bytes):
    return lambda stream: headers(stream, [(b":status", status)], end=True)


def data_then_end(data: bytes):
    return lambda stream: (
        headers(stream, OK) + frames.frame(frames.DATA, 0, stream, data) + headers(stream, FINE, end=True)
    )


@pytest.mark.parametrize(
    ("form", "code", "says"),
    [
        (only_trailers, Code.NOT_FOUND, "no é%"),
        (reset(ErrorCode.CANCEL), Code.CANCELLED, "HTTP/2 error 8"),
        (reset(ErrorCode.ENHANCE_YOUR_CALM), Code.RESOURCE_EXHAUSTED, "HTTP/2 error 11"),
        (reset(ErrorCode.INTERNAL_ERROR), Code.INTERNAL, "HTTP/2 error 2"),
        (http(b"503"), Code.UNAVAILABLE, "HTTP 503"),
        (http(b"404"), Code.UNIMPLEMENTED, "HTTP 404"),
        (http(b"418"), Code.UNKNOWN, "HTTP 418"),
        (data_then_end(b""), Code.INTERNAL, "not one message"),
        (data_then_end(message(b"a") + message(b"b")), Code.INTERNAL, "not one message"),
        (data_then_end(b"\1" + message(b"a")[1:]), Code.INTERNAL, "compressed"),
        (
            lambda stream: headers(stream, OK) + frames.frame(frames.DATA, frames.END_STREAM, stream, message(b"a")),
            Code.UNKNOWN,
            "without a gRPC status, HTTP 200",
        ),
    ],
)
async def test_every_failure_has_its_code(form, code, says) -> None:
    async with connected(lambda _, stream, __: form(stream)) as (connection, calls, _):
        ((got, text, _),) = await ask(connection, calls, b"a")
        assert got == code
        assert says in text
        # The connection is none the worse for it.
        assert connection.room > 0


@pytest.mark.parametrize(
    "wrong",
    [
        frames.frame(frames.PUSH_PROMISE, 0, 1, bytes(8)),
        frames.frame(frames.CONTINUATION, 0, 1, b""),
        frames.frame(frames.HEADERS, 0, 1, b"") + frames.frame(frames.PING, 0, 0, bytes(8)),
        frames.frame(frames.PING, 0, 0, bytes(7)),
        frames.frame(frames.SETTINGS, 0, 0, bytes(5)),
        frames.frame(frames.GOAWAY, 0, 0, bytes(7)),
        frames.frame(frames.RST_STREAM, 0, 1, bytes(3)),
        frames.frame(frames.DATA, frames.PADDED, 1, b"\x09abc"),
        frames.frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
        frames.COMPACT_HEADER.pack(0xFFFFFF << 8 | frames.DATA, 0, 1),
        headers(1, [(b":status", b"abc")]),
    ],
)
async def test_a_server_that_breaks_the_protocol_loses_its_connection(wrong) -> None:
    async with connected(lambda *_: wrong) as (connection, calls, _):
        ((code, text, _),) = await ask(connection, calls, b"a")
        assert (code, connection.room) == (Code.UNAVAILABLE, 0)
        assert "the server broke the protocol" in text
        await asyncio.wait_for(calls.gone.wait(), 20)


async def test_a_lost_connection_ends_its_calls() -> None:
    def respond(talk, stream, body):
        talk.writer.close()

    async with connected(respond) as (connection, calls, _):
        ((code, text, _),) = await ask(connection, calls, b"a")
        assert (code, text) == (Code.UNAVAILABLE, "the server closed the connection")
        assert connection.is_leaving


async def test_calls_that_a_goaway_left_out_may_be_sent_again() -> None:
    def respond(talk, stream, body):
        if stream == 1:
            return None
        goaway = frames.frame(frames.GOAWAY, 0, 0, frames.UINT32.pack(1) + frames.UINT32.pack(ErrorCode.NO_ERROR))
        return goaway + answer(1, b"yes")

    async with connected(respond) as (connection, calls, _):
        for token in ("first", "second"):
            connection.request(Prepared(BLOCK, b""), token)
        connection.flush()
        await calls.wait(2)
        assert calls.replies == {"first": (0, "", b"yes")}
        assert calls.refusals == ["second"]
        assert connection.room == 0


async def test_a_refused_stream_may_be_sent_again() -> None:
    async with connected(lambda _, stream, __: reset(ErrorCode.REFUSED_STREAM)(stream)) as (connection, calls, _):
        connection.request(Prepared(BLOCK, b""), "it")
        connection.flush()
        await calls.wait(1)
        assert calls.refusals == ["it"]


async def test_settings_and_pings_are_acknowledged_and_limits_kept() -> None:
    def respond(talk, stream, body):
        return frames.frame(frames.PING, 0, 0, b"12345678") + answer(stream)

    settings = {frames.MAX_CONCURRENT_STREAMS: 3}
    async with connected(respond, settings=settings) as (connection, calls, peer):
        assert connection.room == 3
        await ask(connection, calls, b"a")
        # What follows a PING's answer has been read after it.
        await ask(connection, calls, b"a")
        talk = peer.talks[0]
        assert (frames.ACK, 0, b"12345678") in talk.kinds(frames.PING)
        assert (frames.ACK, 0, b"") in talk.kinds(frames.SETTINGS)


@pytest.mark.parametrize("window", [0, 1, 1000, 65_535, 1_000_000])
async def test_large_requests_respect_the_windows_and_arrive_whole(window) -> None:
    sizes = []

    def respond(talk, stream, body):
        sizes.append(max(len(payload) for _, _, payload in talk.kinds(frames.DATA)))
        return answer(stream, body)

    async with connected(respond, settings={frames.INITIAL_WINDOW_SIZE: window}) as (connection, calls, peer):
        bodies = [bytes([n]) * 50_000 for n in range(4)]
        for number, body in enumerate(bodies):
            connection.request(Prepared(BLOCK, body), number)
        connection.flush()
        talk = peer.talks[0]
        credit: dict[int, int] = {}
        async with asyncio.timeout(20):
            while len(calls.replies) < 4:
                # Never more than was allowed.
                assert sum(len(body) for body in talk.bodies.values()) <= 65_535 + credit.get(0, 0)
                for stream, body in talk.bodies.items():
                    assert len(body) <= window + credit.get(stream, 0)
                for stream in (0, *(stream for _, stream, _ in talk.kinds(frames.HEADERS))):
                    credit[stream] = credit.get(stream, 0) + 20_000
                    talk.writer.write(frames.window_update(stream, 20_000))
                await asyncio.sleep(0.002)
        assert [calls.replies[number][2] for number in range(4)] == bodies
        assert max(sizes) <= frames.DEFAULT_MAX_FRAME_SIZE


async def test_a_window_that_shrinks_below_zero_stops_sending_until_it_is_open_again() -> None:
    async with connected(lambda _, stream, body: answer(stream, body)) as (connection, calls, peer):
        connection.request(Prepared(BLOCK, bytes(100_000)), "it")
        connection.flush()
        talk = peer.talks[0]
        talk.writer.write(frames.settings({frames.INITIAL_WINDOW_SIZE: 10}))
        talk.writer.write(frames.window_update(0, 1_000_000) + frames.window_update(1, 1_000_000))
        await calls.wait(1)
        assert len(calls.replies["it"][2]) == 100_000


async def test_a_cancelled_call_is_reset_and_not_heard_of_again() -> None:
    async with connected(lambda _, stream, __: answer(stream) if stream > 1 else b"") as (connection, calls, peer):
        number = connection.request(Prepared(BLOCK, b""), "slow")
        assert connection.oldest == (number, "slow")
        connection.flush()
        connection.cancel(number)
        assert connection.oldest is None
        peer.talks[0].writer.write(answer(number))
        connection.request(Prepared(BLOCK, b""), "next")
        connection.flush()
        await calls.wait(1)
        assert list(calls.replies) == ["next"]
        assert peer.talks[0].kinds(frames.RST_STREAM) == [(0, number, frames.UINT32.pack(ErrorCode.CANCEL))]


async def test_a_call_answered_before_it_was_sent_whole_is_reset() -> None:
    async with connected(lambda *_: None) as (connection, calls, peer):
        connection.request(Prepared(BLOCK, bytes(200_000)), "it")
        connection.flush()
        peer.talks[0].writer.write(only_trailers(1))
        await calls.wait(1)
        assert calls.replies["it"][0] == Code.NOT_FOUND
        connection.flush()
        await until(lambda: bool(peer.talks[0].kinds(frames.RST_STREAM)))
