"""Triton's shared-memory calls, which are not supported: each is answered with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from service.errors import Unsupported
from service.pb import open_inference_pb2 as pb
from service.rpc.methods import Unary

if TYPE_CHECKING:
    from service.rpc.methods import CallContext

_REASONS = {
    "System": "system shared memory is not supported: a request would name memory of this machine that the server maps "
    "and trusts, for tensors that are smaller than the request itself; send raw_input_contents",
    "Cuda": "CUDA shared memory is not supported: this server computes on the CPU",
}


def methods() -> tuple[Unary, ...]:
    """The method table's rows for the six calls; each answers UNIMPLEMENTED with its reason."""
    rows = []
    for kind, reason in _REASONS.items():
        for call in ("Status", "Register", "Unregister"):
            name = f"{kind}SharedMemory{call}"
            request = getattr(pb, f"{name}Request")
            rows.append(
                Unary(
                    f"/inference.GRPCInferenceService/{name}",
                    request.FromString,
                    lambda response: response.SerializeToString(),
                    _refusal(reason),
                )
            )
    return tuple(rows)


def _refusal(reason: str) -> Any:  # noqa: ANN401 - a handler, of no request in particular
    async def refuse(_: object, __: CallContext) -> NoReturn:
        raise Unsupported(reason)

    return refuse
