"""Checkpoints: all that a training run needs to resume as if it had never stopped. NumPy and JSON only.

A checkpoint is one file, ``checkpoint.npz``: the arrays, and a JSON header with the recipe, the data's hashes, the step
and a hash of the arrays. Nothing in it is ever unpickled. It is written beside its final place, flushed to the disk and
renamed, so that readers find either the old file or the new one, complete. No random state is kept, for there is none:
order and augmentation of an epoch are functions of the seed and the epoch's number.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.artifact.writable import why_not_writable
from models.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

FILE_NAME: Final = "checkpoint.npz"
FORMAT: Final = 2
_READABLE: Final = (1, FORMAT)
"""Formats that can be read; format 1 had only the engine torch."""
_HEADER: Final = "header"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after ``step`` updates."""

    step: int
    recipe: Mapping[str, Any]
    """The recipe as ``TrainingRecipe.to_dict()``."""
    data_sha256: Mapping[str, str]
    """The hashes of the data, ``Dataset.sha256``."""
    arrays: Mapping[str, NDArray[Any]]
    """Weights, average, optimiser state, best weights."""
    progress: Mapping[str, Any] = field(default_factory=dict)
    """Plain values: history of evaluations, early stopping."""
    engine: str = "torch"
    """The engine that made it; the other engine keeps its arrays in another order."""


def path_in(directory: Path) -> Path:
    """Path of the checkpoint in a checkpoint directory, whether or not it exists yet."""
    return directory / FILE_NAME


def save(checkpoint: Checkpoint, directory: Path) -> Path:
    """Write the checkpoint, replacing an older one, and return its path. CheckpointError if the disk refuses."""
    header = {
        "format": FORMAT,
        "step": checkpoint.step,
        "engine": checkpoint.engine,
        "recipe": checkpoint.recipe,
        "data_sha256": dict(checkpoint.data_sha256),
        "progress": checkpoint.progress,
        "arrays_sha256": _arrays_sha256(checkpoint.arrays),
    }
    buffer = io.BytesIO()
    header_bytes = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(buffer, allow_pickle=False, **{_HEADER: header_bytes}, **checkpoint.arrays)
    path = path_in(directory)
    temporary = path.with_name(f".{FILE_NAME}.{os.getpid()}.tmp")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(directory)
    except OSError as error:
        raise CheckpointError(f"cannot write checkpoint {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):  # the first failure is the one to report
            temporary.unlink(missing_ok=True)
    return path


def check_writable(directory: Path) -> None:
    """Raise CheckpointError unless `save` could write to ``directory`` now; leaves nothing behind."""
    why_not = why_not_writable(directory)
    if why_not is None and path_in(directory).is_dir():
        why_not = f"{path_in(directory)} is a directory"
    if why_not is not None:
        raise CheckpointError(f"no checkpoint could be kept in {directory}: {why_not}")


def load(directory: Path) -> Checkpoint:
    """The checkpoint in ``directory``. CheckpointError if there is none, or if it is damaged or of another format."""
    path = path_in(directory)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint at {path}") from None
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    try:
        arrays = _read_arrays(content)
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"checkpoint {path} is damaged: {error}") from error
    try:
        header = json.loads(arrays.pop(_HEADER).tobytes())
        if header["format"] not in _READABLE:
            raise CheckpointError(f"checkpoint {path} has format {header['format']}, this version reads up to {FORMAT}")
        engine = header["engine"] if header["format"] > 1 else "torch"
        checkpoint = Checkpoint(
            header["step"], header["recipe"], header["data_sha256"], arrays, header["progress"], engine
        )
        arrays_sha256 = header["arrays_sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged: its header cannot be read ({error})") from error
    if _arrays_sha256(arrays) != arrays_sha256:
        raise CheckpointError(f"checkpoint {path} is damaged: its arrays do not have the recorded hash")
    return checkpoint


def check_belongs(checkpoint: Checkpoint, recipe: Mapping[str, Any], data_sha256: Mapping[str, str]) -> None:
    """Raise CheckpointError, naming the difference, unless the checkpoint is of this recipe and these data."""
    for name in sorted(recipe.keys() | checkpoint.recipe.keys()):
        theirs, ours = checkpoint.recipe.get(name), recipe.get(name)
        if theirs != ours:
            raise CheckpointError(f"the checkpoint was made with {name} = {theirs!r}, this run has {ours!r}")
    for name, ours in data_sha256.items():
        theirs = checkpoint.data_sha256.get(name)
        if theirs != ours:
            raise CheckpointError(f"the checkpoint was made with other data: {name} has sha256 {theirs}, here {ours}")


def _read_arrays(content: bytes) -> dict[str, NDArray[Any]]:
    file = np.load(io.BytesIO(content), allow_pickle=False)
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise ValueError("it is one array, not an archive of several")  # noqa: TRY004  (bad contents, not a bad call)
    with file:
        return {name: file[name] for name in file.files}


def _arrays_sha256(arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name}{arrays[name].dtype.str}{arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
