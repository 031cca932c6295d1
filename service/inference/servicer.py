"""The Open Inference Protocol, method by method. `model_infer` is the whole path of a request.

Knows messages and models; does not know which transport runs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import models
from service.inference import tensors
from service.pb import open_inference_pb2 as pb
from service.transport.methods import CallContext, Unary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from models.tensor_spec import TensorSpec
    from service.inference.admission import Admission
    from service.inference.repository import ModelVersion, Repository
    from service.inference.runner import Runner

SERVER_NAME = "mnist1d-service"
EXTENSIONS = ("binary_tensor_data",)
"""Only what works, by the names under which Triton reports its extensions."""


class InferenceServicer:
    """Answers inference requests from a repository."""

    def __init__(
        self,
        repository: Repository,
        admission: Admission,
        server_is_ready: Callable[[], bool],
        *,
        allow_non_finite: bool = False,
    ) -> None:
        self._repository = repository
        self._admission = admission
        self._server_is_ready = server_is_ready
        self._allow_non_finite = allow_non_finite

    async def model_infer(self, request: pb.ModelInferRequest, _: CallContext) -> pb.ModelInferResponse:
        """One inference: find the model, read the tensors, run, write the tensors."""
        with self._admission.enter():
            model = _runner(self._repository.get(request.model_name, request.model_version))
            asked = tensors.decode(request, model.inputs, model.outputs, allow_non_finite=self._allow_non_finite)
            arrays = await model.infer(asked.feeds, [spec.name for spec in asked.outputs])
            return tensors.encode(request, model.version, asked.outputs, arrays, raw=asked.is_raw)

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
        return pb.ServerMetadataResponse(name=SERVER_NAME, version=models.__version__, extensions=EXTENSIONS)

    async def model_metadata(self, request: pb.ModelMetadataRequest, _: CallContext) -> pb.ModelMetadataResponse:
        """The declaration of a ready version; its proof and accuracy under ``properties``."""
        chosen = self._repository.get(request.name, request.version)
        runner = _runner(chosen)
        return pb.ModelMetadataResponse(
            name=request.name,
            versions=[str(version.version) for version in self._repository.models[request.name].ready],
            platform="onnxruntime_onnx",
            inputs=_metadata(runner.inputs.values()),
            outputs=_metadata(runner.outputs.values()),
            properties=_properties(chosen),
        )

    def methods(self) -> tuple[Unary, ...]:
        """This servicer's rows of the method table."""
        rows = (
            ("ServerLive", pb.ServerLiveRequest, self.server_live),
            ("ServerReady", pb.ServerReadyRequest, self.server_ready),
            ("ModelReady", pb.ModelReadyRequest, self.model_ready),
            ("ServerMetadata", pb.ServerMetadataRequest, self.server_metadata),
            ("ModelMetadata", pb.ModelMetadataRequest, self.model_metadata),
            ("ModelInfer", pb.ModelInferRequest, self.model_infer),
        )
        return tuple(
            Unary(
                path=f"/inference.GRPCInferenceService/{name}",
                parse=request.FromString,
                serialize=lambda response: response.SerializeToString(),
                handler=handler,
                describe=_described if request is pb.ModelInferRequest else lambda _: {},
            )
            for name, request, handler in rows
        )


def _runner(version: ModelVersion) -> Runner:
    if version.runner is None:
        raise RuntimeError(f"{version.name} version {version.version} is ready and has no runner")
    return version.runner


def _described(request: pb.ModelInferRequest) -> dict[str, str]:
    shapes = ",".join(f"{tensor.name}{list(tensor.shape)}" for tensor in request.inputs)
    return {"model": request.model_name, "version": request.model_version, "id": request.id, "inputs": shapes}


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
