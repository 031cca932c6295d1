"""Compressed messages that are long when they are unpacked: in a thread, in order, within the limit."""

from __future__ import annotations

import gzip
import threading
import zlib

import numpy as np
import pytest

from service.errors import Code
from service.wire.messages import MessageError, MessageReader, Packed
from tests.service.transport.http2 import wire
from tests.service.transport.http2.host import hosted
from tests.service.transport.http2.peer import Peer
from tests.service.transport.http2.rows import check_goes_on
from tests.service.transport.http2.wire import Setting

MEGABYTE = 1024 * 1024
LONG = np.random.default_rng(0).integers(0, 4, 3 * MEGABYTE, np.uint8).tobytes()
GZIP = (b"grpc-encoding", b"gzip")
WIDE = {Setting.INITIAL_WINDOW_SIZE: 2**30}


def packed(payload: bytes) -> bytes:
    return wire.message(gzip.compress(payload, 1), compressed=1)


def frames_of(stream: int, body: bytes, *, end: bool) -> bytes:
    cuts = range(0, len(body), wire.MAX_FRAME)
    return b"".join(
        wire.data(stream, body[at : at + wire.MAX_FRAME], end=end and at + wire.MAX_FRAME >= len(body)) for at in cuts
    )


@pytest.fixture
def unpacked_by(monkeypatch) -> list[str]:
    """The threads that have unpacked something long."""
    names, unpack = [], Packed.unpack

    def noted(self: Packed) -> bytes:
        if self.is_long:
            names.append(threading.current_thread().name)
        return unpack(self)

    monkeypatch.setattr(Packed, "unpack", noted)
    return names


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
@pytest.mark.parametrize("size", [0, 1, 256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1, 3 * MEGABYTE])
def test_a_message_of_any_length_is_as_it_was(compress, size) -> None:
    reader = MessageReader(b"gzip" if compress is gzip.compress else b"deflate", 4 * MEGABYTE)
    reader.feed(wire.message(compress(LONG[:size]), compressed=1))
    message = reader.next()
    assert isinstance(message, Packed) == (size >= 256 * 1024)
    assert (message.unpack() if isinstance(message, Packed) else message) == LONG[:size]


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (gzip.compress(LONG)[:-5], Code.INTERNAL, "cut off"),
        (gzip.compress(LONG) + b"more", Code.INTERNAL, "cut off"),
        (gzip.compress(LONG)[:-8] + bytes(8), Code.INTERNAL, "incorrect data check"),
        (gzip.compress(bytes(4 * MEGABYTE + 1)), Code.RESOURCE_EXHAUSTED, "larger than max"),
    ],
)
def test_what_is_wrong_at_its_end_is_told(data, code, says) -> None:
    reader = MessageReader(b"gzip", 4 * MEGABYTE)
    reader.feed(wire.message(data, compressed=1))
    message = reader.next()
    assert isinstance(message, Packed)
    with pytest.raises(MessageError, match=says) as caught:
        message.unpack()
    assert caught.value.status.code == code


@pytest.mark.parametrize("path", [b"/wire.Test/Echo", b"/wire.Test/Quick", b"/wire.Test/Later"])
def test_a_call(engines, unpacked_by, path) -> None:
    with Peer(engines["http2"].port, WIDE) as peer:
        peer.send(wire.window_update(0, 2**30) + wire.headers(1, wire.request(path, GZIP)))
        peer.send(frames_of(1, packed(LONG), end=True))
        assert peer.finish(1).messages() == [LONG]
        check_goes_on(peer)
    assert len(unpacked_by) == 1
    assert unpacked_by[0].startswith(("asyncio_", "uvloop_"))  # the executors of loops


def test_a_stream_keeps_its_order(engines, unpacked_by, chat) -> None:
    messages = [b"a", LONG, b"b", b"c", LONG[:MEGABYTE], b"d"]
    with Peer(engines["http2"].port, WIDE) as peer:
        peer.send(wire.window_update(0, 2**30) + wire.headers(1, [*chat, GZIP]))
        peer.send(frames_of(1, b"".join(map(packed, messages)), end=True))
        assert peer.finish(1).messages() == messages
    assert len(unpacked_by) == 2


@pytest.mark.parametrize("path", [b"/wire.Test/Echo", b"/wire.Test/Chat", b"/wire.Test/Opened"])
def test_a_bomb_is_refused_and_others_go_on(unpacked_by, path) -> None:
    with hosted("http2", max_message_bytes=4 * MEGABYTE) as host, Peer(host.port) as peer:
        peer.send(wire.headers(1, wire.request(path, GZIP)) + frames_of(1, packed(bytes(40 * MEGABYTE)), end=True))
        assert peer.finish(1).status == Code.RESOURCE_EXHAUSTED.value
        check_goes_on(peer)
        host.becomes(lambda handlers: handlers.running == 0)
    assert len(unpacked_by) == 1


@pytest.mark.parametrize("path", [b"/wire.Test/Echo", b"/wire.Test/Chat", b"/wire.Test/Opened"])
def test_who_leaves_meanwhile_gets_nothing(engines, monkeypatch, path) -> None:
    begun, go_on, unpack = threading.Event(), threading.Event(), Packed.unpack

    def slow(self: Packed) -> bytes:
        begun.set()
        go_on.wait(5)
        return unpack(self)

    monkeypatch.setattr(Packed, "unpack", slow)
    with Peer(engines["http2"].port, WIDE) as peer:
        peer.send(wire.headers(1, wire.request(path, GZIP)) + frames_of(1, packed(LONG), end=True))
        assert begun.wait(5)
        peer.send(wire.rst(1))
        peer.fence()
        go_on.set()
        check_goes_on(peer)
        engines["http2"].becomes(lambda handlers: handlers.running == 0)
        assert not peer.stream(1).body
