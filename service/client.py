"""A small typed client for any server that speaks the Open Inference Protocol.

Imports neither the server nor onnxruntime. It can share a process with tritonclient: see `service.pb`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from models.datatypes import DATATYPES, Datatype
from service.errors import Code
from service.pb import open_inference_pb2 as pb
from service.pb.open_inference_pb2_grpc import GRPCInferenceServiceStub
from service.raw_contents import ContentsError, from_raw, to_raw
from service.typed_contents import add_typed, from_typed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    import numpy as np

T = TypeVar("T")


class ServerError(Exception):
    """The server answered with an error, or did not answer (UNAVAILABLE, DEADLINE_EXCEEDED)."""

    def __init__(self, code: Code, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"{code.name}: {message}")


@dataclass(frozen=True)
class TensorInfo:
    """One input or output as the server describes it."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """-1 for a free axis; the batch axis is included."""


@dataclass(frozen=True)
class ModelInfo:
    """A model as the server describes it."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a model answered."""

    model: str
    version: str
    id: str
    outputs: Mapping[str, np.ndarray]
    """Arrays by output name, in the order asked for; strings come as ``str`` in object arrays."""


class InferenceClient:
    """A connection to one server. Thread-safe; use as a context manager, or call `close`."""

    def __init__(
        self, target: str = "127.0.0.1:8001", *, timeout_s: float = 30.0, max_message_bytes: int = 64 * 1024 * 1024
    ) -> None:
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(
            target,
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
            ],
        )
        self._stub = GRPCInferenceServiceStub(self._channel)

    def __enter__(self) -> InferenceClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls that are under way fail."""
        self._channel.close()

    def is_live(self) -> bool:
        """Whether the server answers at all; False where nobody listens."""
        try:
            return self._call(self._stub.ServerLive, pb.ServerLiveRequest()).live
        except ServerError:
            return False

    def is_ready(self) -> bool:
        """Whether the server says that it is ready; False where nobody listens."""
        try:
            return self._call(self._stub.ServerReady, pb.ServerReadyRequest()).ready
        except ServerError:
            return False

    def is_model_ready(self, model: str, version: str = "") -> bool:
        """Whether the model answers; raises ServerError (NOT_FOUND) where there is none."""
        return self._call(self._stub.ModelReady, pb.ModelReadyRequest(name=model, version=version)).ready

    def model(self, name: str, version: str = "") -> ModelInfo:
        """Describe a model; raises ServerError."""
        metadata = self._call(self._stub.ModelMetadata, pb.ModelMetadataRequest(name=name, version=version))
        return ModelInfo(
            metadata.name,
            tuple(metadata.versions),
            metadata.platform,
            tuple(TensorInfo(t.name, t.datatype, tuple(t.shape)) for t in metadata.inputs),
            tuple(TensorInfo(t.name, t.datatype, tuple(t.shape)) for t in metadata.outputs),
            dict(metadata.properties),
        )

    def infer(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray],
        *,
        outputs: Sequence[str] = (),
        version: str = "",
        request_id: str = "",
        typed: bool = False,
    ) -> Answer:
        """Ask a model.

        ``inputs`` maps names to arrays whose dtype is the model's (``float32`` for FP32, and so on; ``str`` or
        ``bytes`` for BYTES). ``outputs`` asks for some only. ``typed`` sends typed contents instead of raw ones,
        as some servers want.

        Raises:
            ServerError: with the server's code and message.
            TypeError: an array's dtype is none that the protocol knows.
        """
        request = pb.ModelInferRequest(model_name=model, model_version=version, id=request_id)
        request.outputs.extend(pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs)
        for name, array in inputs.items():
            datatype = datatype_of(array)
            tensor = request.inputs.add(name=name, datatype=datatype.name, shape=array.shape)
            if typed:
                add_typed(tensor.contents, array, datatype)
            else:
                request.raw_input_contents.append(to_raw(array, datatype))
        response = self._call(self._stub.ModelInfer, request)
        return Answer(response.model_name, response.model_version, response.id, _arrays(response))

    def _call(self, method: Callable[..., T], request: Any) -> T:  # noqa: ANN401 - each method has its own message
        try:
            return method(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise ServerError(Code(error.code().value[0]), error.details() or "") from error


def datatype_of(array: np.ndarray) -> Datatype:
    """The protocol datatype of an array; raises TypeError where there is none."""
    if array.dtype.kind in "OUS":
        return DATATYPES["BYTES"]
    for datatype in DATATYPES.values():
        if array.dtype.newbyteorder("<") == datatype.numpy:
            return datatype
    raise TypeError(f"arrays of dtype {array.dtype} cannot be sent; known are {', '.join(DATATYPES)}")


def _arrays(response: pb.ModelInferResponse) -> dict[str, np.ndarray]:
    raw = response.raw_output_contents
    arrays: dict[str, np.ndarray] = {}
    for index, tensor in enumerate(response.outputs):
        datatype = DATATYPES[tensor.datatype]
        try:
            if raw:
                arrays[tensor.name] = from_raw(raw[index], datatype, tensor.shape)
            else:
                arrays[tensor.name] = from_typed(tensor.contents, datatype, tensor.shape)
        except (ContentsError, IndexError) as error:
            raise ServerError(Code.DATA_LOSS, f"output {tensor.name!r} of the response is damaged: {error}") from error
    return arrays
