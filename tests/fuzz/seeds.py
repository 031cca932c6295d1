"""Where fuzzing begins: what the conformance suite sends, and programs of frames for ordinary calls."""

from __future__ import annotations

import importlib

from tests.service.transport.http2 import wire
from tests.service.transport.http2.wire import Flag, Kind

_TABLES = ("settings", "frames", "streams", "flow_control", "requests", "grpc", "grpc_messages", "hpack")
_GREETED, _PROGRAM, _CUT, _READS = 1, 2, 4, 8


def seeds() -> list[bytes]:
    """Inputs for `tests.fuzz.connection.chunks_of`."""
    found = []
    for name in _TABLES:
        for row in importlib.import_module(f"tests.service.transport.http2.test_{name}").ROWS:
            sent = row.sent if isinstance(row.sent, bytes) else b"".join(row.sent)
            if len(sent) < 4096:
                found.append(bytes([_GREETED | _READS]) + sent)
    found.append(bytes([_READS]) + wire.PREFACE + wire.settings({4: 0}) + wire.call(1) + wire.window_update(1, 9))
    found.append(bytes([_CUT | _READS]) + wire.PREFACE + wire.settings() + wire.call(1))
    for block in range(20):
        call = bytes([Kind.HEADERS, Flag.END_HEADERS, 1, block]) + bytes([Kind.DATA, Flag.END_STREAM, 1, 5]) + b"20 99"
        others = (
            bytes([Kind.WINDOW_UPDATE, 0, 1, 4, 0, 0, 0, 9])
            + bytes([Kind.SETTINGS, 0, 0, 6, 0, 4, 0, 0, 0, 7])
            + bytes([Kind.RST_STREAM, 0, 1, 4, 0, 0, 0, 8])
        )
        found += [bytes([_GREETED | _PROGRAM | how]) + call + others for how in (0, _CUT, _READS, _CUT | _READS)]
    return found
