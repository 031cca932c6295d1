"""One model brought up to date with what lies on disk: what is new is loaded and proven beside what serves.

The rule that everything else follows from: a version that serves gives way only to one that is READY, or to its own
deletion. Files that are refused change nothing but the reason that is told.
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
    """The server stops; what is half renewed stays as it was."""


@dataclass(frozen=True)
class OnDisk:
    """What a model's directory holds, at one moment."""

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

        Raises OSError where the directory cannot be listed. What is not there has no versions.
        """
        present = tuple(versions(directory))
        if settings is not None:
            return cls(name, directory, present, settings)
        try:
            return cls(name, directory, present, read_model_file(directory))
        except ModelFileError as error:
            return cls(name, directory, present, ModelSettings(), str(error))


class Renewal:
    """Brings models up to date. Blocks while it loads."""

    def __init__(
        self,
        loader: Loader,
        default_policy: VersionPolicy,
        *,
        show: Callable[[ServedModel], None],
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """``show`` is given what may be seen while a version is being loaded."""
        self._loader = loader
        self._default_policy = default_policy
        self._show = show
        self._is_stopping = is_stopping

    def policy_for(self, found: OnDisk) -> VersionPolicy:
        """The model's own policy, or else the server's."""
        return found.settings.version_policy or self._default_policy

    def renewed(
        self, current: ServedModel, found: OnDisk, *, retry: bool = False, by_request: bool = False
    ) -> ServedModel:
        """What takes the place of ``current``; ``current`` itself, or its equal, where nothing has changed.

        ``retry`` loads refused versions again although their files have not changed. ``by_request``: what is not found
        need not have been deleted, since the files may be those of the request. Raises Stopped.
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
            # Nothing that is asked for can serve: what serves goes on, as long as it has not been deleted.
            kept = {was.version: was for was in current.ready if by_request or was.version in found.present}
            chosen |= kept
            if by_request and kept:
                # The request is refused as a whole, with its policy: what serves is what the one before chose.
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
    """With settings that cannot be used: nothing new is loaded, and what was deleted goes."""
    kept = {number: was for number, was in current.versions.items() if number in found.present}
    if not any(was.state is State.READY for was in kept.values()):
        newest = max(found.present)
        kept = {
            newest: ModelVersion(
                current.name, newest, State.UNAVAILABLE, found.problem, Cause.SETTINGS_INVALID, mark=found.problem
            )
        }
    return dataclasses.replace(current, versions=kept, problem=found.problem, is_unloaded=False)
