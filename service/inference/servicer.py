"""The Open Inference Protocol, method by method. `model_infer` is the whole path of a request.

Knows messages and models; does not know which transport runs it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import models
from service.access import Access
from service.errors import DeadlineExceeded, InferenceFailed, QueueFull, QueueTimeout
from service.inference import parameters, tensors
from service.inference.batcher import DEFAULT_PRIORITY, Patience
from service.inference.description import PLATFORM, model_config, model_statistics
from service.inference.statistics import Failure
from service.inference.streaming import stream
from service.pb import open_inference_pb2 as pb
from service.transport.methods import BidiStream, CallContext, Method, Unary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from google.protobuf.message import Message

    from models.tensor_spec import TensorSpec
    from service.inference.admission import Admission
    from service.inference.model_version import ModelVersion
    from service.inference.repository import Repository
    from service.inference.runner import Runner

SERVER_NAME = "mnist1d-service"
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "schedule_policy",
    "statistics",
)
"""What works without further servicers, by the names under which Triton reports its extensions."""
_PROBES = ("ServerLive", "ServerReady")
"""Asked by orchestrators, which have no tokens."""


class InferenceServicer:
    """Answers inference requests from a repository."""

    def __init__(
        self,
        repository: Repository,
        admission: Admission,
        server_is_ready: Callable[[], bool],
        *,
        allow_non_finite: bool = False,
        extensions: Sequence[str] = EXTENSIONS,
    ) -> None:
        self._repository = repository
        self._admission = admission
        self._server_is_ready = server_is_ready
        self._allow_non_finite = allow_non_finite
        self._extensions = extensions

    async def model_infer(self, request: pb.ModelInferRequest, context: CallContext) -> pb.ModelInferResponse:
        """One inference: find the model, read the tensors, wait for a run, write the tensors."""
        began_ns = time.perf_counter_ns()
        if self._admission.is_closed:
            await self._admission.refuse(context.time_remaining_s())
        with self._admission.enter():
            version = self._repository.get(request.model_name, request.model_version)
            model = _runner(version)
            try:
                asked = tensors.decode(request, model.inputs, model.outputs, allow_non_finite=self._allow_non_finite)
                decoded_ns = time.perf_counter_ns()
                patience = _patience(request, context, began_ns)
                arrays, timing = await model.infer(asked.feeds, [spec.name for spec in asked.outputs], patience)
                answered_ns = time.perf_counter_ns()
                response = tensors.encode(request, model.version, asked, arrays, version.labels)
            except BaseException as error:
                model.statistics.failed(_why(error), time.perf_counter_ns() - began_ns)
                raise
            ended_ns = time.perf_counter_ns()
            timing.input_ns += decoded_ns - began_ns
            timing.output_ns += ended_ns - answered_ns
            model.statistics.succeeded(ended_ns - began_ns, timing, model.rows_of(asked.feeds))
            return response

    def model_stream_infer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: CallContext
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """See `service.inference.streaming`."""
        return stream(requests, context, self.model_infer)

    async def model_config(self, request: pb.ModelConfigRequest, _: CallContext) -> pb.ModelConfigResponse:
        """See `service.inference.description`."""
        version = self._repository.get(request.name, request.version)
        policy = self._repository.policy_of(request.name)
        return pb.ModelConfigResponse(config=model_config(version, _runner(version), policy))

    async def model_statistics(self, request: pb.ModelStatisticsRequest, _: CallContext) -> pb.ModelStatisticsResponse:
        """Of one version, of all ready versions of a model, or of all models."""
        if request.version:
            chosen = [self._repository.get(request.name, request.version)]
        elif request.name:
            chosen = list(self._repository.ready(request.name))
        else:
            chosen = [version for model in self._repository.models.values() for version in model.ready]
        return pb.ModelStatisticsResponse(model_stats=[model_statistics(_runner(version)) for version in chosen])

    async def server_live(self, _: pb.ServerLiveRequest, __: CallContext) -> pb.ServerLiveResponse:
        """Live is whoever can answer this."""
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, _: pb.ServerReadyRequest, __: CallContext) -> pb.ServerReadyResponse:
        """See `service.readiness`."""
        return pb.ServerReadyResponse(ready=self._server_is_ready())

    async def model_ready(self, request: pb.ModelReadyRequest, _: CallContext) -> pb.ModelReadyResponse:
        """NOT_FOUND for what does not exist, false for what exists and does not answer."""
        return pb.ModelReadyResponse(ready=self._repository.is_ready(request.name, request.version))

    async def server_metadata(self, _: pb.ServerMetadataRequest, __: CallContext) -> pb.ServerMetadataResponse:
        """Name, version, extensions."""
        return pb.ServerMetadataResponse(name=SERVER_NAME, version=models.__version__, extensions=self._extensions)

    async def model_metadata(self, request: pb.ModelMetadataRequest, _: CallContext) -> pb.ModelMetadataResponse:
        """The declaration of a ready version; its proof and accuracy under ``properties``."""
        chosen = self._repository.get(request.name, request.version)
        runner = _runner(chosen)
        return pb.ModelMetadataResponse(
            name=request.name,
            versions=[str(version.version) for version in self._repository.ready(request.name)],
            platform=PLATFORM,
            inputs=_metadata(runner.inputs.values()),
            outputs=_metadata(runner.outputs.values()),
            properties=_properties(chosen),
        )

    def methods(self) -> tuple[Method, ...]:
        """This servicer's rows of the method table."""
        path = "/inference.GRPCInferenceService/"
        unary = (
            ("ServerLive", pb.ServerLiveRequest, self.server_live),
            ("ServerReady", pb.ServerReadyRequest, self.server_ready),
            ("ModelReady", pb.ModelReadyRequest, self.model_ready),
            ("ServerMetadata", pb.ServerMetadataRequest, self.server_metadata),
            ("ModelMetadata", pb.ModelMetadataRequest, self.model_metadata),
            ("ModelInfer", pb.ModelInferRequest, self.model_infer),
            ("ModelConfig", pb.ModelConfigRequest, self.model_config),
            ("ModelStatistics", pb.ModelStatisticsRequest, self.model_statistics),
        )
        rows = [
            Unary(
                path=f"{path}{name}",
                parse=request.FromString,
                serialize=_serialize,
                handler=handler,
                access=Access.OPEN if name in _PROBES else Access.INFERENCE,
                describe=_described if name == "ModelInfer" else _silent,
                describe_answer=_described_answer if name == "ModelInfer" else _silent,
            )
            for name, request, handler in unary
        ]
        stream_row = BidiStream(
            f"{path}ModelStreamInfer", pb.ModelInferRequest.FromString, _serialize, self.model_stream_infer
        )
        return (*rows, stream_row)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _patience(request: pb.ModelInferRequest, context: CallContext, began_ns: int) -> Patience:
    timeout_us, priority = 0, DEFAULT_PRIORITY
    if request.parameters:
        timeout_us = parameters.integer(request.parameters, "timeout", 0, low=0, high=2**63 - 1)
        priority = parameters.integer(request.parameters, "priority", 0, low=0, high=2**64 - 1)
    remaining_s = context.time_remaining_s()
    deadline_ns = None if remaining_s is None else began_ns + int(remaining_s * 1e9)
    return Patience(deadline_ns, timeout_us, priority)


def _why(error: BaseException) -> Failure:
    if isinstance(error, QueueFull | QueueTimeout | DeadlineExceeded):
        return Failure.REJECTED
    if isinstance(error, asyncio.CancelledError):
        return Failure.CANCELED
    return Failure.BACKEND if isinstance(error, InferenceFailed) else Failure.OTHER


def _runner(version: ModelVersion) -> Runner:
    if version.runner is None:
        raise RuntimeError(f"{version.name} version {version.version} is ready and has no runner")
    return version.runner


def _described(request: pb.ModelInferRequest) -> dict[str, str]:
    shapes = ",".join(f"{tensor.name}{list(tensor.shape)}" for tensor in request.inputs)
    return {"model": request.model_name, "version": request.model_version, "id": request.id, "inputs": shapes}


def _silent(_: object) -> dict[str, str]:
    return {}


def _described_answer(response: pb.ModelInferResponse) -> dict[str, str]:
    return {"version": response.model_version}


def _metadata(specs: Iterable[TensorSpec]) -> list[pb.ModelMetadataResponse.TensorMetadata]:
    return [
        pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.wire_shape)
        for spec in specs
    ]


def _properties(chosen: ModelVersion) -> dict[str, str]:
    properties = {"proof": "proven" if chosen.is_proven else "unproven"}
    if chosen.max_difference is not None:
        properties["proof.max_difference"] = f"{chosen.max_difference:.3g}"
    manifest = chosen.manifest
    if manifest is None:
        return properties
    properties["sha256"] = manifest.model_sha256
    properties["created"] = manifest.created
    if manifest.test_accuracy is not None:
        properties["test_accuracy"] = f"{manifest.test_accuracy:.4f}"
    for output, labels in manifest.labels.items():
        properties[f"labels.{output}"] = ",".join(labels)
    return properties
