"""Statuses of calls that the transport ends, with the messages of gRPC's own servers where those have one."""

from __future__ import annotations

from typing import Final

from ..errors import Code, Status

DEFECT: Final = Status(Code.INTERNAL, "internal error")
LATE: Final = Status(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
TOO_MUCH_UNREAD: Final = Status(Code.RESOURCE_EXHAUSTED, "too many responses are unread")
TWO_MESSAGES: Final = Status(Code.UNIMPLEMENTED, "this method takes one request message, got more")
CUT_OFF: Final = Status(Code.INTERNAL, "the request ends within a message")
NO_MESSAGE: Final = Status(Code.UNIMPLEMENTED, "this method takes one request message, got none")
