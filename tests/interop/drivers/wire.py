"""How a test talks to a client process: one JSON object a line, both ways. Needs NumPy and nothing of this project.

Bytes travel as ``{"$bytes": base64}``, arrays as ``{"$array": ...}``; a BYTES array is an object array of ``bytes``.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable


class CallFailed(Exception):
    """The call ended with a status, which is an answer too."""

    def __init__(self, code: str, message: str, **more: Any) -> None:
        super().__init__(f"{code}: {message}")
        self.fields = {"code": code, "message": message, **more}


def encode(value: Any) -> Any:
    """Make a value ready for `json.dumps`."""
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray):
        if value.dtype == np.object_:
            data = [encode(element if isinstance(element, bytes) else str(element).encode()) for element in value.flat]
            return {"$array": {"dtype": "object", "shape": list(value.shape), "data": data}}
        return {"$array": {"dtype": value.dtype.name, "shape": list(value.shape), "data": encode(value.tobytes())}}
    if isinstance(value, dict):
        return {key: encode(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [encode(entry) for entry in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def decode(value: Any) -> Any:
    """Undo `encode`."""
    if isinstance(value, list):
        return [decode(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    if "$bytes" in value:
        return base64.b64decode(value["$bytes"])
    if "$array" in value:
        return _array(**value["$array"])
    return {key: decode(entry) for key, entry in value.items()}


def _array(dtype: str, shape: list[int], data: Any) -> np.ndarray:
    if dtype == "object":
        array = np.empty(len(data), np.object_)
        array[:] = decode(data)
        return array.reshape(shape)
    if dtype == "bfloat16":
        import ml_dtypes

        return np.frombuffer(decode(data), ml_dtypes.bfloat16).reshape(shape)
    return np.frombuffer(decode(data), dtype).reshape(shape)


def answer_calls(call: Callable[[str, dict[str, Any]], Any]) -> None:
    """Read calls from standard input until it ends and write what became of each to standard output."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    # What the client's library prints must not end up between the answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        asked = decode(json.loads(line))
        try:
            answer = {"result": encode(call(asked["method"], asked["arguments"]))}
        except CallFailed as failure:
            answer = {"failure": encode(failure.fields)}
        except Exception:  # noqa: BLE001 - the test shows it
            answer = {"crash": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
