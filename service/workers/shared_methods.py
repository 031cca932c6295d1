"""Cluster-wide methods: the rows of the method table that answer for all workers, whichever of them is called.

The handlers do in each worker what they do in a server of one process; their rows are wrapped here, so that a call goes
to all workers and their answers are merged. The requests are forwarded as bytes.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.errors import ServerStopping, ServiceError, WorkerFailed, WorkerSilent
from service.pb import open_inference_pb2 as pb
from service.rpc.methods import Method, Unary
from service.workers import merging
from service.workers.backplane import BackplaneClosed, BackplaneFailed, Message
from service.workers.replies import Answer, error_fields, reworded, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from service.rpc.methods import CallContext
    from service.workers.backplane import Backplane

_log = logging.getLogger(__name__)

_INFERENCE = "/inference.GRPCInferenceService/"
_QUESTION_S = 10.0
"""Seconds for the supervisor to answer a question; it gives each worker less."""
_CHANGE_S = 3600.0
"""Seconds for the supervisor to answer a change, which waits for earlier ones. Callers have their own deadlines."""


@dataclass(frozen=True)
class _Sharing:
    """How one method is made cluster-wide."""

    merge: Callable[[Any, Sequence[tuple[int, Any]]], Any]
    """Merges the responses to a request into one; they come with the workers' numbers, those of this worker first."""
    response: Callable[[bytes], Any]
    decides: Callable[[Any], str] = lambda _: ""
    """Names what a request changes: of all changes with the same name the last one counts. Empty for a question."""
    asks_all: bool = True
    """Whether a question goes to all workers; False if they all give the same answer."""


def _own(_: object, answers: Sequence[tuple[int, Any]]) -> object:
    return answers[0][1]


def _model(request: Any) -> str:  # noqa: ANN401 - a load or an unload
    return f"model {request.model_name or request.repository_name}"


def _settings(request: Any) -> str:  # noqa: ANN401 - log or trace settings
    names = ",".join(sorted(request.settings))
    return f"settings of {getattr(request, 'model_name', '')!r}: {names}" if names else ""


_SHARINGS = {
    f"{_INFERENCE}ModelStatistics": _Sharing(
        lambda _, answers: merging.statistics(answers), pb.ModelStatisticsResponse.FromString
    ),
    f"{_INFERENCE}RepositoryIndex": _Sharing(
        lambda request, answers: merging.index(answers, ready_only=request.ready),
        pb.RepositoryIndexResponse.FromString,
    ),
    f"{_INFERENCE}RepositoryModelLoad": _Sharing(_own, pb.RepositoryModelLoadResponse.FromString, _model),
    f"{_INFERENCE}RepositoryModelUnload": _Sharing(_own, pb.RepositoryModelUnloadResponse.FromString, _model),
    f"{_INFERENCE}LogSettings": _Sharing(_own, pb.LogSettingsResponse.FromString, _settings, asks_all=False),
    f"{_INFERENCE}TraceSetting": _Sharing(_own, pb.TraceSettingResponse.FromString, _settings, asks_all=False),
}


class SharedMethods:
    """Wraps the rows, and runs calls on this worker that another one received."""

    def __init__(self, backplane: Backplane, number: int) -> None:
        """``number`` is this worker's number."""
        self._backplane = backplane
        self._number = number
        self._local: dict[str, Unary] = {}
        backplane.on("run", self._run)

    def wrap(self, methods: Iterable[Method]) -> tuple[Method, ...]:
        """Return the table with the shared rows replaced by cluster-wide ones."""
        return tuple(
            self._wrapped(method, _SHARINGS[method.path])
            if isinstance(method, Unary) and method.path in _SHARINGS
            else method
            for method in methods
        )

    def _wrapped(self, method: Unary, sharing: _Sharing) -> Unary:
        self._local[method.path] = method

        async def handler(request: Any, context: CallContext) -> Any:  # noqa: ANN401 - the row's messages
            decides = sharing.decides(request)
            if not (decides or sharing.asks_all):
                return await method.handler(request, context)
            answers = await self._ask_all(method.path, request.SerializeToString(), decides, context.peer)
            given = [answer for answer in answers if answer.error is None]
            failed = [answer for answer in answers if answer.error is not None]
            # While a version is being loaded, a question may succeed in some workers only; a change must in all.
            silent = any(isinstance(answer.error, WorkerSilent) for answer in failed)
            if failed and (decides or silent or not given):
                raise _told(failed, given)
            return sharing.merge(request, [(answer.worker, sharing.response(answer.body)) for answer in given])

        return dataclasses.replace(method, handler=handler)

    async def _ask_all(self, path: str, request: bytes, decides: str, peer: str) -> list[Answer]:
        fields = {"path": path, "decides": decides, "peer": peer}
        timeout_s = _CHANGE_S if decides else _QUESTION_S
        try:
            return unpack(await self._backplane.call("ask all", fields, request, timeout_s=timeout_s))
        except BackplaneClosed as error:
            raise ServerStopping("Server exiting") from error
        except BackplaneFailed as error:
            raise WorkerFailed(str(error)) from error
        except TimeoutError as error:
            raise WorkerSilent(f"the server's other processes did not answer within {timeout_s:g} s") from error

    async def _run(self, message: Message) -> Message:
        """Run a forwarded call on this worker only."""
        method = self._local.get(message.fields["path"])
        if method is None:
            raise BackplaneFailed(f"{message.fields['path']} is not shared")
        try:
            request = method.parse(message.body)
            response = await method.handler(request, _RelayedContext(message.fields["peer"]))
        except ServiceError as error:
            return Message({"error": error_fields(error)})
        return Message(body=method.serialize(response))


class _RelayedContext:
    """The `CallContext` of a call that another worker received."""

    metadata: Sequence[tuple[str, str | bytes]] = ()

    def __init__(self, peer: str) -> None:
        self.peer = peer

    def time_remaining_s(self) -> float | None:
        """Return None, no deadline: half a change would be worse than a late one."""
        return None


def _told(failed: Sequence[Answer], given: Sequence[Answer]) -> ServiceError:
    """The error for the caller: the workers' error if all failed alike, else one that names those that failed."""
    first = failed[0]
    if first.error is None:
        raise ValueError("an answer without an error")
    if not given and len({str(answer.error) for answer in failed}) == 1:
        return first.error
    others = f"; done in {_workers(given)}" if given else ""
    return reworded(first.error, f"in {_workers(failed)}: {first.error}{others}")


def _workers(answers: Iterable[Answer]) -> str:
    numbers = sorted(answer.worker for answer in answers)
    return f"worker{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
