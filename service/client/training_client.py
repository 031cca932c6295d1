"""A client of the training service: runs are created, watched, waited for and cancelled, on the control port.

Snapshots, events and results are messages of the contract, ``protos/training.proto``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.longrunning import operations_pb2
from google.longrunning.operations_pb2_grpc import OperationsStub

from service.client.connection import Metadata, Tls, connection, server_error
from service.client.errors import ServerError, read_details
from service.errors import Code
from service.pb import training_pb2 as pb
from service.pb.training_pb2_grpc import TrainingStub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

T = TypeVar("T")

_NONE: Mapping[str, Any] = MappingProxyType({})
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_PAGE = 100
_AUGMENTATION = "augmentation"


@dataclass(frozen=True)
class TrainingRun:
    """A run as it was when the server answered."""

    name: str
    """``operations/ID``."""
    is_done: bool
    snapshot: pb.TrainingRunMetadata
    result: pb.TrainingRunResult | None
    """What it published; None unless it has succeeded."""
    error: ServerError | None
    """Why it ended without a version; None unless it has failed or was cancelled."""

    @property
    def state(self) -> str:
        """QUEUED, RUNNING, SUCCEEDED, FAILED or CANCELLED."""
        return pb.RunState.Name(self.snapshot.state)


class TrainingClient:
    """A connection to a server's control port. Thread-safe; use as a context manager, or call `close`.

    The arguments are those of `service.client.InferenceClient`.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:8003",
        *,
        timeout_s: float = 30.0,
        tls: Tls | None = None,
        token: str | None = None,
        token_in_plain_text: bool = False,
        metadata: Mapping[str, str | bytes] = _NONE,
    ) -> None:
        self._connection = connection(
            target,
            timeout_s=timeout_s,
            max_message_bytes=64 * 1024 * 1024,
            tls=tls,
            token=token,
            token_in_plain_text=token_in_plain_text,
            metadata=metadata,
            retry=None,
        )
        where, options = self._connection.target, self._connection.options
        if self._connection.credentials is None:
            self._channel = grpc.insecure_channel(where, options=options)
        else:
            self._channel = grpc.secure_channel(where, self._connection.credentials, options=options)
        self._training = TrainingStub(self._channel)
        self._operations = OperationsStub(self._channel)

    def __enter__(self) -> TrainingClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls that are under way fail."""
        self._channel.close()

    def create(
        self,
        *,
        network: str = "",
        recipe: str = "",
        overrides: Mapping[str, Any] = _NONE,
        seed: int = 0,
        publish_name: str = "",
        engine: str = "",
        gate: str = "",
        request_id: str = "",
    ) -> TrainingRun:
        """Queue a run.

        ``overrides`` are fields of the recipe, ``augmentation.noise`` and its like among them; ``augmentation`` itself
        is true or false. ``gate`` is ``serving``, ``NAME`` or ``NAME/VERSION``. With a ``request_id`` the call can be
        repeated and makes one run.

        Raises:
            ServerError: INVALID_ARGUMENT with a violation for each field at fault, RESOURCE_EXHAUSTED where the queue
                is full, and whatever keeps calls from being answered.
            ValueError: a field that no recipe has, or a value of another type than its field's.
        """
        request = create_request(
            network=network,
            recipe=recipe,
            overrides=overrides,
            seed=seed,
            publish_name=publish_name,
            engine=engine,
            gate=gate,
            request_id=request_id,
        )
        return _read(self._call(self._training.CreateTrainingRun, request))

    def get(self, name: str, *, patience_s: float = 0.0) -> TrainingRun:
        """A run as it is now. A server that is away is looked for for ``patience_s`` seconds. Raises ServerError."""
        pauses = _Pauses(patience_s)
        while True:
            try:
                return _read(self._call(self._operations.GetOperation, operations_pb2.GetOperationRequest(name=name)))
            except ServerError as error:
                if not pauses.may_pass(error):
                    raise
            pauses.take()

    def list(self, filter_text: str = "") -> Iterator[TrainingRun]:
        """Runs, newest first; ``filter_text`` such as ``done = false AND network = conv``. Raises ServerError."""
        token = ""
        while True:
            request = operations_pb2.ListOperationsRequest(filter=filter_text, page_size=_PAGE, page_token=token)
            page = self._call(self._operations.ListOperations, request)
            yield from map(_read, page.operations)
            token = page.next_page_token
            if not token:
                return

    def wait(self, name: str, timeout_s: float | None = None) -> TrainingRun:
        """The run when it is done, or as it is after ``timeout_s`` seconds; None waits for ever. Raises ServerError."""
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = self._connection.timeout_s if until_s is None else max(0.0, until_s - time.monotonic())
            request = operations_pb2.WaitOperationRequest(name=name)
            # Half of what the call itself may take, so that the answer always comes in time.
            request.timeout.FromNanoseconds(round(1e9 * min(left_s, self._connection.timeout_s / 2)))
            run = _read(self._call(self._operations.WaitOperation, request))
            if run.is_done or (until_s is not None and time.monotonic() >= until_s):
                return run

    def cancel(self, name: str) -> None:
        """Ask a run to stop; one that is done stays as it is. Raises ServerError."""
        self._call(self._operations.CancelOperation, operations_pb2.CancelOperationRequest(name=name))

    def delete(self, name: str) -> None:
        """Forget a run that is done; raises ServerError."""
        self._call(self._operations.DeleteOperation, operations_pb2.DeleteOperationRequest(name=name))

    def watch(
        self,
        name: str,
        from_event: int = 1,
        *,
        patience_s: float = 300.0,
        on_gap: Callable[[ServerError], None] = lambda _: None,
    ) -> Iterator[pb.TrainingRunEvent]:
        """Every event from number ``from_event`` on until the run is done, each once.

        A server that goes away is looked for again for ``patience_s`` seconds, and nothing that happened meanwhile is
        missed; ``on_gap`` is told. Raises ServerError when that is over, and for anything that does not pass.
        """
        pauses = _Pauses(patience_s)
        while True:
            request = pb.WatchTrainingRunRequest(name=name, from_event=from_event)
            call = self._training.WatchTrainingRun(request, metadata=self._metadata)
            try:
                for event in call:
                    pauses = _Pauses(patience_s)
                    yield event
                    from_event = event.number + 1
            except grpc.RpcError as error:
                failure = server_error(error)
                if not pauses.may_pass(failure):
                    raise failure from error
                on_gap(failure)
                pauses.take()
            else:
                return
            finally:
                call.cancel()

    @property
    def _metadata(self) -> Metadata:
        return self._connection.metadata

    def _call(self, method: Callable[..., T], request: object) -> T:
        try:
            return method(request, timeout=self._connection.timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise server_error(error) from error


class _Pauses:
    """Between tries to reach a server that is away: longer each time, until patience is over."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._pause_s = _FIRST_PAUSE_S
        self._began_s: float | None = None

    def may_pass(self, error: ServerError) -> bool:
        """Whether it is worth another try."""
        now_s = time.monotonic()
        self._began_s = now_s if self._began_s is None else self._began_s
        return error.code is Code.UNAVAILABLE and now_s - self._began_s < self._patience_s

    def take(self) -> None:
        """Wait."""
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


def create_request(
    *,
    network: str = "",
    recipe: str = "",
    overrides: Mapping[str, Any] = _NONE,
    seed: int = 0,
    publish_name: str = "",
    engine: str = "",
    gate: str = "",
    request_id: str = "",
) -> pb.CreateTrainingRunRequest:
    """The message of `TrainingClient.create`; raises as it does."""
    request = pb.CreateTrainingRunRequest(
        network=network, recipe=recipe, publish_name=publish_name, engine=engine, request_id=request_id
    )
    try:
        request.seed = seed
    except (TypeError, ValueError) as error:
        raise ValueError(f"seed: got {seed!r}, expected a whole number of 64 bits") from error
    for field, value in overrides.items():
        target: Any = request.overrides
        name = field
        if field == _AUGMENTATION:
            target, name = request.overrides.augmentation, "enabled"
        elif field.startswith(f"{_AUGMENTATION}."):
            target, name = request.overrides.augmentation, field.partition(".")[2]
        if name not in target.DESCRIPTOR.fields_by_name:
            raise ValueError(f"overrides: no recipe has a field {field!r}")
        try:
            setattr(target, name, value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"overrides: {field} cannot be {value!r}") from error
    if gate == "serving":
        request.gate.serving = True
    elif gate:
        request.gate.model = gate
    return request


def _read(operation: operations_pb2.Operation) -> TrainingRun:
    snapshot, result, error = pb.TrainingRunMetadata(), None, None
    operation.metadata.Unpack(snapshot)
    match operation.WhichOneof("result"):
        case "response":
            result = pb.TrainingRunResult()
            operation.response.Unpack(result)
        case "error":
            status = operation.error
            error = ServerError(Code(status.code), status.message, read_details(status.SerializeToString()))
    return TrainingRun(operation.name, operation.done, snapshot, result, error)
