"""The rows of the method table that speak for all workers, whichever of them is asked.

The handlers stay as they are, and do in each worker what they do in a server of one process; here their rows are
wrapped, so that a call goes to all of them and one answer comes back. The requests travel as the bytes that they are.
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
"""For the supervisor to answer a question; it gives each worker less."""
_CHANGE_S = 3600.0
"""Seconds for the supervisor to answer a change, which waits for earlier ones. Callers have their own deadlines."""


@dataclass(frozen=True)
class _Sharing:
    """How one method is shared."""

    merge: Callable[[Any, Sequence[tuple[int, Any]]], Any]
    """One response, from a request and the responses of the workers that gave one, by number, its own first."""
    response: Callable[[bytes], Any]
    decides: Callable[[Any], str] = lambda _: ""
    """On what a request decides: of all decisions on the same thing the last one counts. Empty where it only asks."""
    asks_all: bool = True
    """Whether a mere question goes to all; otherwise they all say the same."""


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
    """Wraps the rows, and runs on this worker what another one was asked."""

    def __init__(self, backplane: Backplane, number: int) -> None:
        """``number`` is that of this worker."""
        self._backplane = backplane
        self._number = number
        self._local: dict[str, Unary] = {}
        backplane.on("run", self._run)

    def wrap(self, methods: Iterable[Method]) -> tuple[Method, ...]:
        """The table with shared rows replaced by rows that speak for all workers."""
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
            # A question may find a version in some workers only, while it is loaded; a change shall work in all.
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
        """Answer for this worker alone."""
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
    """A `CallContext` of a call that another worker was given."""

    metadata: Sequence[tuple[str, str | bytes]] = ()

    def __init__(self, peer: str) -> None:
        self.peer = peer

    def time_remaining_s(self) -> float | None:
        """Without an end: half a change would be worse than a late one."""
        return None


def _told(failed: Sequence[Answer], given: Sequence[Answer]) -> ServiceError:
    """What the caller hears. All the same everywhere: as if there were one process. Otherwise who and what."""
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
