"""The served models and their ready versions; a version is READY only after its proof replayed here.

Readers take snapshots: every model is an immutable value that is replaced as a whole, so that a look-up is a dict
access without locks, and changes are atomic. Methods that change it block; call them from a thread, one at a time.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from typing import TYPE_CHECKING

from models.artifact.publication import MODEL_NAME, is_being_published, model_names
from service.errors import InvalidRequest, LoadFailed, LoadRefused, ModelNotFound, ModelNotReady
from service.repository.draining import Draining
from service.repository.loader import Loader
from service.repository.model_settings import TRITON_CONFIG
from service.repository.model_version import Cause, ModelVersion, ServedModel, State
from service.repository.renewal import OnDisk, Renewal, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from service.repository.model_settings import ModelSettings
    from service.repository.version_policy import VersionPolicy

_log = logging.getLogger(__name__)


class Repository:
    """The models below one directory."""

    def __init__(
        self,
        root: Path,
        policy: VersionPolicy,
        loader: Loader | None = None,
        *,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """``policy`` applies to models that set none; ``on_change`` may be called from any thread."""
        self._root = root
        self._policy = policy
        self._on_change = on_change
        self._models: dict[str, ServedModel] = {}
        self.current: Callable[[str], ServedModel | None] = self._models.get
        """Returns the current value of a model; each change makes a new object. Called for every request."""
        self._draining = Draining()
        self._is_loaded = False
        self._is_stopping = False
        self._changing = threading.Lock()
        self._said: dict[str, str] = {}
        self._renewal = Renewal(
            loader if loader is not None else Loader(), policy, show=self._put, is_stopping=lambda: self._is_stopping
        )

    # ---- for readers, from any thread ----------------------------------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        """Whether the first load of every model is over, with or without success."""
        return self._is_loaded

    @property
    def served(self) -> Mapping[str, ServedModel]:
        """A snapshot by name of the models that take new requests, without deleted ones that still drain."""
        return dict(self._models)

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """A snapshot by name, with the versions that are draining as UNLOADING."""
        models = dict(self._models)
        for leaving in self._draining.versions():
            model = models.get(leaving.name, ServedModel(leaving.name, is_required=False, is_unloaded=True))
            was = model.versions.get(leaving.version)
            if was is None or was.state is State.UNAVAILABLE:
                models[leaving.name] = dataclasses.replace(model, versions={**model.versions, leaving.version: leaving})
        return models

    def policy_of(self, name: str) -> VersionPolicy:
        """The version policy of a model."""
        model = self._models.get(name)
        return model.policy if model is not None else self._policy

    def get(self, name: str, version: str = "") -> ModelVersion:
        """Return a ready version; the newest one if ``version`` is empty.

        The version stays usable while it is referenced, even if it is replaced or deleted meanwhile.

        Raises:
            InvalidRequest: ``version`` is not a whole number.
            ModelNotFound: no such model, no such version of it, or it was unloaded on purpose.
            ModelNotReady: it exists but is not ready, or it may exist and the first load is not over.
        """
        model = self._models.get(name)
        if model is None and not self._is_loaded:
            # Calls come as soon as the port is open, and clients do not retry NOT_FOUND.
            raise ModelNotReady(f"Request for model {name!r}: the server is starting and does not know yet", model=name)
        if model is None:
            raise ModelNotFound(f"Request for unknown model: {name!r} is not found", model=name)
        if version:
            found = _version(model, version)
            if found.state is not State.READY:
                raise _not_ready(
                    f"Request for model {name!r} version {version}: not at ready state: {_why(found)}", found
                )
            return found
        if model.ready:
            return model.ready[-1]
        if model.is_unloaded:
            raise ModelNotFound(
                f"Request for unknown model: {name!r} has no available versions: it was unloaded",
                model=name,
            )
        newest = model.versions.get(max(model.versions, default=0))
        why = f"no version is at ready state: {_newest_reason(model)}"
        if newest is not None:
            raise _not_ready(f"Request for model {name!r}: {why}", newest)
        raise ModelNotReady(f"Request for model {name!r}: {why}", model=name)

    def ready(self, name: str) -> Sequence[ModelVersion]:
        """Return every ready version, oldest first; raises as `get` does if there is none."""
        model = self._models.get(name)
        return model.ready if model is not None and model.ready else (self.get(name),)

    def is_ready(self, name: str, version: str = "") -> bool:
        """Whether `get` would succeed; raises ModelNotFound and InvalidRequest as it does."""
        model = self._models.get(name)
        if model is not None and model.is_unloaded:
            return False
        try:
            self.get(name, version)
        except ModelNotReady:
            return False
        return True

    def names_on_disk(self) -> list[str]:
        """Names of the models that could be loaded, sorted. Reads the directory; raises OSError."""
        return model_names(self._root)

    # ---- changes, one at a time ----------------------------------------------------------------------------------

    def load_all(self) -> None:
        """Load and prove every model for the first time. Blocks; never raises for a bad model."""
        self.refresh()
        self._is_loaded = True
        self._on_change()

    def load_named(self, names: Sequence[str]) -> None:
        """Load and prove only these models for the first time. Blocks; never raises for a bad model."""
        with self._changing:
            for name in names:
                try:
                    self._load(self._found(name, self._root / name, None))
                except (LoadFailed, LoadRefused) as error:
                    _log.error("model is not served", extra={"model": name, "reason": str(error)})
                    if name not in self._models:
                        self._put(ServedModel(name, policy=self._policy, problem=str(error)))
                except Stopped:
                    break
        self._is_loaded = True
        self._on_change()

    def refresh(self, *, retry: bool = False) -> None:
        """Update every model from the directory. Blocks; never raises for a bad model.

        Cheap if nothing has changed: a few `stat` calls per version. ``retry`` also loads refused versions again that
        have not changed.
        """
        with self._changing:
            looked = self._look()
            for name, found in looked.items():
                if name not in self._models:
                    # Show all of them first, so that each is known while the first one loads.
                    self._put(self._newcomer(found))
            for found in looked.values():
                try:
                    self._renew(found, retry=retry)
                except Stopped:
                    return

    def load(self, name: str, directory: Path | None = None, settings: ModelSettings | None = None) -> ServedModel:
        """Load or reload one model, from its own directory or from another one; returns the updated model.

        ``settings`` replace its ``model.json``. Versions whose files have not changed are not loaded again, unless
        they were refused. Blocks.

        Raises:
            LoadRefused: a version's proof failed. Versions that were ready keep serving.
            LoadFailed: there is no such model, a version that its policy names is not there, or it cannot be loaded.
                Versions that were ready keep serving.
            Stopped: the server stops.
        """
        with self._changing:
            found = self._found(name, directory if directory is not None else self._root / name, settings)
            policy = self._renewal.policy_for(found)
            missing = policy.missing(found.present)
            if missing and not found.problem:
                raise LoadFailed(
                    f"failed to load {name!r}, no version {', '.join(map(str, missing))} is there, which the policy "
                    f"{policy} asks for; there is {', '.join(map(str, found.present))}"
                    f"{_still_served(self._models.get(name))}",
                    model=name,
                )
            return self._load(found)

    def unload(self, name: str) -> None:
        """Unload a model: it takes no new requests, and running ones finish. An unknown model is ignored."""
        with self._changing:
            model = self._models.get(name)
            if model is None or model.is_unloaded:
                return
            out = {
                number: ModelVersion(name, number, State.UNAVAILABLE, "unloaded", Cause.UNLOADED)
                for number in model.versions
            }
            self._replace(
                ServedModel(name, out, policy=model.policy, is_required=False, is_unloaded=True),
                why="unloaded on request",
            )

    def stop(self) -> None:
        """Begin no further load. May be called from any thread."""
        self._is_stopping = True

    # ---- implementation -----------------------------------------------------------------------------------------

    def _look(self) -> dict[str, OnDisk]:
        """Scan the directory; returns the models found, without unreadable ones, which stay as they are."""
        try:
            # Checked, since a missing root (an unmounted share, say) does not mean that all models were deleted.
            names = model_names(self._root) if self._root.is_dir() else None
        except OSError as error:
            self._say("", "repository cannot be looked at", reason=str(error))
            return {}
        if names is None:
            self._say("", "repository cannot be looked at", reason=f"{self._root} is no directory")
            return {}
        self._said.pop("", None)
        looked = {}
        for name in sorted({*names, *self._models}):
            try:
                found = OnDisk.look(name, self._root / name)
            except OSError as error:
                self._say(name, "model cannot be looked at", reason=str(error))
                if name not in self._models and not self._is_loaded:
                    # It was there at the start and cannot be read: the server is not ready without it.
                    self._put(ServedModel(name, policy=self._policy, problem=f"it cannot be looked at: {error}"))
                continue
            if found.present:
                looked[name] = found
            elif name in self._models:
                self._remove(name)
            elif not is_being_published(self._root / name):
                self._say(name, "model has no version to serve")
        return looked

    def _newcomer(self, found: OnDisk) -> ServedModel:
        policy = found.settings.version_policy or self._policy
        loading = {n: ModelVersion(found.name, n, State.LOADING) for n in policy.candidates(found.present)[:1]}
        # A model added later is not required until it has been ready once: a broken model in a shared directory must
        # not make every server unready.
        return ServedModel(found.name, loading, policy=policy, is_required=not self._is_loaded)

    def _renew(self, found: OnDisk, *, retry: bool, by_request: bool = False) -> None:
        if (found.directory / TRITON_CONFIG).exists():
            self._say(found.name, f"{TRITON_CONFIG} is ignored: everything comes from the model and its manifest")
        before = self._models.get(found.name, ServedModel(found.name, is_required=not self._is_loaded))
        after = self._renewal.renewed(before, found, retry=retry, by_request=by_request)
        after = dataclasses.replace(after, is_required=after.is_required or bool(after.ready))
        if after.problem and after.problem != before.problem:
            _log.error("model's settings refused", extra={"model": after.name, "reason": after.problem})
        # Not compared with `before`, since versions may have been shown as LOADING meanwhile.
        if after != self._models.get(after.name):
            deleted = () if by_request else {*before.versions}.difference(found.present)
            self._replace(after, deleted)
        if not after.ready and after != before:
            _log.error("model is not served: no version is ready", extra={"model": after.name})

    def _found(self, name: str, directory: Path, settings: ModelSettings | None) -> OnDisk:
        """The contents of a directory with at least one version to load; raises LoadFailed."""
        if not MODEL_NAME.fullmatch(name):  # it becomes part of a path
            raise LoadFailed(
                f"failed to load {name!r}, failed to poll from model repository: that is no model's name", model=name
            )
        try:
            found = OnDisk.look(name, directory, settings)
            exists = directory.is_dir()
        except OSError as error:
            raise LoadFailed(
                f"failed to load {name!r}, failed to poll from model repository: {error}", model=name
            ) from error
        if not exists:
            raise LoadFailed(
                f"failed to load {name!r}, failed to poll from model repository: there is no such model", model=name
            )
        if not found.present:
            raise LoadFailed(f"failed to load {name!r}, no version is available: its directory has none", model=name)
        return found

    def _load(self, found: OnDisk) -> ServedModel:
        name = found.name
        self._renew(found, retry=True, by_request=True)
        model = self._models[name]
        if model.problem:
            raise LoadFailed(f"failed to load {name!r}, {model.problem}{_still_served(model)}", model=name)
        refused = model.refused
        if refused:
            reasons = "; ".join(f"version {version.version}: {version.reason}" for version in refused)
            none = "" if model.ready else "no version is available: "
            is_gate = any(version.cause in (Cause.GOLDEN_MISMATCH, Cause.PROOF_REQUIRED) for version in refused)
            kind = LoadRefused if is_gate else LoadFailed
            raise kind(
                f"failed to load {name!r}, {none}{reasons}{_still_served(model)}",
                reason=refused[-1].cause.value,
                model=name,
                version=str(refused[-1].version),
            )
        if not model.ready:
            raise LoadFailed(
                f"failed to load {name!r}, no version is available: the policy is {model.policy}", model=name
            )
        return model

    def _put(self, model: ServedModel) -> None:
        self._models[model.name] = model
        self._on_change()

    def _replace(self, model: ServedModel, deleted: Collection[int] = (), *, why: str = "replaced") -> None:
        """Replace a model for all readers; its former versions drain, logged as deleted (``deleted``) or as ``why``."""
        before = self._models.get(model.name)
        staying = {id(version.runner) for version in model.ready}
        self._models[model.name] = model
        for version in before.ready if before is not None else ():
            if id(version.runner) not in staying:
                self._drain(version, "deleted" if version.version in deleted else why)
        self._on_change()

    def _remove(self, name: str) -> None:
        self._said.pop(name, None)
        model = self._models.pop(name)
        for version in model.ready:
            self._drain(version, "deleted")
        self._on_change()

    def _drain(self, version: ModelVersion, why: str) -> None:
        self._draining.add(version)
        _log.info("version unloading", extra={"model": version.name, "version": version.version, "why": why})

    def _say(self, name: str, message: str, **fields: str) -> None:
        """Log a warning, unless it is the same as at the last scan."""
        text = f"{message} {fields}"
        if self._said.get(name) != text:
            self._said[name] = text
            _log.warning(message, extra={**({"model": name} if name else {}), **fields})


def _version(model: ServedModel, version: str) -> ModelVersion:
    if not (version.isascii() and version.isdecimal()):
        raise InvalidRequest(
            f"failed to get model version from specified version string {version!r}: expected a whole number",
            field="model_version",
        )
    found = model.versions.get(int(version)) if len(version) < 20 else None
    if found is None or model.is_unloaded:
        raise ModelNotFound(
            f"Request for unknown model: {model.name!r} version {version} is not found",
            model=model.name,
            version=version,
        )
    return found


def _not_ready(message: str, version: ModelVersion) -> ModelNotReady:
    is_refused = version.cause.is_refusal
    return ModelNotReady(
        message,
        reason=version.cause.value if is_refused else "",
        may_pass=version.state is State.LOADING,
        model=version.name,
        version=str(version.version),
    )


def _why(version: ModelVersion) -> str:
    return version.reason or version.state.value


def _newest_reason(model: ServedModel) -> str:
    newest = max(model.versions, default=0)
    return f"version {newest}: {_why(model.versions[newest])}" if newest else model.problem or "no versions"


def _still_served(model: ServedModel | None) -> str:
    serving = ", ".join(str(version.version) for version in model.ready) if model is not None else ""
    return f"; version {serving} goes on serving" if serving else ""
