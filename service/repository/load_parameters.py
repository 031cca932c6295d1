"""The parameters of a load request: a model's settings, and files that replace its directory.

Nothing is written into the repository: the files go into a temporary directory, whose contents are read once, proven
like any other version, and removed. The next load without parameters uses the repository's files again.
"""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from service.errors import InvalidRequest
from service.repository.model_settings import ModelFileError, ModelSettings, from_triton_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from service.pb.open_inference_pb2 import ModelRepositoryParameter

_log = logging.getLogger(__name__)

CONFIG = "config"
FILE_PREFIX = "file:"
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
"""Allowed parts of a path: no leading dot, hence neither '.' nor '..', no separators or control characters."""
_MAX_DEPTH = 4


@dataclass(frozen=True)
class LoadParameters:
    """The settings and files of a load request."""

    settings: ModelSettings | None = None
    """Settings that replace the model's ``model.json``; None to use that file."""
    files: Mapping[PurePosixPath, bytes] = field(default_factory=dict, repr=False)
    """Contents by ``<version>/<path>``; empty to use the model's directory."""

    @classmethod
    def parse(cls, name: str, parameters: Mapping[str, ModelRepositoryParameter]) -> LoadParameters:
        """Read and check the parameters of a request; raises InvalidRequest naming the one that cannot be used."""
        settings: ModelSettings | None = None
        files: dict[PurePosixPath, bytes] = {}
        for key, parameter in sorted(parameters.items()):
            kind = parameter.WhichOneof("parameter_choice")
            if key == CONFIG and kind == "string_param":
                settings = _settings(name, parameter.string_param)
            elif key.startswith(FILE_PREFIX) and kind == "bytes_param":
                path = _path(key)
                if path is None:
                    _log.info("file of a load request is ignored: it belongs to no version", extra={"file": key[:200]})
                else:
                    files[path] = parameter.bytes_param
            else:
                raise InvalidRequest(
                    f"Unrecognized load parameter {key[:200]!r} with type {kind or 'nothing'}; expected 'config' with "
                    "string_param, or 'file:<version>/<path>' with bytes_param",
                    field=f"parameters[{key}]",
                )
        if files and settings is None:
            raise InvalidRequest(
                "load parameter 'config' must be there, with string_param, where files are", field="parameters[config]"
            )
        return cls(settings, files)

    @contextlib.contextmanager
    def directory(self) -> Iterator[Path | None]:
        """A temporary model directory with the files while the block runs; None if there are no files."""
        if not self.files:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="mnist1d-load-") as folder:
            for path, contents in self.files.items():
                target = Path(folder) / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(contents)
            yield Path(folder)


def _settings(name: str, text: str) -> ModelSettings:
    try:
        settings, ignored = from_triton_config(text)
    except ModelFileError as error:
        raise InvalidRequest(f"load parameter 'config': {error}", field="parameters[config]") from error
    if ignored:
        _log.info(
            "parts of a load request's config are ignored: they come from the model",
            extra={"model": name, "ignored": ", ".join(ignored)[:500]},
        )
    return settings


def _path(key: str) -> PurePosixPath | None:
    """The path in a ``file:`` key; None for a file outside of the version directories, which is ignored."""
    parts = key.removeprefix(FILE_PREFIX).split("/")
    if len(parts) > _MAX_DEPTH or not all(_NAME.fullmatch(part) for part in parts):
        raise InvalidRequest(
            f"load parameter {key[:200]!r}: expected 'file:<version>/<path>' of at most {_MAX_DEPTH} plain names",
            field=f"parameters[{key}]",
        )
    if len(parts) == 1:
        return None
    if not _VERSION.fullmatch(parts[0]):
        raise InvalidRequest(
            f"load parameter {key[:200]!r}: the version {parts[0]!r} is no whole number from 1",
            field=f"parameters[{key}]",
        )
    return PurePosixPath(*parts)
