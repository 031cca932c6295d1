"""Request parameters: which are supported, and which values they may have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.errors import InvalidRequest, Unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.pb.open_inference_pb2 import InferParameter

CLASSIFICATION = "classification"
MAX_CLASSES = 1_000_000
_RESERVED_PREFIX = "triton_"
_RESERVED_ALLOWED = "triton_enable_empty_final_response"
_SHARED_MEMORY = "shared_memory_"


def check(parameters: Mapping[str, InferParameter], where: str, owner: str = "") -> None:
    """Refuse parameters that would change the answer and that this server does not support.

    ``where`` names their owner in error messages, and ``owner`` is the prefix of its field path: ``inputs[0].``, or
    empty for the request. Other parameters are ignored, sequence ids among them, since a model without state gives the
    same answer in any sequence.
    """
    for key in parameters:
        if key.startswith(_SHARED_MEMORY):
            raise Unsupported(f"{where}: parameter {key!r}: shared memory is not supported; send the contents")
        if key.startswith(_RESERVED_PREFIX) and key != _RESERVED_ALLOWED:
            raise InvalidRequest(
                f"{where}: parameter {key!r}: keys that begin with 'triton_' are reserved; "
                f"{_RESERVED_ALLOWED!r} is the only one allowed",
                field=f"{owner}parameters[{key}]",
            )


def integer(
    parameters: Mapping[str, InferParameter], key: str, default: int, *, low: int, high: int, owner: str = ""
) -> int:
    """Return an integer parameter (``int64_param`` or ``uint64_param``), or ``default`` where it is absent.

    ``owner`` is the prefix of its field path, as for `check`. Raises InvalidRequest naming the parameter, its value and
    the bounds.
    """
    if key not in parameters:
        return default
    parameter = parameters[key]
    kind = parameter.WhichOneof("parameter_choice")
    if kind not in ("int64_param", "uint64_param"):
        raise InvalidRequest(
            f"parameter {key!r}: expected an integer, got {kind or 'nothing'}", field=f"{owner}parameters[{key}]"
        )
    value = int(getattr(parameter, kind))
    if not low <= value <= high:
        raise InvalidRequest(
            f"parameter {key!r}: got {value}, expected {low} to {high}", field=f"{owner}parameters[{key}]"
        )
    return value
