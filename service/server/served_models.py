"""Information about the served models for training, which does not depend on the inference side."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from service.errors import ServerStopping
from service.repository.control_mode import Mode
from service.training.serving import VersionStatus

if TYPE_CHECKING:
    from service.repository.control import RepositoryControl
    from service.repository.repository import Repository


class ServedModels:
    """The models of this server, as a `service.training.serving.Serving`."""

    def __init__(self, repository: Repository, control: RepositoryControl) -> None:
        self._repository = repository
        self._control = control

    def version(self, model: str) -> int | None:
        """The version that answers requests for a model; None if there is none."""
        served = self._repository.current(model)
        return served.ready[-1].version if served is not None and served.ready else None

    def version_status(self, model: str, version: int) -> VersionStatus:
        """The present state of a version and its reason."""
        served = self._repository.models.get(model)
        found = served.versions.get(version) if served is not None else None
        if found is not None:
            return VersionStatus(found.state.value, found.reason)
        if self._control.mode is not Mode.POLL:
            return VersionStatus(
                "UNKNOWN", f"this server does not look by itself (model_control_mode {self._control.mode.value})"
            )
        return VersionStatus("UNKNOWN", "not among the versions that this server has looked at")

    async def look(self) -> None:
        """Scan the repository now, if the server polls it; return when all new versions are proven or refused."""
        with contextlib.suppress(ServerStopping):
            await self._control.look()
