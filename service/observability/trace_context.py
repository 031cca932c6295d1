"""W3C Trace Context: the caller's place in a distributed trace.

https://www.w3.org/TR/trace-context/: ``traceparent`` is ``00-<trace id, 32 hex>-<parent's span id, 16 hex>-<flags>``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

TRACEPARENT = "traceparent"
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The caller's place in its trace."""

    trace_id: str
    """32 lowercase hexadecimal digits."""
    span_id: str
    """16 lowercase hexadecimal digits: the caller's span."""
    is_sampled: bool
    """Whether the caller records its span."""


def parse(traceparent: str) -> TraceContext | None:
    """Parse a ``traceparent``; None if it must be ignored by the specification."""
    found = _FORM.fullmatch(traceparent)
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    # Version ff is forbidden; only future versions may append fields.
    if version == "ff" or (version == "00" and rest is not None) or not (trace_id.strip("0") and span_id.strip("0")):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & 1))


def from_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> TraceContext | None:
    """The caller's context; None without one, with a malformed one, and with more than one."""
    found = [value for key, value in metadata if key == TRACEPARENT]
    return parse(found[0]) if len(found) == 1 and isinstance(found[0], str) else None
