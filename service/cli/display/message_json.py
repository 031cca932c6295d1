"""Convert API messages to JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2

from service.pb import POOL, add

if TYPE_CHECKING:
    from google.protobuf.message import Message

_LARGEST_EXACT: Final = 2**53
"""Up to this every whole number is represented exactly by a double."""

# Packed messages are printed only if the pool has them, and the API does not import these error details.
add(error_details_pb2.DESCRIPTOR)


def as_json(message: Message) -> dict[str, Any]:
    """Convert a message to JSON with the field names of the .proto file; NaN and infinity become text.

    A ``google.protobuf.Struct`` has only floating-point numbers: whole ones are written as integers.
    """
    plain: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=False, descriptor_pool=POOL
    )
    told: dict[str, Any] = _told(plain, message.DESCRIPTOR)
    return told


def _told(plain: Any, descriptor: Any) -> Any:  # noqa: ANN401 - what JSON has; a descriptor of either implementation
    if descriptor.full_name == "google.protobuf.Struct":
        return _whole(plain)
    if descriptor.full_name == "google.protobuf.Any":
        descriptor = POOL.FindMessageTypeByName(plain["@type"].rpartition("/")[2])
    if not isinstance(plain, dict):
        return plain  # a message with a special JSON form, such as a timestamp
    return {name: _field_told(value, descriptor.fields_by_name.get(name)) for name, value in plain.items()}


def _field_told(value: Any, field: Any) -> Any:  # noqa: ANN401 - as above
    kind = None if field is None else field.message_type
    if kind is None:
        return value
    if kind.GetOptions().map_entry:
        of_values = kind.fields_by_name["value"]
        return {key: _field_told(item, of_values) for key, item in value.items()}
    return [_told(item, kind) for item in value] if isinstance(value, list) else _told(value, kind)


def _whole(value: Any) -> Any:  # noqa: ANN401 - as above
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST_EXACT:
        return int(value)
    return value
