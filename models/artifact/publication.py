"""Publish a version atomically: all of it or nothing, even on a crash or a full disk.

Everything is written into a hidden directory beside the target, forced to disk, and renamed to the next version
number. Readers ignore names that are not plain numbers, so that they see a version entirely or not at all. Directories
left by a killed publisher are removed by the next one. Permissions follow the umask, as for any other file.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from models.artifact.artifact import MANIFEST_FILE, MODEL_FILE, Manifest
from models.artifact.goldens import Golden, write_golden
from models.errors import ArtifactError, PublicationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
MODEL_NAME_RULE = "1 to 128 letters, digits, '.', '_' or '-', the first a letter or digit"
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_STAGING_PREFIX = ".publishing-"
STALE_AFTER_S = 3600.0
"""Age at which an unfinished publication counts as abandoned; writing takes seconds."""
_ATTEMPTS = 100


def model_names(repository: Path) -> list[str]:
    """The names below a repository that can be models, sorted; empty if the repository does not exist."""
    return sorted(path.name for path in _entries(repository) if MODEL_NAME.fullmatch(path.name) and path.is_dir())


def versions(model_directory: Path) -> list[int]:
    """The published versions of one model, ascending. Only names such as ``7`` count: no leading zeros, no signs."""
    return sorted(
        int(path.name) for path in _entries(model_directory) if _VERSION.fullmatch(path.name) and path.is_dir()
    )


def is_being_published(model_directory: Path) -> bool:
    """Whether a first version is being written, which takes a second or two, or has just appeared.

    A publication that was abandoned (`STALE_AFTER_S`) does not count.
    """
    try:
        for path in _entries(model_directory):
            if path.name.startswith(_STAGING_PREFIX) and time.time() - _last_change_s(path) < STALE_AFTER_S:
                return True
        # Checked last: a directory that was renamed meanwhile is seen as a version.
        return bool(versions(model_directory))
    except OSError:
        return True  # the directory is being changed


def version_directory(path: Path) -> Path:
    """``path`` itself if there is a model in it, else the latest version below it; ArtifactError if neither."""
    if (path / MODEL_FILE).exists():
        return path
    published = versions(path)
    if not published:
        raise ArtifactError(f"{path} holds neither a {MODEL_FILE} nor versions of a model")
    return path / str(published[-1])


def _entries(directory: Path) -> list[Path]:
    # Its existence is not checked beforehand: a failing publisher may remove the directory at any time.
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def check_model_name(name: str) -> None:
    """Raise PublicationError unless ``name`` is a valid model name."""
    if not MODEL_NAME.fullmatch(name):
        raise PublicationError(f"model name: got {name!r}, expected {MODEL_NAME_RULE}")


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file atomically: readers find either the old content or the new.

    Raises PublicationError if the disk refuses; then nothing has changed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync(path.parent)
        finally:
            with contextlib.suppress(OSError):  # the first failure is the one to report
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise PublicationError(f"{path} could not be written: {error.strerror or error}") from error


def no_files(manifest: Manifest) -> Mapping[str, bytes]:  # noqa: ARG001 - the signature of `publish`'s ``beside``
    """Return no additional files: the default for `publish`'s ``beside``."""
    return {}


def publish(
    repository: Path,
    name: str,
    model_bytes: bytes,
    goldens: Sequence[Golden],
    manifest_for: Callable[[int], Manifest],
    beside: Callable[[Manifest], Mapping[str, bytes]] = no_files,
) -> Path:
    """Write a new version of a model and make it visible atomically; returns its directory.

    ``manifest_for`` takes the number of the new version and returns its manifest. ``beside`` takes that manifest and
    returns additional files by name, which are for people: no reader of a version needs them. Concurrent publishers get
    different numbers. Nothing partial ever becomes visible.

    Raises:
        PublicationError: the name is not valid, or the repository cannot take the version.
        ArtifactError: a golden that could not be read back.
    """
    check_model_name(name)
    model_directory = repository / name
    try:
        with _staging(model_directory) as staging:
            _sweep(model_directory, now_s=staging.stat().st_mtime)
            (staging / MODEL_FILE).write_bytes(model_bytes)
            for golden in goldens:
                write_golden(staging, golden)
            return _place(staging, model_directory, manifest_for, beside)
    except OSError as error:
        why = error.strerror or str(error)
        raise PublicationError(f"{name} could not be published to {repository}: {why}") from error


@contextlib.contextmanager
def _staging(model_directory: Path) -> Iterator[Path]:
    """A hidden directory to write into; removed afterwards, as is the model's directory if it is left empty."""
    try:
        staging = _make_staging(model_directory)
        try:
            yield staging
        finally:
            # After a success the directory has another name and there is nothing left to remove.
            shutil.rmtree(staging, ignore_errors=True)
    finally:
        with contextlib.suppress(OSError):
            model_directory.rmdir()


def _make_staging(model_directory: Path) -> Path:
    for _ in range(_ATTEMPTS):
        model_directory.mkdir(parents=True, exist_ok=True)
        # Not tempfile.mkdtemp, whose directory is private: a server under another user must be able to read it.
        staging = model_directory / f"{_STAGING_PREFIX}{secrets.token_hex(8)}"
        try:
            staging.mkdir()
        except FileNotFoundError:
            continue  # between the two calls another publisher failed and removed the directory it left empty
        return staging
    raise PublicationError(f"{model_directory} is removed as often as it is made, giving up")


def _sweep(model_directory: Path, now_s: float) -> None:
    """Remove directories left by killed publishers; never fails, and leaves the rest to the next call.

    ``now_s`` is the file system's time, not this machine's: on a network share the two can be hours apart.
    """
    for path in _entries(model_directory):
        if not path.name.startswith(_STAGING_PREFIX):
            continue
        with contextlib.suppress(OSError):
            if now_s - _last_change_s(path) > STALE_AFTER_S:
                # Renamed first: if its publisher is still alive, its own rename now fails as a whole, and cannot make a
                # half-removed directory visible.
                doomed = path.rename(model_directory / f"{_STAGING_PREFIX}{secrets.token_hex(8)}")
                shutil.rmtree(doomed)


def _last_change_s(directory: Path) -> float:
    return max(path.stat().st_mtime for path in (directory, *directory.rglob("*")))


def _next_version(model_directory: Path) -> int:
    # Files count too, though they are no versions: nothing can be renamed to their names.
    taken = [int(path.name) for path in _entries(model_directory) if _VERSION.fullmatch(path.name)]
    version = max(taken, default=0) + 1
    if not _VERSION.fullmatch(str(version)):
        raise PublicationError(f"{model_directory}: the version after {version - 1} has too many digits to be seen")
    return version


def _place(
    staging: Path,
    model_directory: Path,
    manifest_for: Callable[[int], Manifest],
    beside: Callable[[Manifest], Mapping[str, bytes]],
) -> Path:
    for _ in range(_ATTEMPTS):
        version = _next_version(model_directory)
        target = model_directory / str(version)
        manifest = manifest_for(version)
        (staging / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
        for file, content in beside(manifest).items():
            (staging / file).write_bytes(content)
        _sync_tree(staging)
        try:
            # A rename onto a directory with content fails, so that the loser of a race takes the next number.
            staging.rename(target)
        except OSError:
            if not os.path.lexists(target):
                raise
            continue
        _sync(model_directory)
        _sync(model_directory.parent)
        return target
    raise PublicationError(f"{model_directory.name}: {_ATTEMPTS} other publishers were faster, giving up")


def _sync_tree(directory: Path) -> None:
    for root, _, files in os.walk(directory, topdown=False):
        for file in files:
            _sync(Path(root) / file)
        _sync(Path(root))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
