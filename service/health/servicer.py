"""The standard gRPC health service over `service.health.readiness`: Check, List and Watch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.errors import ServiceUnknown
from service.pb import health_pb2 as pb
from service.rpc.methods import CallContext, Method, ServerStream, Unary
from service.security.access import Access

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from service.health.readiness import Readiness

LIVENESS = "liveness"
"""A name for liveness probes: SERVING as long as the server answers at all. A restart would not help a server whose
models are refused, or that drains."""

_Status = pb.HealthCheckResponse.ServingStatus


class HealthServicer:
    """Answers for '', the inference service and other services, ``model/<name>`` of each model, and `LIVENESS`."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    async def check(self, request: pb.HealthCheckRequest, _: CallContext) -> pb.HealthCheckResponse:
        """Answer Check: the status now; NOT_FOUND for an unknown name, as the health protocol requires."""
        status = self._status(request.service)
        if status == _Status.SERVICE_UNKNOWN:
            known = ", ".join(repr(name) for name in self._names())
            raise ServiceUnknown(f"unknown service {request.service!r}; known are {known}")
        return pb.HealthCheckResponse(status=status)

    async def list(self, _: pb.HealthListRequest, __: CallContext) -> pb.HealthListResponse:
        """Answer List: every name with its status."""
        statuses = {name: pb.HealthCheckResponse(status=self._status(name)) for name in self._names()}
        return pb.HealthListResponse(statuses=statuses)

    async def watch(self, request: pb.HealthCheckRequest, _: CallContext) -> AsyncIterator[pb.HealthCheckResponse]:
        """Answer Watch: the status now and after each change, until the server closes its transport.

        It does not end when the server begins to drain, since gRPC's own clients would watch again at once.
        """
        changes = self._readiness.subscribe()
        try:
            sent: _Status.ValueType | None = None
            while True:
                # Read before the status: an end that comes while the status is sent is seen in the next iteration.
                is_over = self._readiness.is_over
                status = self._status(request.service)
                if status != sent:
                    sent = status
                    yield pb.HealthCheckResponse(status=status)
                if is_over:
                    return
                await self._readiness.wait_for_change(changes)
        finally:
            self._readiness.unsubscribe(changes)

    def methods(self) -> tuple[Method, ...]:
        """This servicer's rows of the method table."""
        path = "/grpc.health.v1.Health/"
        return (
            Unary(f"{path}Check", pb.HealthCheckRequest.FromString, _serialize, self.check, access=Access.OPEN),
            Unary(f"{path}List", pb.HealthListRequest.FromString, _serialize, self.list, access=Access.OPEN),
            ServerStream(f"{path}Watch", pb.HealthCheckRequest.FromString, _serialize, self.watch, access=Access.OPEN),
        )

    def _names(self) -> tuple[str, ...]:
        return (*self._readiness.statuses(), LIVENESS)

    def _status(self, name: str) -> _Status.ValueType:
        if name == LIVENESS:
            return _Status.SERVING
        ready = self._readiness.statuses().get(name)
        if ready is None:
            return _Status.SERVICE_UNKNOWN
        return _Status.SERVING if ready else _Status.NOT_SERVING


def _serialize(message: pb.HealthCheckResponse | pb.HealthListResponse) -> bytes:
    return message.SerializeToString()
