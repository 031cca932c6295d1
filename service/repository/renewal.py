"""Update one model from disk: new versions are loaded and proven while the old ones keep serving.

The main rule: a serving version is replaced only by one that is READY, or removed when its files are deleted. Refused
files change nothing but the reported reason.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.artifact.publication import versions
from service.repository.loader import mark_of
from service.repository.model_settings import ModelFileError, ModelSettings, read_model_file
from service.repository.model_version import Cause, ModelVersion, ServedModel, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from service.repository.loader import Loader
    from service.repository.version_policy import VersionPolicy


class Stopped(Exception):
    """The server stops; a model that was being updated stays as it was."""


@dataclass(frozen=True)
class OnDisk:
    """The contents of a model's directory at one moment."""

    name: str
    directory: Path
    present: tuple[int, ...]
    """The model's versions, ascending."""
    settings: ModelSettings
    problem: str = ""
    """Why ``model.json`` cannot be used; empty if it can, or if there is none."""

    @classmethod
    def look(cls, name: str, directory: Path, settings: ModelSettings | None = None) -> OnDisk:
        """List the versions and read ``model.json``, unless ``settings`` replace it.

        Raises OSError if the directory cannot be listed. A missing directory has no versions.
        """
        present = tuple(versions(directory))
        if settings is not None:
            return cls(name, directory, present, settings)
        try:
            return cls(name, directory, present, read_model_file(directory))
        except ModelFileError as error:
            return cls(name, directory, present, ModelSettings(), str(error))


class Renewal:
    """Updates models from disk. Blocks while it loads."""

    def __init__(
        self,
        loader: Loader,
        default_policy: VersionPolicy,
        *,
        show: Callable[[ServedModel], None],
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """``show`` is called with the model as readers may see it while a version is being loaded."""
        self._loader = loader
        self._default_policy = default_policy
        self._show = show
        self._is_stopping = is_stopping

    def policy_for(self, found: OnDisk) -> VersionPolicy:
        """The model's version policy, or else the server's."""
        return found.settings.version_policy or self._default_policy

    def renewed(
        self, current: ServedModel, found: OnDisk, *, retry: bool = False, by_request: bool = False
    ) -> ServedModel:
        """Return the updated model, which is equal to ``current`` if nothing has changed.

        ``retry`` loads refused versions again although their files have not changed. ``by_request``: versions that are
        not found may still exist, since ``found`` may be the files of a load request. Raises Stopped.
        """
        if found.problem:
            return _set_back(current, found)
        policy = self.policy_for(found)
        base = dataclasses.replace(current, policy=policy, problem="", is_unloaded=False)
        chosen: dict[int, ModelVersion] = {}
        ready = 0
        for version in policy.candidates(found.present):
            if policy.latest is not None and ready >= policy.latest:
                break
            chosen[version] = self._version(base, found, version, retry=retry)
            ready += chosen[version].state is State.READY
        if not ready:
            # No chosen version is ready: those that serve now are kept, unless they were deleted.
            kept = {was.version: was for was in current.ready if by_request or was.version in found.present}
            chosen |= kept
            if by_request and kept:
                # The request is refused as a whole: the policy stays that of the versions that serve.
                base = dataclasses.replace(base, policy=current.policy)
        return dataclasses.replace(base, versions=dict(sorted(chosen.items())))

    def _version(self, base: ServedModel, found: OnDisk, version: int, *, retry: bool) -> ModelVersion:
        directory = found.directory / str(version)
        was = base.versions.get(version)
        if was is not None and was.mark == mark_of(directory, found.settings):
            tries_again = retry and was.cause.is_refusal
            if was.state in (State.READY, State.UNAVAILABLE) and not tries_again:
                return was
        if self._is_stopping():
            raise Stopped
        if was is None or was.state is not State.READY:
            loading = ModelVersion(base.name, version, State.LOADING)
            self._show(dataclasses.replace(base, versions={**base.versions, version: loading}))
        loaded = self._loader.load(base.name, version, directory, found.settings)
        if loaded.state is not State.READY and was is not None and was.state is State.READY:
            return dataclasses.replace(
                was,
                reason=f"it serves on from what was loaded before; its files now are refused: {loaded.reason}",
                cause=loaded.cause,
                mark=loaded.mark,
            )
        return loaded


def _set_back(current: ServedModel, found: OnDisk) -> ServedModel:
    """The model with invalid settings: nothing new is loaded, and deleted versions are removed."""
    kept = {number: was for number, was in current.versions.items() if number in found.present}
    if not any(was.state is State.READY for was in kept.values()):
        newest = max(found.present)
        kept = {
            newest: ModelVersion(
                current.name, newest, State.UNAVAILABLE, found.problem, Cause.SETTINGS_INVALID, mark=found.problem
            )
        }
    return dataclasses.replace(current, versions=kept, problem=found.problem, is_unloaded=False)
