"""A client of gRPC's health protocol for probes, which run every few seconds and must therefore start fast.

It uses the load generator's HTTP/2 connection: importing grpcio takes longer than a whole probe. It works with any
server that has grpc.health.v1.Health.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.bench.http2_client import Http2Connection
from service.bench.prepared import Prepared
from service.config import join_address
from service.errors import Code
from service.pb import health_pb2 as pb
from service.wire import hpack

if TYPE_CHECKING:
    import ssl

_PATH = "/grpc.health.v1.Health/"
_GOODBYE_S = 0.2


class Unreachable(ConnectionError):
    """No gRPC server answered in time."""


class Refused(RuntimeError):
    """The server answered with an error, for example NOT_FOUND for an unknown name."""


@dataclass(frozen=True)
class Health:
    """The health that a server reports."""

    status: str
    """SERVING, NOT_SERVING or UNKNOWN, of the requested service."""
    not_serving: tuple[str, ...] = ()
    """If the server as a whole is not serving: all names that are not, if the server supports List."""


async def ask(
    host: str, port: int, service: str = "", *, timeout_s: float, tls: ssl.SSLContext | None, tls_name: str | None
) -> Health:
    """Ask for the health of ``service``; raises Unreachable, Refused. ``tls_name`` is the name in the certificate."""
    calls = None
    try:
        async with asyncio.timeout(timeout_s):
            calls = await _Calls.connected(host, port, tls, tls_name)
            return await _health(calls, service)
    except TimeoutError:
        raise Unreachable(f"no answer within {timeout_s:g} s") from None
    except OSError as error:
        # asyncio gives no message for a connection that ends within the TLS handshake.
        raise Unreachable(error.strerror or str(error) or "the connection was closed") from error
    finally:
        if calls is not None:  # outside the timeout: an answer that came is not lost to a slow close
            await calls.close()


async def _health(calls: _Calls, service: str) -> Health:
    request = pb.HealthCheckRequest(service=service).SerializeToString()
    status = _name(pb.HealthCheckResponse.FromString(await calls.call("Check", request)).status)
    if status != "NOT_SERVING" or service:
        return Health(status)
    try:
        listed = pb.HealthListResponse.FromString(await calls.call("List", b"")).statuses
    except Refused:  # newer than Check, so that not every server has it
        return Health(status)
    return Health(status, tuple(sorted(name for name, each in listed.items() if name and _name(each.status) == status)))


def _name(status: pb.HealthCheckResponse.ServingStatus.ValueType) -> str:
    return pb.HealthCheckResponse.ServingStatus.Name(status)


class _Calls:
    """Unary calls over one connection, one after the other."""

    def __init__(self, authority: str, scheme: str) -> None:
        self._authority, self._scheme = authority, scheme
        self._answer: asyncio.Future[tuple[int, str, bytes]] | None = None
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connection = Http2Connection(self)

    @classmethod
    async def connected(cls, host: str, port: int, tls: ssl.SSLContext | None, tls_name: str | None) -> _Calls:
        """Connect; raises OSError."""
        calls = cls(tls_name or join_address(host, port), "http" if tls is None else "https")
        name = None if tls is None else tls_name or host
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: calls._connection, host, port, ssl=tls, server_hostname=name)
        try:
            await calls._connection.ready
        except BaseException:
            await calls.close()
            raise
        return calls

    async def call(self, method: str, request: bytes) -> bytes:
        """Send a request and return the response; raises Unreachable, Refused."""
        fields = (
            (":method", "POST"),
            (":scheme", self._scheme),
            (":path", _PATH + method),
            (":authority", self._authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "mnist1d-health"),
        )
        self._answer = asyncio.get_running_loop().create_future()
        block = hpack.encode([(name.encode(), value.encode()) for name, value in fields])
        self._connection.request(Prepared(block, request), None)
        self._connection.flush()
        code, message, response = await self._answer
        if code == Code.UNAVAILABLE:
            raise Unreachable(message)
        if code:
            raise Refused(f"{Code(code).name}: {message}")
        return response

    async def close(self) -> None:
        """Close the connection and wait until it is gone: otherwise the loop may end before and leak the socket."""
        self._connection.close()
        await asyncio.wait([self._gone], timeout=_GOODBYE_S)
        if not self._gone.done():  # over TLS the server may not answer the close_notify
            self._connection.abort()
            await self._gone

    # Callbacks of the connection, as described in http2_client.Caller.

    def replied(self, _: object, code: int, message: str, body: bytes) -> None:
        """Handle the end of the call."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((code, message, body))

    def refused(self, token: object) -> None:
        """Handle a call that the server did not process because it is shutting down."""
        self.replied(token, Code.UNAVAILABLE, "the server takes no more calls", b"")

    def woken(self, _: Http2Connection) -> None:
        """Do nothing: no call waits for room."""

    def lost(self, _: Http2Connection) -> None:
        """Handle the end of the connection; its call has ended before."""
        if not self._gone.done():
            self._gone.set_result(None)
