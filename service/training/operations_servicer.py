"""The standard service google.longrunning.Operations over training runs, as any client of it expects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.errors import InvalidRequest
from service.pb import message_class
from service.rpc.methods import CallContext, Unary
from service.security.access import Access
from service.training import messages

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from service.training.run import Run
    from service.training.runs import Runs
    from service.training.serving import Serving

OPERATIONS_SERVICE = "google.longrunning.Operations"
COLLECTION = "operations"
_PACKAGE = "google.longrunning"
_ANSWER_S = 0.05
"""Seconds before a caller's deadline at which the answer is sent, so that it arrives in time."""

Empty = message_class("google.protobuf.Empty")
ListOperationsResponse = message_class(f"{_PACKAGE}.ListOperationsResponse")


class OperationsServicer:
    """Answers the calls of google.longrunning.Operations, with the present state of published versions."""

    def __init__(self, runs: Runs, serving: Serving) -> None:
        self._runs = runs
        self._serving = serving

    async def get(self, request: Any, _: CallContext) -> Any:  # noqa: ANN401 - generated messages, here and below
        """Answer GetOperation; raises OperationNotFound."""
        return self._operation(await self._runs.get(request.name))

    async def list(self, request: Any, _: CallContext) -> Any:  # noqa: ANN401
        """Answer ListOperations with a page of operations, newest first.

        Raises:
            InvalidRequest: another collection, an invalid filter, a negative page size, or the token of another filter.
        """
        if request.name not in ("", COLLECTION):
            raise InvalidRequest(f"name: got {request.name[:200]!r}, expected {COLLECTION!r}", field="name")
        runs, token = await self._runs.page(request.filter, request.page_size, request.page_token)
        return ListOperationsResponse(operations=map(self._operation, runs), next_page_token=token)

    async def cancel(self, request: Any, _: CallContext) -> Any:  # noqa: ANN401
        """Ask a run to stop; it becomes CANCELLED some time later. A run that is done does not change."""
        await self._runs.cancel(request.name)
        return Empty()

    async def delete(self, request: Any, _: CallContext) -> Any:  # noqa: ANN401
        """Delete a run that is done; raises OperationNotFound, OperationNotDone."""
        await self._runs.delete(request.name)
        return Empty()

    async def wait(self, request: Any, context: CallContext) -> Any:  # noqa: ANN401
        """Answer with the operation when it is done, or when the timeout or the caller's deadline has nearly passed."""
        bounds_s = []
        if request.HasField("timeout"):
            timeout_s = request.timeout.ToNanoseconds() / 1e9
            if timeout_s < 0:
                raise InvalidRequest(f"timeout: got {timeout_s:g} s, expected at least 0", field="timeout")
            bounds_s.append(timeout_s)
        remaining_s = context.time_remaining_s()
        if remaining_s is not None:
            bounds_s.append(max(0.0, remaining_s - _ANSWER_S))
        return self._operation(await self._runs.wait(request.name, min(bounds_s, default=None)))

    def methods(self) -> tuple[Unary, ...]:
        """This servicer's rows of the method table."""
        handlers = {
            "ListOperations": self.list,
            "GetOperation": self.get,
            "DeleteOperation": self.delete,
            "CancelOperation": self.cancel,
            "WaitOperation": self.wait,
        }
        return tuple(
            Unary(
                f"/{OPERATIONS_SERVICE}/{name}",
                message_class(f"{_PACKAGE}.{name}Request").FromString,
                _serialize,
                handler,
                access=Access.CONTROL,
                describe=_named,
            )
            for name, handler in handlers.items()
        )

    def _operation(self, run: Run) -> Any:  # noqa: ANN401
        version_status = None
        if run.result is not None:
            version_status = self._serving.version_status(run.result["model_name"], run.result["model_version"])
        return messages.operation(run, version_status)


def _named(request: Any) -> dict[str, str]:  # noqa: ANN401
    return {"run": request.name} if request.name else {}


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
