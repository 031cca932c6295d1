"""The blocking client of the training service, which creates, watches, awaits and cancels runs.

Snapshots, events and results are messages of the API in ``protos/training.proto``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

import grpc

from ..address import CONTROL_PORT
from ..pb import training_pb2 as pb
from . import training_operations as operations
from .channels import BlockingClient
from .connection import server_error
from .errors import ServerError
from .patience import Pauses, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Unpack

    from .connection import ConnectionOptions
    from .training_run import RunFields, TrainingRun

T = TypeVar("T")


class TrainingClient(BlockingClient):
    """A connection to a server's control port. Thread-safe; use as a context manager, or call `close`.

    The arguments are those of `service.client.InferenceClient`, but for ``retry``. Every call raises ValueError for an
    argument of a wrong type.
    """

    _usual_port = CONTROL_PORT

    def __init__(self, target: str = "127.0.0.1:8003", **options: Unpack[ConnectionOptions]) -> None:
        super().__init__(target, **options)
        self._watch = self._channel.unary_stream(
            operations.WATCH,
            request_serializer=pb.WatchTrainingRunRequest.SerializeToString,
            response_deserializer=pb.TrainingRunEvent.FromString,
        )

    def create(self, **fields: Unpack[RunFields]) -> TrainingRun:
        """Queue a run.

        The fields are those of `service.client.training_run.RunFields`: ``network``, ``recipe``, ``overrides``,
        ``seed``, ``publish_name``, ``engine``, ``gate``, ``request_id``.

        Raises:
            ServerError: INVALID_ARGUMENT with a violation for each invalid field, RESOURCE_EXHAUSTED if the queue is
                full, or another code if the call was not answered.
            ValueError: a field that no recipe has, or a value of a wrong type.
        """
        return self._call(operations.create(**fields))

    def get(self, name: str, *, patience_s: float = 0.0) -> TrainingRun:
        """Return the current state of a run, retrying for ``patience_s`` s if unavailable. Raises ServerError."""
        pauses = Pauses(patience_s)
        while True:
            try:
                return self._call(operations.get(name))
            except ServerError as error:
                if not pauses.may_pass(error):
                    raise
            time.sleep(pauses.next_s())

    def list(self, filter_text: str = "") -> Iterator[TrainingRun]:
        """Yield runs, newest first; ``filter_text`` such as ``done = false AND network = conv``. Raises ServerError."""
        runs, token = self._call(operations.page(filter_text, ""))
        yield from runs
        while token:
            runs, token = self._call(operations.page(filter_text, token))
            yield from runs

    def wait(self, name: str, timeout_s: float | None = None) -> TrainingRun:
        """Return the run when it is done or after ``timeout_s`` seconds (None: no limit). Raises ServerError."""
        waiting = Waiting(timeout_s, self._connection.timeout_s)
        while True:
            run = self._call(operations.wait(name, waiting.next_s()))
            if run.is_done or waiting.is_over:
                return run

    def cancel(self, name: str) -> None:
        """Ask a run to stop; one that is done stays as it is. Raises ServerError."""
        self._call(operations.cancel(name))

    def delete(self, name: str) -> None:
        """Delete a run that is done; raises ServerError."""
        self._call(operations.delete(name))

    def watch(
        self,
        name: str,
        from_event: int = 1,
        *,
        patience_s: float = 300.0,
        on_gap: Callable[[ServerError], None] = lambda _: None,
    ) -> Iterator[pb.TrainingRunEvent]:
        """Yield every event from number ``from_event`` on until the run is done, each once.

        If the server becomes unavailable, the call reconnects for ``patience_s`` seconds without missing an event;
        ``on_gap`` is called with the error. Raises ServerError after that time, and for permanent errors.
        """
        pauses = Pauses(patience_s)
        while True:
            request = operations.watch(name, from_event)
            call = self._watch(request, metadata=self._metadata())
            try:
                for event in call:
                    pauses = Pauses(patience_s)
                    yield event
                    from_event = event.number + 1
            except grpc.RpcError as error:
                failure = server_error(error)
                if not pauses.may_pass(failure):
                    raise failure from error
                on_gap(failure)
                time.sleep(pauses.next_s())
            else:
                return
            finally:
                call.cancel()
