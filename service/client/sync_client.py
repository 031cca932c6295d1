"""The blocking inference client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from ..pb import open_inference_pb2 as pb
from . import operations
from .channels import BlockingClient
from .connection import NONE, server_error
from .errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Unpack

    import numpy as np

    from .answers import Answer, ModelConfig, ModelInfo, ModelState, ModelStatistics, ServerInfo
    from .connection import ConnectionOptions, RetryPolicy
    from .operations import Operation

T = TypeVar("T")


class InferenceClient(BlockingClient):
    """A connection to one server, or to several in turn. Thread-safe; use as a context manager, or call `close`.

    ``target`` is an address or a sequence of them; of several each request takes the next one that is up.
    ``retry=RETRIES`` retries calls that failed with UNAVAILABLE. The other arguments are
    `service.client.connection.ConnectionOptions`: ``timeout_s``, ``max_message_bytes``, ``tls``, ``token``,
    ``token_in_plain_text``, ``metadata``.
    """

    def __init__(
        self,
        target: str | Sequence[str] = "127.0.0.1:8001",
        *,
        retry: RetryPolicy | None = None,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        super().__init__(target, retry=retry, **options)
        self._stream = self._channel.stream_stream(
            operations.STREAM_INFER,
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )

    def is_live(self) -> bool:
        """Whether the server answers at all; False if it cannot be reached."""
        try:
            return self._call(operations.server_live())
        except ServerError:
            return False

    def is_ready(self) -> bool:
        """Whether the server reports that it is ready; False if it cannot be reached."""
        try:
            return self._call(operations.server_ready())
        except ServerError:
            return False

    def is_model_ready(self, model: str, version: str = "") -> bool:
        """Whether the model is ready; raises ServerError (NOT_FOUND) if there is none."""
        return self._call(operations.model_ready(model, version))

    def health(self, service: str = "") -> str:
        """SERVING, NOT_SERVING or UNKNOWN for the server, ``inference.GRPCInferenceService`` or ``model/NAME``.

        Raises ServerError, NOT_FOUND for a service without a health status.
        """
        return self._call(operations.health(service))

    def server(self) -> ServerInfo:
        """Describe the server; raises ServerError."""
        return self._call(operations.server_metadata())

    def model(self, name: str, version: str = "") -> ModelInfo:
        """Describe a model; raises ServerError."""
        return self._call(operations.model_metadata(name, version))

    def config(self, name: str, version: str = "") -> ModelConfig:
        """Return Triton's configuration of a model; raises ServerError."""
        return self._call(operations.model_config(name, version))

    def statistics(self, model: str = "", version: str = "") -> tuple[ModelStatistics, ...]:
        """Return statistics of a model (default: every one) since the server started; raises ServerError."""
        return self._call(operations.model_statistics(model, version))

    def repository_index(self, *, ready: bool = False) -> tuple[ModelState, ...]:
        """List the models and versions in the server's repository, or only ready ones; raises ServerError."""
        return self._call(operations.repository_index(ready=ready))

    def load(self, model: str, *, config: Mapping[str, Any] | None = None, files: Mapping[str, bytes] = NONE) -> None:
        """Load or reload a model. Raises ServerError if it does not become ready.

        ``config`` and ``files`` (contents by path, ``1/model.onnx``) replace those in the repository, where the
        server allows that.
        """
        self._call(operations.load(model, config, files))

    def unload(self, model: str) -> None:
        """Stop serving a model; raises ServerError."""
        self._call(operations.unload(model))

    def infer(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray],
        *,
        outputs: Sequence[str] = (),
        version: str = "",
        request_id: str = "",
        typed: bool = False,
        parameters: Mapping[str, bool | int | float | str] = NONE,
        classes: Mapping[str, int] = NONE,
        priority: int | None = None,
        queue_timeout_s: float | None = None,
        timeout_s: float | None = None,
        metadata: Mapping[str, str | bytes] = NONE,
    ) -> Answer:
        """Send one inference request to a model.

        ``inputs`` maps names to arrays whose dtype is the model's (``float32`` for FP32, and so on; ``str`` or
        ``bytes`` for BYTES). ``outputs`` selects outputs (default: all). ``typed`` sends typed instead of raw
        contents, which some servers need. ``classes`` requests the best n classes of an output instead of its numbers
        (`Answer.classes` reads them); that output need not be in ``outputs``. ``priority`` 1 is served first;
        ``queue_timeout_s`` is how long the request may wait in the server's queue. ``timeout_s`` (for the whole call)
        and ``metadata`` are for this call.

        Raises:
            ServerError: with the server's code and message.
            TypeError: an array's dtype has no datatype in the protocol.
            ValueError: an argument is out of range, or a parameter is given twice.
        """
        operation = operations.infer(
            model,
            inputs,
            outputs=outputs,
            version=version,
            request_id=request_id,
            typed=typed,
            parameters=parameters,
            classes=classes,
            priority=priority,
            queue_timeout_s=queue_timeout_s,
        )
        return self._call(operation, timeout_s, metadata)

    def stream(
        self,
        requests: Iterable[Operation[Answer]],
        *,
        timeout_s: float | None = None,
        metadata: Mapping[str, str | bytes] = NONE,
    ) -> Iterator[Answer | ServerError]:
        """Send requests, made by `service.client.request`, on one stream and yield the answers in order.

        A request that fails yields a ServerError in its place (with code UNKNOWN) and the stream goes on.
        ``requests`` may be a generator that waits; it is read on another thread. ``timeout_s`` is for the stream as a
        whole; default: none. Raises ServerError if the stream itself ends with an error. An exception that ``requests``
        raised is raised after the requests before it are answered.
        """
        failures: list[Exception] = []
        calls = self._stream(_messages(requests, failures), timeout=timeout_s, metadata=self._metadata(metadata))
        try:
            for response in calls:
                yield operations.read_streamed(response)
        except grpc.RpcError as error:
            raise server_error(error) from error
        finally:
            calls.cancel()
        if failures:
            raise failures[0]


def _messages(requests: Iterable[Operation[Answer]], failures: list[Exception]) -> Iterator[pb.ModelInferRequest]:
    try:
        for operation in requests:
            yield operation.request
    except Exception as error:  # noqa: BLE001 - raised again by the caller; grpcio would hide it
        failures.append(error)
