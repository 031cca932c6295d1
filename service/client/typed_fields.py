"""Set fields of a message to values of a caller, with type checks.

protobuf itself accepts True for 1 and bytes for text, and its errors do not name the field.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING

from google.protobuf.descriptor import FieldDescriptor

if TYPE_CHECKING:
    from google.protobuf.message import Message

_KINDS: dict[int, tuple[type, str]] = {
    FieldDescriptor.TYPE_BOOL: (bool, "true or false"),
    FieldDescriptor.TYPE_INT64: (Integral, "a whole number of 64 bits"),
    FieldDescriptor.TYPE_DOUBLE: (Real, "a number"),
    FieldDescriptor.TYPE_STRING: (str, "text"),
}
"""The accepted Python types, including NumPy's numbers, and a word for them, by the type of a field."""


def put(message: Message, name: str, value: object, path: str = "") -> None:
    """Set the field ``name``, which errors call ``path``; raises ValueError for a wrong type or range."""
    taken, called = _KINDS[message.DESCRIPTOR.fields_by_name[name].type]
    wrong = f"{path or name}: got {value!r}, expected {called}"
    if not isinstance(value, taken) or (isinstance(value, bool) and taken is not bool):
        raise ValueError(wrong)
    try:
        setattr(message, name, value)
    except (TypeError, ValueError) as error:
        raise ValueError(wrong) from error
