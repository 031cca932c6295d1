"""A client that does as it likes, frame by frame: legal or not, the server and its other clients live."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, precondition, rule, run_state_machine_as_test

from tests.service.transport.http2 import wire
from tests.service.transport.http2.host import hosted
from tests.service.transport.http2.peer import Peer
from tests.service.transport.http2.rows import check_serves

if TYPE_CHECKING:
    from tests.service.transport.http2.host import Host

PATHS = ["Echo", "Chat", "Hang", "Fail", "Crash", "Told", "Deaf", "Nope", "Begun", "Later", "Never", "Quick", "Opened"]
STATUSES = {
    "Echo": {0},
    "Chat": {0},
    "Fail": {3, 13},
    "Crash": {13},
    "Told": {0},
    "Nope": {12},
    "Begun": {0},
    "Later": {0},
    "Quick": {0},
    "Opened": {0, 3},
}
"""Of calls that are complete; what /Fail is sent may be no text."""


class FrameSequences(RuleBasedStateMachine):
    """Keeps account of what is legal: a client that only ever did what it may is served to the end."""

    host: Host
    open_calls = Bundle("open_calls")

    def __init__(self) -> None:
        super().__init__()
        self.peer = Peer(self.host.port)
        self.next_stream = 1
        self.is_legal = True
        self.complete: dict[int, str] = {}

    def send(self, data: bytes) -> None:
        if not self.peer.closed:
            self.peer.send(data)

    @rule(target=open_calls, path=st.sampled_from(PATHS), timeout=st.sampled_from([None, b"1H", b"99999999u"]))
    def begin(self, path, timeout):
        extra = [(b"grpc-timeout", timeout)] if timeout is not None else []
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        self.send(wire.headers(stream, wire.request(b"/wire.Test/" + path.encode(), *extra)))
        return stream, path

    @rule(call=consumes(open_calls), payload=st.binary(max_size=30), pad=st.none() | st.integers(0, 255))
    def complete_call(self, call, payload, pad):
        stream, path = call
        self.send(wire.data(stream, wire.message(payload), end=True, pad=pad))
        self.complete[stream] = path

    @rule(call=consumes(open_calls), payload=st.binary(max_size=30))
    def complete_in_pieces(self, call, payload):
        stream, path = call
        for byte in wire.message(payload):
            self.send(wire.data(stream, bytes([byte])))
        self.send(wire.headers(stream, [(b"x-trailer", b"1")], end=True))
        self.complete[stream] = path

    @rule(call=consumes(open_calls))
    def cancel(self, call):
        self.send(wire.rst(call[0]))

    @rule(kind=st.sampled_from([wire.ping(), wire.priority(1), wire.frame(0x99, 7, 3, b"?"), wire.window_update(0, 5)]))
    def harmless(self, kind):
        self.send(kind)

    @rule(window=st.sampled_from([65_535, 70_000, 2**20]))
    def change_settings(self, window):
        self.send(wire.settings({4: window}))

    @rule(stream=st.integers(0, 20), increment=st.sampled_from([0, 1, 2**31 - 1]))
    def window_of_whatever(self, stream, increment):
        self.is_legal = False
        self.send(wire.window_update(stream, increment))

    @rule(stream=st.integers(0, 20), payload=st.binary(max_size=20), end=st.booleans())
    def data_of_whatever(self, stream, payload, end):
        self.is_legal = False
        self.send(wire.data(stream, payload, end=end))

    @rule(kind=st.integers(0, 12), flags=st.integers(0, 255), stream=st.integers(0, 20), payload=st.binary(max_size=20))
    def any_frame(self, kind, flags, stream, payload):
        self.is_legal = False
        self.send(wire.frame(kind, flags, stream, payload))

    @precondition(lambda self: not self.is_legal)
    @rule(noise=st.binary(min_size=1, max_size=40))
    def noise(self, noise):
        self.send(noise)

    @rule()
    def read(self):
        self.peer.read_for(0)

    def teardown(self) -> None:
        with self.peer as peer:
            if self.is_legal:
                for stream, path in self.complete.items():
                    if path in STATUSES:
                        assert peer.finish(stream).status in STATUSES[path]
                peer.fence()
                assert peer.goaways == []
        check_serves(self.host.port)
        self.host.becomes(lambda handlers: handlers.running == 0)


@pytest.mark.slow
def test_any_sequence_of_frames(caplog) -> None:
    few = settings(max_examples=60, stateful_step_count=25, deadline=None)
    with hosted(max_concurrent_streams=1000, keepalive_min_ping_s=0.0) as host:
        FrameSequences.host = host
        run_state_machine_as_test(FrameSequences, settings=few)
    said = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record for record in said if "/wire.Test/Crash" not in str(record.__dict__)] == []
