"""Triton's model repository extension: index, load, unload. KServe's form of the messages is accepted too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.errors import InvalidRequest, Unsupported
from service.pb import open_inference_pb2 as pb
from service.repository.load_parameters import LoadParameters
from service.repository.model_version import State
from service.rpc.methods import CallContext, Unary
from service.security.access import Access

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from service.repository.control import RepositoryControl
    from service.repository.model_version import ServedModel
    from service.repository.repository import Repository

_UNLOAD_DEPENDENTS = "unload_dependents"


class ControlServicer:
    """Answers the calls of the model repository extension."""

    def __init__(self, repository: Repository, control: RepositoryControl) -> None:
        self._repository = repository
        self._control = control

    async def index(self, request: pb.RepositoryIndexRequest, _: CallContext) -> pb.RepositoryIndexResponse:
        """List every known version with its state and reason, and models that are only on disk by name."""
        if request.repository_name:
            raise Unsupported("'repository_name' specification is not supported: there is one repository")
        response = pb.RepositoryIndexResponse()
        on_disk = [] if request.ready else await self._control.names_on_disk()
        models = self._repository.models
        for name in sorted({*models, *on_disk}):
            model = models.get(name)
            if model is None or not model.versions:
                if not request.ready:
                    response.models.add(name=name, reason=model.problem if model is not None else "")
                continue
            if model.is_unloaded and name not in on_disk and not _is_draining(model):
                continue  # unloaded, deleted and not draining
            for number, version in sorted(model.versions.items()):
                if request.ready and version.state is not State.READY:
                    continue
                response.models.add(
                    name=name,
                    version=str(number),
                    state=version.state.value,
                    reason="; ".join(dict.fromkeys(filter(None, (version.reason, model.problem)))),
                )
        return response

    async def load(self, request: pb.RepositoryModelLoadRequest, _: CallContext) -> pb.RepositoryModelLoadResponse:
        """Load a model, as `RepositoryControl.load` describes."""
        name = _model_name(request)
        self._control.check(name)  # permission is checked before the parameters
        await self._control.load(name, LoadParameters.parse(name, request.parameters))
        return pb.RepositoryModelLoadResponse(model_name=name, isLoaded=True)

    async def unload(
        self, request: pb.RepositoryModelUnloadRequest, _: CallContext
    ) -> pb.RepositoryModelUnloadResponse:
        """Unload a model, as `RepositoryControl.unload` describes. There are no ensembles, hence no dependents."""
        name = _model_name(request)
        self._control.check(name)
        for key, parameter in request.parameters.items():
            if key != _UNLOAD_DEPENDENTS or parameter.WhichOneof("parameter_choice") != "bool_param":
                raise InvalidRequest(
                    f"Unrecognized unload parameter {key[:200]!r}; expected {_UNLOAD_DEPENDENTS!r} with bool_param"
                )
        await self._control.unload(name)
        return pb.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True)

    def methods(self) -> tuple[Unary, ...]:
        """This servicer's rows of the method table."""
        path = "/inference.GRPCInferenceService/Repository"
        return (
            Unary(f"{path}Index", pb.RepositoryIndexRequest.FromString, _serialize, self.index),
            Unary(
                f"{path}ModelLoad",
                pb.RepositoryModelLoadRequest.FromString,
                _serialize,
                self.load,
                access=Access.CONTROL,
                describe=_described,
            ),
            Unary(
                f"{path}ModelUnload",
                pb.RepositoryModelUnloadRequest.FromString,
                _serialize,
                self.unload,
                access=Access.CONTROL,
                describe=_described,
            ),
        )


def _is_draining(model: ServedModel) -> bool:
    return any(version.state is State.UNLOADING for version in model.versions.values())


def _model_name(request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> str:
    """The model's name: Triton's clients fill only ``model_name``, KServe's the field ``repository_name``."""
    if request.model_name and request.repository_name:
        raise Unsupported("'repository_name' specification is not supported: there is one repository")
    return request.model_name or request.repository_name


def _described(request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> dict[str, str]:
    return {"model": request.model_name or request.repository_name}


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
