"""Filters, page sizes and page tokens for listing operations.

A filter is ``FIELD = VALUE`` or ``FIELD != VALUE``, several joined by ``AND``: a small subset of AIP-160, the filter
syntax of Google's APIs.
"""

from __future__ import annotations

import base64
import hashlib
import re

from service.errors import InvalidRequest
from service.training.run import Condition, RunState

DEFAULT_PAGE = 50
LARGEST_PAGE = 1000
FIELDS = {"state": "state", "done": "done", "network": "network", "recipe": "recipe", "publish_name": "model"}
"""Fields of a filter and the store's columns; ``done`` has no column and stands for states."""
_DONE = tuple(state for state in RunState if state.is_done)
_CONDITION = re.compile(r'\s*(\w+)\s*(!=|=)\s*("[^"]*"|[\w./-]+)\s*')
_JOINT = re.compile(r"AND\b")
_TOKEN = re.compile(r"([0-9a-f]{16}):([0-9]{1,18})")


def conditions(text: str) -> list[Condition]:
    """Parse a filter; an empty one has no conditions. Raises InvalidRequest that says what is expected."""
    found: list[Condition] = []
    at = 0
    while text.strip():
        match = _CONDITION.match(text, at)
        if match is None:
            raise _invalid(text, f"at character {at + 1}")
        found += _condition(text, match[1], match[2] == "=", match[3].strip('"'))
        if match.end() == len(text):
            break
        joint = _JOINT.match(text, match.end())
        if joint is None:
            raise _invalid(text, f"at character {match.end() + 1}, where AND is missing")
        at = joint.end()
    return found


def _condition(text: str, field: str, is_equal: bool, value: str) -> list[Condition]:
    if field not in FIELDS:
        raise _invalid(text, f"at {field!r}; the fields are {', '.join(FIELDS)}")
    if field == "state":
        if value not in list(RunState):
            raise _invalid(text, f"at {value!r}; the states are {', '.join(RunState)}")
        return [Condition("state", value, is_equal)]
    if field == "done":
        if value not in ("true", "false"):
            raise _invalid(text, f"at {value!r}; done is true or false")
        is_done = (value == "true") is is_equal
        return [Condition("state", state.value, False) for state in RunState if (state in _DONE) is not is_done]
    return [Condition(FIELDS[field], value, is_equal)]


def _invalid(text: str, where: str) -> InvalidRequest:
    return InvalidRequest(
        f"filter: got {text[:200]!r}, not understood {where}; expected FIELD = VALUE or FIELD != VALUE, joined by AND, "
        "for example: done = false AND network = conv",
        field="filter",
    )


def page_size(asked: int) -> int:
    """The size of a page: the default for 0, and at most `LARGEST_PAGE`. Raises InvalidRequest below 0."""
    if asked < 0:
        raise InvalidRequest(f"page_size: got {asked}, expected at least 0", field="page_size")
    return min(asked or DEFAULT_PAGE, LARGEST_PAGE)


def token(filter_text: str, last: int) -> str:
    """The token of the page after the run with number ``last``."""
    return base64.urlsafe_b64encode(f"{_mark(filter_text)}:{last}".encode()).decode().rstrip("=")


def last_of(page_token: str, filter_text: str) -> int | None:
    """The run number in a token; None for an empty one. Raises InvalidRequest if it is invalid or of another filter."""
    if not page_token:
        return None
    try:
        text = base64.urlsafe_b64decode(page_token + "=" * (-len(page_token) % 4)).decode("ascii")
    except ValueError:
        text = ""
    match = _TOKEN.fullmatch(text)
    if match is None or match[1] != _mark(filter_text):
        raise InvalidRequest(
            "page_token: expected the next_page_token of a page of the same filter", field="page_token"
        )
    return int(match[2])


def _mark(filter_text: str) -> str:
    return hashlib.sha256(filter_text.encode()).hexdigest()[:16]
