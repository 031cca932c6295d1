"""The gRPC service Training: create runs and watch them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.pb import training_pb2 as pb
from service.rpc.methods import CallContext, Method, ServerStream, Unary
from service.security.access import Access
from service.training import messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.message import Message

    from service.training.runs import Runs

TRAINING_SERVICE = "mnist1d.training.v1.Training"


class TrainingServicer:
    """Answers the calls of the service Training."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def create(self, request: pb.CreateTrainingRunRequest, _: CallContext) -> Any:  # noqa: ANN401 - an Operation
        """Queue a run and answer with its operation; raises as `Runs.create` does."""
        return messages.operation(await self._runs.create(request))

    async def watch(self, request: pb.WatchTrainingRunRequest, _: CallContext) -> AsyncIterator[pb.TrainingRunEvent]:
        """Stream the events from ``from_event`` on until the run is done; raises as `Runs.watch` does."""
        async for event in self._runs.watch(request.name, request.from_event):
            yield messages.event(event)

    def methods(self) -> tuple[Method, ...]:
        """This servicer's rows of the method table."""
        return (
            Unary(
                f"/{TRAINING_SERVICE}/CreateTrainingRun",
                pb.CreateTrainingRunRequest.FromString,
                _serialize,
                self.create,
                access=Access.CONTROL,
                describe_answer=lambda operation: {"run": operation.name},
            ),
            ServerStream(
                f"/{TRAINING_SERVICE}/WatchTrainingRun",
                pb.WatchTrainingRunRequest.FromString,
                _serialize,
                self.watch,
                access=Access.CONTROL,
                describe=lambda request: {"run": request.name},
            ),
        )


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
