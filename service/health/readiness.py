"""Whether the server and each model are ready, derived from the repository at each query.

There is no second copy of the state that could become stale: ServerReady, the health service and (through them) an
orchestrator's probes all use this module. Watchers are woken when something may have changed and query again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.repository.repository import Repository

INFERENCE_SERVICE = "inference.GRPCInferenceService"


class Readiness:
    """The readiness of a server. Belongs to one event loop; `changed` may be called from any thread."""

    def __init__(
        self, repository: Repository, *, strict: bool, may_be_empty: bool = False, services: Sequence[str] = ()
    ) -> None:
        """``may_be_empty`` is for a server whose models are loaded and unloaded by request.

        ``services`` are the services other than inference, which depend on no model.
        """
        self._repository = repository
        self._strict = strict
        self._may_be_empty = may_be_empty
        self._services = services
        self._is_draining = False
        self._is_over = False
        self._waiters: set[asyncio.Event] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def is_draining(self) -> bool:
        """Whether the server takes no new work and will exit."""
        return self._is_draining

    @property
    def is_over(self) -> bool:
        """Whether the server is stopping its transport, so that nothing will change any more."""
        return self._is_over

    def server_is_ready(self) -> bool:
        """Whether the server as a whole can take requests.

        Strict, as Triton does by default: every required model has a ready version. Required are models that were
        there at the start or have been ready since, until they are unloaded on purpose or deleted; so a broken model
        that is added to a shared repository takes no server out of service. Not strict: at least one model has a
        ready version. A server still loading or draining is not ready, and neither is one without any ready model,
        unless its models are loaded by request and none is required.
        """
        if self._is_draining or not self._repository.is_loaded:
            return False
        models = self._repository.served.values()
        required = [bool(model.ready) for model in models if model.is_required]
        if not any(model.ready for model in models):
            return self._may_be_empty and not required
        return all(required) if self._strict else True

    def statuses(self) -> Mapping[str, bool]:
        """Whether each name of the health service is ready: '' for the server, its services, ``model/<name>``."""
        whole = self.server_is_ready()
        models = {
            f"model/{name}": bool(model.ready) and not self._is_draining
            for name, model in self._repository.served.items()
        }
        others = dict.fromkeys(self._services, not self._is_draining)
        return {"": whole, INFERENCE_SERVICE: whole, **others, **models}

    def start_draining(self) -> None:
        """Report nothing as ready from now on."""
        self._is_draining = True
        self._wake()

    def end_watches(self) -> None:
        """End all watches of changes: the transport is closing."""
        self._is_over = True
        self._wake()

    def changed(self) -> None:
        """Wake the watchers: the repository may have changed. Thread-safe."""
        self._loop.call_soon_threadsafe(self._wake)

    async def wait_for_change(self, event: asyncio.Event) -> None:
        """Wait until something may have changed since ``event`` was subscribed or last waited for."""
        await event.wait()
        event.clear()

    def subscribe(self) -> asyncio.Event:
        """An event that is set on each change, until `unsubscribe`."""
        event = asyncio.Event()
        self._waiters.add(event)
        return event

    def unsubscribe(self, event: asyncio.Event) -> None:
        """Stop setting the event."""
        self._waiters.discard(event)

    def _wake(self) -> None:
        for event in self._waiters:
            event.set()
