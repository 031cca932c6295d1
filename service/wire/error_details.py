"""The details of an error as ``google.rpc`` messages, for clients that read more than code and message.

The plain data of `service.errors` become a serialised ``google.rpc.Status``, sent in the trailing metadata as
``grpc-status-details-bin``: BadRequest with the invalid fields, ErrorInfo with a reason that programs can compare, and
RetryInfo if trying again helps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from ..errors import Status

METADATA_KEY = "grpc-status-details-bin"
DOMAIN = "mnist1d-service"


def serialize(status: Status) -> bytes | None:
    """The value for `METADATA_KEY`; None for a status without details."""
    details = status.details
    if details is None:
        return None
    messages: list[Message] = [ErrorInfo(reason=details.reason, domain=DOMAIN, metadata=dict(details.metadata))]
    # The message begins with the field's name, which need not be repeated in the description of the field.
    alone = [(details.field, status.message.removeprefix(f"{details.field}: "))] if details.field else []
    wrong = details.violations or alone
    if wrong:
        violations = [BadRequest.FieldViolation(field=path, description=what) for path, what in wrong]
        messages.append(BadRequest(field_violations=violations))
    if details.retry_after_s is not None:
        retry = RetryInfo()
        retry.retry_delay.FromNanoseconds(round(details.retry_after_s * 1e9))
        messages.append(retry)
    packed = []
    for message in messages:
        packed.append(Any())
        packed[-1].Pack(message)
    serialized: bytes = RpcStatus(code=int(status.code), message=status.message, details=packed).SerializeToString()
    return serialized
