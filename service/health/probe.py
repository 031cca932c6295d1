"""gRPC's health protocol asked from outside, by who asks every few seconds and must therefore import next to nothing.

The generator's HTTP/2 connection serves for that: grpcio takes longer to be imported than everything here takes
together. Knows any server with grpc.health.v1.Health.
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
    """Nobody answered in time, or nobody who speaks gRPC."""


class Refused(RuntimeError):
    """The server answered with an error: NOT_FOUND for a name it does not know."""


@dataclass(frozen=True)
class Health:
    """What a server says of itself."""

    status: str
    """SERVING, NOT_SERVING or UNKNOWN, of what was asked for."""
    not_serving: tuple[str, ...] = ()
    """If the server as a whole is not serving: all names that are not, where it lists them."""


async def ask(
    host: str, port: int, service: str = "", *, timeout_s: float, tls: ssl.SSLContext | None, tls_name: str | None
) -> Health:
    """The health of ``service``; raises Unreachable, Refused. ``tls_name`` is the one in the server's certificate."""
    calls = None
    try:
        async with asyncio.timeout(timeout_s):
            calls = await _Calls.connected(host, port, tls, tls_name)
            return await _health(calls, service)
    except TimeoutError:
        raise Unreachable(f"no answer within {timeout_s:g} s") from None
    except OSError as error:
        # asyncio says nothing at all of a connection that ends within the handshake of TLS.
        raise Unreachable(error.strerror or str(error) or "the connection was closed") from error
    finally:
        if calls is not None:  # not within the time: an answer that came is not lost to a slow goodbye
            await calls.close()


async def _health(calls: _Calls, service: str) -> Health:
    request = pb.HealthCheckRequest(service=service).SerializeToString()
    status = _name(pb.HealthCheckResponse.FromString(await calls.call("Check", request)).status)
    if status != "NOT_SERVING" or service:
        return Health(status)
    try:
        listed = pb.HealthListResponse.FromString(await calls.call("List", b"")).statuses
    except Refused:  # a younger method than Check, which not every server has
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
        """The response; raises Unreachable, Refused."""
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
        """Say goodbye, and see the connection go: an event loop that ends before that leaves its socket behind."""
        self._connection.close()
        await asyncio.wait([self._gone], timeout=_GOODBYE_S)
        if not self._gone.done():  # over TLS the other side answers the goodbye, and this one does not
            self._connection.abort()
            await self._gone

    # What the connection tells: see http2_client.Caller.

    def replied(self, _: object, code: int, message: str, body: bytes) -> None:
        """The call ended."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((code, message, body))

    def refused(self, token: object) -> None:
        """The server is leaving, and did not look at the call."""
        self.replied(token, Code.UNAVAILABLE, "the server takes no more calls", b"")

    def woken(self, _: Http2Connection) -> None:
        """There may be room for more calls; none waits."""

    def lost(self, _: Http2Connection) -> None:
        """The connection is gone; the call was told before."""
        if not self._gone.done():
            self._gone.set_result(None)
