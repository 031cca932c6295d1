"""Publishing a version: all of it or nothing, on a crash and on a full disk too.

Everything is written into a hidden directory beside the target, forced to disk, and renamed to the next version
number. Readers ignore names that are not plain numbers, so that they see a version entirely or not at all.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from models.artifact import MANIFEST_FILE, MODEL_FILE, Manifest
from models.errors import PublicationError
from models.goldens import Golden, write_golden

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_ATTEMPTS = 100


def model_names(repository: Path) -> list[str]:
    """The names below a repository that can be models, sorted; empty if the repository does not exist."""
    if not repository.is_dir():
        return []
    return sorted(path.name for path in repository.iterdir() if path.is_dir() and MODEL_NAME.fullmatch(path.name))


def versions(model_directory: Path) -> list[int]:
    """The published versions of one model, ascending. Only names such as ``7`` count: no zeros in front, no signs."""
    if not model_directory.is_dir():
        return []
    return sorted(
        int(path.name) for path in model_directory.iterdir() if _VERSION.fullmatch(path.name) and path.is_dir()
    )


def publish(
    repository: Path,
    name: str,
    model_bytes: bytes,
    goldens: Sequence[Golden],
    manifest_for: Callable[[int], Manifest],
) -> Path:
    """Write a new version of a model and make it visible at once; returns its directory.

    ``manifest_for`` is given the version number that the model will have. Two publishers at the same time get two
    numbers. Raises PublicationError; whatever happens, nothing partial becomes visible.
    """
    if not MODEL_NAME.fullmatch(name):
        raise PublicationError(
            f"model name: got {name!r}, expected 1 to 128 letters, digits, '.', '_' or '-', the first a letter or digit"
        )
    model_directory = repository / name
    try:
        model_directory.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".publishing-", dir=model_directory))
        try:
            (staging / MODEL_FILE).write_bytes(model_bytes)
            for golden in goldens:
                write_golden(staging, golden)
            return _place(staging, model_directory, manifest_for)
        finally:
            # After a success the directory has another name and there is nothing left to remove.
            shutil.rmtree(staging, ignore_errors=True)
            _remove_if_empty(model_directory)
    except OSError as error:
        raise PublicationError(f"{name} could not be published to {repository}: {error.strerror}") from error


def _place(staging: Path, model_directory: Path, manifest_for: Callable[[int], Manifest]) -> Path:
    # mkdtemp makes the directory private; a server under another user must be able to read what is published.
    staging.chmod(0o755)
    for _ in range(_ATTEMPTS):
        version = max(versions(model_directory), default=0) + 1
        target = model_directory / str(version)
        (staging / MANIFEST_FILE).write_text(manifest_for(version).to_json(), encoding="utf-8")
        _sync_tree(staging)
        try:
            # A rename onto a directory with content fails, so that the loser of a race takes the next number.
            staging.rename(target)
        except OSError:
            if not target.exists():
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


def _remove_if_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir()
