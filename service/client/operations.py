"""Every call of the protocol: its method, its request, and how its response is read. Independent of channels."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from ..errors import Code
from ..pb import health_pb2
from ..pb import open_inference_pb2 as pb
from ..wire.datatypes import DATATYPES, Datatype
from ..wire.raw_contents import ContentsError, from_raw, to_raw
from ..wire.typed_contents import add_typed, from_typed
from .answers import (
    Answer,
    ModelConfig,
    ModelInfo,
    ModelState,
    ModelStatistics,
    ServerInfo,
    TensorConfig,
    TensorInfo,
    TimeSpent,
)
from .errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from google.protobuf.message import Message

T = TypeVar("T")

INFERENCE = "/inference.GRPCInferenceService"
STREAM_INFER = f"{INFERENCE}/ModelStreamInfer"
_CLASSIFICATION, _PRIORITY, _TIMEOUT = "classification", "priority", "timeout"


@dataclass(frozen=True)
class Operation(Generic[T]):
    """One call of a unary method."""

    method: str
    """Path of the method, ``/package.Service/Method``."""
    request: Any
    """The request message."""
    response: type[Message]
    """The type of its response message."""
    read: Callable[[Any], T]
    """Converts the response message to the caller's result; raises ServerError (DATA_LOSS) if it is damaged."""


def server_live() -> Operation[bool]:
    """Ask whether the server is live."""
    return Operation(
        f"{INFERENCE}/ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse, lambda response: bool(response.live)
    )


def server_ready() -> Operation[bool]:
    """Ask whether the server is ready."""
    return Operation(
        f"{INFERENCE}/ServerReady",
        pb.ServerReadyRequest(),
        pb.ServerReadyResponse,
        lambda response: bool(response.ready),
    )


def model_ready(name: str, version: str) -> Operation[bool]:
    """Ask whether a model is ready."""
    _check_texts(name=name, version=version)
    return Operation(
        f"{INFERENCE}/ModelReady",
        pb.ModelReadyRequest(name=name, version=version),
        pb.ModelReadyResponse,
        lambda r: bool(r.ready),
    )


def server_metadata() -> Operation[ServerInfo]:
    """Ask for the server's description."""
    return Operation(
        f"{INFERENCE}/ServerMetadata",
        pb.ServerMetadataRequest(),
        pb.ServerMetadataResponse,
        lambda r: ServerInfo(r.name, r.version, tuple(r.extensions)),
    )


def model_metadata(name: str, version: str) -> Operation[ModelInfo]:
    """Ask for the description of a model."""
    _check_texts(name=name, version=version)
    return Operation(
        f"{INFERENCE}/ModelMetadata",
        pb.ModelMetadataRequest(name=name, version=version),
        pb.ModelMetadataResponse,
        _model_info,
    )


def model_config(name: str, version: str) -> Operation[ModelConfig]:
    """Ask for the configuration of a model."""
    _check_texts(name=name, version=version)
    request = pb.ModelConfigRequest(name=name, version=version)
    return Operation(f"{INFERENCE}/ModelConfig", request, pb.ModelConfigResponse, lambda r: _model_config(r.config))


def model_statistics(name: str, version: str) -> Operation[tuple[ModelStatistics, ...]]:
    """Ask for the statistics of models."""
    _check_texts(name=name, version=version)
    request = pb.ModelStatisticsRequest(name=name, version=version)
    return Operation(
        f"{INFERENCE}/ModelStatistics",
        request,
        pb.ModelStatisticsResponse,
        lambda r: tuple(_statistics(entry) for entry in r.model_stats),
    )


def repository_index(*, ready: bool) -> Operation[tuple[ModelState, ...]]:
    """Ask for the models in the server's repository."""
    return Operation(
        f"{INFERENCE}/RepositoryIndex",
        pb.RepositoryIndexRequest(ready=ready),
        pb.RepositoryIndexResponse,
        lambda r: tuple(ModelState(m.name, m.version, m.state, m.reason) for m in r.models),
    )


def load(name: str, config: Mapping[str, Any] | None, files: Mapping[str, bytes]) -> Operation[None]:
    """Load a model."""
    request = pb.RepositoryModelLoadRequest(model_name=name)
    if config is not None:
        request.parameters["config"].string_param = json.dumps(config)
    for path, content in files.items():
        request.parameters[path if path.startswith("file:") else f"file:{path}"].bytes_param = content
    return Operation(f"{INFERENCE}/RepositoryModelLoad", request, pb.RepositoryModelLoadResponse, _nothing)


def unload(name: str) -> Operation[None]:
    """Unload a model."""
    return Operation(
        f"{INFERENCE}/RepositoryModelUnload",
        pb.RepositoryModelUnloadRequest(model_name=name),
        pb.RepositoryModelUnloadResponse,
        _nothing,
    )


def health(service: str) -> Operation[str]:
    """Ask for the health status of a service, by grpc.health.v1."""
    statuses = health_pb2.HealthCheckResponse.ServingStatus
    return Operation(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest(service=service),
        health_pb2.HealthCheckResponse,
        lambda r: statuses.Name(r.status),
    )


def infer(
    model: str,
    inputs: Mapping[str, np.ndarray],
    *,
    outputs: Sequence[str] = (),
    version: str = "",
    request_id: str = "",
    typed: bool = False,
    parameters: Mapping[str, bool | int | float | str] | None = None,
    classes: Mapping[str, int] | None = None,
    priority: int | None = None,
    queue_timeout_s: float | None = None,
) -> Operation[Answer]:
    """Ask a model for one inference.

    ``classes`` requests the best n classes of an output instead of its numbers; that output need not be in ``outputs``.
    If neither names an output, all are returned. ``priority`` 1 is served first. ``queue_timeout_s`` is how long the
    request may wait in the server's queue.

    Raises:
        TypeError: an array or a parameter that the protocol cannot carry, or an argument of a wrong type.
        ValueError: an argument is out of range, or a parameter is given twice.
    """
    _check_texts(model=model, version=version, request_id=request_id)
    if isinstance(outputs, str):  # a str would count as a sequence of one-letter names
        raise TypeError(f"outputs: got {outputs!r}, expected a sequence of names such as [{outputs!r}]")
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    counts = classes or {}
    for name in (*outputs, *(name for name in counts if name not in outputs)):
        output = request.outputs.add(name=name)
        if name in counts:
            if counts[name] < 1:
                raise ValueError(f"classes of output {name!r}: got {counts[name]}, expected at least 1")
            output.parameters[_CLASSIFICATION].int64_param = counts[name]
    for key, value in _parameters(parameters or {}, priority, queue_timeout_s).items():
        _set_parameter(request.parameters[key], key, value)
    for name, array in inputs.items():
        if not isinstance(array, np.ndarray | np.generic):
            # The dtype of a list is unknown here: it depends on the model.
            raise TypeError(f"input {name!r}: got a {type(array).__name__}, expected an array: np.asarray(..., dtype)")
        datatype = datatype_of(array)
        tensor = request.inputs.add(name=name, datatype=datatype.name, shape=array.shape)
        if typed:
            add_typed(tensor.contents, array, datatype)
        else:
            request.raw_input_contents.append(to_raw(array, datatype))
    return Operation(f"{INFERENCE}/ModelInfer", request, pb.ModelInferResponse, read_answer)


def read_answer(response: pb.ModelInferResponse) -> Answer:
    """The answer in a response; raises ServerError (DATA_LOSS) if it is damaged."""
    return Answer(
        response.model_name,
        response.model_version,
        response.id,
        _arrays(response),
        {name: _parameter(parameter) for name, parameter in response.parameters.items()},
    )


def read_streamed(response: pb.ModelStreamInferResponse) -> Answer | ServerError:
    """The answer or the error in one response of a stream; such errors have no code."""
    if response.error_message:
        return ServerError(Code.UNKNOWN, response.error_message, request_id=response.infer_response.id)
    return read_answer(response.infer_response)


def datatype_of(array: np.ndarray) -> Datatype:
    """The protocol datatype of an array; raises TypeError if there is none."""
    if array.dtype.kind in "OUS":
        return DATATYPES["BYTES"]
    for datatype in DATATYPES.values():
        if array.dtype.newbyteorder("<") == datatype.numpy:
            return datatype
    raise TypeError(f"arrays of dtype {array.dtype} cannot be sent; known are {', '.join(DATATYPES)}")


def _check_texts(**arguments: object) -> None:
    """Raise TypeError naming an argument that is not a str, which protobuf's error does not name."""
    for name, value in arguments.items():
        if not isinstance(value, str):
            raise TypeError(f"{name}: got {value!r}, expected a str")


def _nothing(_response: object) -> None:
    return None


def _model_info(response: pb.ModelMetadataResponse) -> ModelInfo:
    return ModelInfo(
        response.name,
        tuple(response.versions),
        response.platform,
        tuple(TensorInfo(t.name, t.datatype, tuple(t.shape)) for t in response.inputs),
        tuple(TensorInfo(t.name, t.datatype, tuple(t.shape)) for t in response.outputs),
        dict(response.properties),
    )


def _model_config(config: pb.ModelConfig) -> ModelConfig:
    batching = config.dynamic_batching
    return ModelConfig(
        name=config.name,
        platform=config.platform,
        backend=config.backend,
        max_batch_size=config.max_batch_size,
        inputs=tuple(TensorConfig(t.name, _datatype_name(t.data_type), tuple(t.dims)) for t in config.input),
        outputs=tuple(TensorConfig(t.name, _datatype_name(t.data_type), tuple(t.dims)) for t in config.output),
        batches_requests=config.HasField("dynamic_batching"),
        preferred_batch_sizes=tuple(batching.preferred_batch_size),
        max_queue_delay_us=batching.max_queue_delay_microseconds,
        decoupled=config.model_transaction_policy.decoupled,
        parameters={name: parameter.string_value for name, parameter in config.parameters.items()},
    )


def _datatype_name(number: int) -> str:
    # Open enums: a newer server may have a datatype that this client does not know.
    if number not in pb.DataType.values():
        return f"TYPE_{number}"
    name = pb.DataType.Name(pb.DataType.ValueType(number)).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def _statistics(entry: pb.ModelStatistics) -> ModelStatistics:
    spent = entry.inference_stats
    return ModelStatistics(
        name=entry.name,
        version=entry.version,
        inferences=entry.inference_count,
        executions=entry.execution_count,
        last_inference_ms=entry.last_inference,
        success=_time_spent(spent.success),
        fail=_time_spent(spent.fail),
        queue=_time_spent(spent.queue),
        compute_input=_time_spent(spent.compute_input),
        compute_infer=_time_spent(spent.compute_infer),
        compute_output=_time_spent(spent.compute_output),
        batches={batch.batch_size: _time_spent(batch.compute_infer) for batch in entry.batch_stats},
    )


def _time_spent(duration: pb.StatisticDuration) -> TimeSpent:
    return TimeSpent(duration.count, duration.ns)


def _parameters(
    given: Mapping[str, bool | int | float | str], priority: int | None, queue_timeout_s: float | None
) -> dict[str, bool | int | float | str]:
    named: dict[str, bool | int | float | str] = {}
    if priority is not None:
        if priority < 0:
            raise ValueError(f"priority: got {priority}, expected 0 (the model's default) or more")
        named[_PRIORITY] = priority
    if queue_timeout_s is not None:
        if not 0 < queue_timeout_s < math.inf:
            raise ValueError(f"queue_timeout_s: got {queue_timeout_s}, expected more than 0")
        # Microseconds; rounded up, since 0 would mean no timeout.
        named[_TIMEOUT] = math.ceil(queue_timeout_s * 1e6)
    for key in named.keys() & given.keys():
        raise ValueError(f"parameter {key!r} is given twice: by name and among the parameters")
    return {**given, **named}


def _set_parameter(parameter: pb.InferParameter, key: str, value: bool | int | float | str) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    elif isinstance(value, str):
        parameter.string_param = value
    else:
        raise TypeError(f"parameter {key!r}: got {type(value).__name__}, expected bool, int, float or str")


def _parameter(parameter: pb.InferParameter) -> bool | int | float | str:
    which = parameter.WhichOneof("parameter_choice")
    value: bool | int | float | str = getattr(parameter, which) if which else ""
    return value


def _arrays(response: pb.ModelInferResponse) -> dict[str, np.ndarray]:
    raw = response.raw_output_contents
    arrays: dict[str, np.ndarray] = {}
    for index, tensor in enumerate(response.outputs):
        try:
            datatype = DATATYPES[tensor.datatype]
            if raw:
                arrays[tensor.name] = from_raw(raw[index], datatype, tensor.shape)
            else:
                arrays[tensor.name] = from_typed(tensor.contents, datatype, tensor.shape)
        except (ContentsError, LookupError) as error:
            raise ServerError(Code.DATA_LOSS, f"output {tensor.name!r} of the response is damaged: {error}") from error
    return arrays
