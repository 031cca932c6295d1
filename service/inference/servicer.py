"""The methods of the Open Inference Protocol. `InferenceServicer.begin_infer` is the whole path of a request.

It works on messages and models, and does not depend on the transport.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

import models
from service.inference.express import ExpressLane
from service.inference.general import Inference
from service.inference.request import RequestReader
from service.inference.streaming import InferenceStream
from service.pb import open_inference_pb2 as pb
from service.repository.description import PLATFORM, model_config, model_statistics
from service.rpc.methods import Begun, CallContext, Method, Opened, Unary
from service.security.access import Access

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from google.protobuf.message import Message

    from models.artifact.tensor_spec import TensorSpec
    from service.inference.admission import Admission
    from service.inference.general import Done
    from service.inference.request import ReadRequest
    from service.repository.model_version import ModelVersion
    from service.repository.repository import Repository
    from service.rpc.methods import Replies
    from service.runtime.runner import Runner

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
"""Extensions that work without further servicers, by the names that Triton uses for them."""
_PROBES = ("ServerLive", "ServerReady")
"""Methods that need no token, since orchestrators call them without one."""


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
        self._reader = RequestReader(repository, checks_finite=not allow_non_finite, is_streamed=False)
        self._stream_reader = RequestReader(repository, checks_finite=not allow_non_finite, is_streamed=True)
        self._express = ExpressLane(self._reader, admission)
        self._stream_express = ExpressLane(self._stream_reader, admission)
        self._refusals: set[asyncio.Future[NoReturn]] = set()  # the loop holds only weak references to tasks

    def begin_infer(self, request: ReadRequest, context: CallContext, done: Done) -> Callable[[], None]:
        """Start one inference: find the model, read the tensors, wait for a run, write the tensors.

        ``done`` is called with the response or the exception; the returned function cancels the inference. Raises the
        exception instead if the request fails before it is queued.
        """
        if self._admission.is_closed:
            return self._refuse(context, done)
        message = request.message
        version = self._repository.get(message.model_name, message.model_version)
        inference = Inference(self._admission, _runner(version), done)
        asked = inference.begin(message, version.labels, context, allow_non_finite=self._allow_non_finite)
        request.learn(inference.model, asked)
        return inference.cancel

    def open_stream(self, context: CallContext, replies: Replies) -> InferenceStream:
        """Open a stream of inferences, as `service.inference.streaming` describes."""
        return InferenceStream(
            context, replies, read=self._stream_reader.read, begin=self.begin_infer, express=self._stream_express.enter
        )

    def _refuse(self, context: CallContext, done: Done) -> Callable[[], None]:
        task = asyncio.ensure_future(self._admission.refuse(context.time_remaining_s()))
        self._refusals.add(task)

        def refused(task: asyncio.Future[NoReturn]) -> None:
            self._refusals.discard(task)
            error = None if task.cancelled() else task.exception()
            if isinstance(error, Exception):
                done(error)

        task.add_done_callback(refused)

        def cancel() -> None:
            task.cancel()

        return cancel

    async def model_config(self, request: pb.ModelConfigRequest, _: CallContext) -> pb.ModelConfigResponse:
        """Answer ModelConfig for one version, as `service.repository.description` describes it."""
        version = self._repository.get(request.name, request.version)
        policy = self._repository.policy_of(request.name)
        return pb.ModelConfigResponse(config=model_config(version, _runner(version), policy))

    async def model_statistics(self, request: pb.ModelStatisticsRequest, _: CallContext) -> pb.ModelStatisticsResponse:
        """Answer ModelStatistics for one version, for all ready versions of a model, or for all models."""
        if request.version:
            chosen = [self._repository.get(request.name, request.version)]
        elif request.name:
            chosen = list(self._repository.ready(request.name))
        else:
            chosen = [version for model in self._repository.models.values() for version in model.ready]
        return pb.ModelStatisticsResponse(model_stats=[model_statistics(_runner(version)) for version in chosen])

    async def server_live(self, _: pb.ServerLiveRequest, __: CallContext) -> pb.ServerLiveResponse:
        """Answer ServerLive: a server that can answer is live."""
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, _: pb.ServerReadyRequest, __: CallContext) -> pb.ServerReadyResponse:
        """Answer ServerReady, as `service.health.readiness` decides."""
        return pb.ServerReadyResponse(ready=self._server_is_ready())

    async def model_ready(self, request: pb.ModelReadyRequest, _: CallContext) -> pb.ModelReadyResponse:
        """Answer ModelReady: NOT_FOUND for an unknown model or version, false for one that is not ready."""
        return pb.ModelReadyResponse(ready=self._repository.is_ready(request.name, request.version))

    async def server_metadata(self, _: pb.ServerMetadataRequest, __: CallContext) -> pb.ServerMetadataResponse:
        """Answer ServerMetadata with the server's name, version and extensions."""
        return pb.ServerMetadataResponse(name=SERVER_NAME, version=models.__version__, extensions=self._extensions)

    async def model_metadata(self, request: pb.ModelMetadataRequest, _: CallContext) -> pb.ModelMetadataResponse:
        """Answer ModelMetadata: inputs and outputs of a ready version, its proof and accuracy under ``properties``."""
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
                describe=_named if name.startswith("Model") else _silent,
            )
            for name, request, handler in unary
        ]
        infer_row = Begun(
            f"{path}ModelInfer",
            self._reader.parse,
            _serialize,
            begin=self.begin_infer,
            express=self._express.enter,
            describe=_described,
            describe_answer=_described_answer,
        )
        # Bytes in and out: the stream parses and serializes its messages itself.
        stream_row = Opened(f"{path}ModelStreamInfer", bytes, bytes, open=self.open_stream)
        return (*rows, infer_row, stream_row)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _runner(version: ModelVersion) -> Runner:
    if version.runner is None:
        raise RuntimeError(f"{version.name} version {version.version} is ready and has no runner")
    return version.runner


def _described(read: ReadRequest) -> dict[str, str]:
    request = read.message
    shapes = ",".join(f"{tensor.name}{list(tensor.shape)}" for tensor in request.inputs)
    return _told(model=request.model_name, version=request.model_version, id=request.id, inputs=shapes)


def _named(
    request: pb.ModelReadyRequest | pb.ModelMetadataRequest | pb.ModelConfigRequest | pb.ModelStatisticsRequest,
) -> dict[str, str]:
    return _told(model=request.name, version=request.version)


def _silent(_: object) -> dict[str, str]:
    return {}


def _told(**fields: str) -> dict[str, str]:
    """The fields that the caller filled in; an empty string means that the field was not set."""
    return {name: value for name, value in fields.items() if value}


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
