"""The headers of the calls of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.wire import hpack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.bench.plan import Plan

_SERVICE = b"/inference.GRPCInferenceService/"
_USER_AGENT = b"mnist1d-bench"
_TIMEOUT = b"grpc-timeout"
_MOST_DIGITS = 8
"""Most digits of a timeout in the gRPC specification."""


def call_headers(plan: Plan) -> list[hpack.Field]:
    """The headers of a call, except a varying timeout. A stream has no timeout, since it lasts as long as the load."""
    host = f"[{plan.host}]" if ":" in plan.host else plan.host
    name = plan.tls.server_name if plan.tls is not None and plan.tls.server_name else f"{host}:{plan.port}"
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"https" if plan.tls is not None else b"http"),
        (b":path", _SERVICE + (b"ModelStreamInfer" if plan.streaming else b"ModelInfer")),
        (b":authority", name.encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"user-agent", _USER_AGENT),
        *plan.headers,
    ]
    if not plan.streaming and not plan.vary_timeouts:
        fields.append((_TIMEOUT, b"%dm" % max(1, round(plan.deadline_s * 1e3))))
    return fields


def varying_timeouts(deadline_s: float) -> Iterator[bytes]:
    """Yield different encoded grpc-timeout fields without end, cycling from ``deadline_s`` down to nine tenths of it.

    Clients send the time left until their deadline, which differs from call to call. The field is a literal that is
    not added to the HPACK table, as grpcio's clients and most others send it.
    """
    longest, unit = round(deadline_s * 1e6), b"u"
    if longest >= 10**_MOST_DIGITS:
        longest, unit = round(deadline_s * 1e3), b"m"
    name = hpack.encode([(_TIMEOUT, b"")])[:-1]
    while True:
        for less in range(max(1, longest // 10)):
            value = b"%d%c" % (longest - less, unit)
            yield name + bytes([len(value)]) + value
