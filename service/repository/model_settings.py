"""Settings of one model: ``<repository>/<name>/model.json``, or the ``config`` of a load request.

The file is optional. Everything else that Triton keeps in a ``config.pbtxt`` comes from the ONNX file and the manifest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.repository.version_policy import PolicyError, VersionPolicy

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from pathlib import Path

MODEL_JSON = "model.json"
TRITON_CONFIG = "config.pbtxt"
_MAX_BYTES = 64 * 1024
_MAX_BATCH = 2**31 - 1
_CAMEL = {"versionPolicy": "version_policy", "maxBatchSize": "max_batch_size"}
"""Settings that Triton also has, by their camelCase names."""
ROWS_ARE_INDEPENDENT = "rows_are_independent"
_KNOWN = (*_CAMEL.values(), ROWS_ARE_INDEPENDENT)


class ModelFileError(ValueError):
    """Invalid settings of a model; the message names the field, the value and the expected one."""


@dataclass(frozen=True)
class ModelSettings:
    """The settings of one model; None where the server's apply."""

    version_policy: VersionPolicy | None = None
    max_batch_size: int | None = None
    rows_are_independent: bool | None = None
    """Whether the operator declares that requests may be joined; see `service.repository.row_independence`."""

    @property
    def of_a_version(self) -> Hashable:
        """The settings that affect how a version is loaded."""
        return self.max_batch_size, self.rows_are_independent


def read_model_file(model_directory: Path) -> ModelSettings:
    """Read ``model.json``; without the file all settings are None. Raises ModelFileError."""
    path = model_directory / MODEL_JSON
    try:
        if not path.is_file() and (path.exists() or path.is_symlink()):
            # Reading a pipe would block, and a dangling link means that the file was lost, not that there is none.
            raise ModelFileError(f"{MODEL_JSON} is no regular file")
        # One byte more than allowed shows that it is too large; the rest of a huge file is not read.
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return ModelSettings()
    except OSError as error:
        raise ModelFileError(f"{MODEL_JSON} cannot be read: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise ModelFileError(f"{MODEL_JSON} has more than {_MAX_BYTES} bytes")
    fields = _object(data, MODEL_JSON)
    for key in fields:
        if key not in _KNOWN:
            raise ModelFileError(f"{MODEL_JSON}, {key}: unknown; known are {', '.join(_KNOWN)}")
    return _settings(fields, MODEL_JSON)


def from_triton_config(text: str) -> tuple[ModelSettings, tuple[str, ...]]:
    """Read a Triton ModelConfig as JSON; returns the settings and the names of what is ignored.

    A ``max_batch_size`` of 0 is ignored too, since Triton then takes it from the model. ``rows_are_independent``, for
    which Triton has no field, may be given in ``parameters``. Raises ModelFileError.
    """
    fields = {_CAMEL.get(key, key): value for key, value in _object(text, "config").items()}
    if fields.get("max_batch_size") in (0, "0"):
        del fields["max_batch_size"]
    taken = {key: fields.pop(key) for key in _CAMEL.values() if key in fields}
    parameters = fields.get("parameters")
    if isinstance(parameters, dict) and ROWS_ARE_INDEPENDENT in parameters:
        del fields["parameters"]
        taken[ROWS_ARE_INDEPENDENT] = _boolean(parameters[ROWS_ARE_INDEPENDENT])
    return _settings(taken, "config"), tuple(sorted(fields))


def _boolean(parameter: object) -> object:
    """The boolean in a ModelParameter with ``true`` or ``false``; any other value unchanged."""
    if not isinstance(parameter, dict):
        return parameter
    value = parameter.get("string_value", parameter.get("stringValue"))
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


def _object(text: str | bytes, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:  # invalid UTF-8 raises a ValueError too
        raise ModelFileError(f"{where} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ModelFileError(f"{where}: expected an object, got {type(fields).__name__}")
    return fields


def _settings(fields: Mapping[str, Any], where: str) -> ModelSettings:
    policy = fields.get("version_policy")
    try:
        version_policy = None if policy is None else VersionPolicy.from_json(policy)
    except PolicyError as error:
        raise ModelFileError(f"{where}, version_policy: {error}") from error
    size = fields.get("max_batch_size")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= _MAX_BATCH):
        raise ModelFileError(f"{where}, max_batch_size: got {size!r}, expected a whole number from 1 to {_MAX_BATCH}")
    independent = fields.get(ROWS_ARE_INDEPENDENT)
    if independent is not None and not isinstance(independent, bool):
        raise ModelFileError(f"{where}, {ROWS_ARE_INDEPENDENT}: got {independent!r}, expected true or false")
    return ModelSettings(version_policy, size, independent)
