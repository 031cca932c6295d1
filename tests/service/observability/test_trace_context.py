from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.observability.trace_context import TraceContext, from_metadata, parse

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (GOOD, TraceContext(TRACE, SPAN, is_sampled=True)),
        (f"00-{TRACE}-{SPAN}-00", TraceContext(TRACE, SPAN, is_sampled=False)),
        (f"00-{TRACE}-{SPAN}-03", TraceContext(TRACE, SPAN, is_sampled=True)),
        (f"00-{TRACE}-{SPAN}-fe", TraceContext(TRACE, SPAN, is_sampled=False)),
        # A version to come: its first four fields are read, and it may have more.
        (f"cc-{TRACE}-{SPAN}-01", TraceContext(TRACE, SPAN, is_sampled=True)),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", TraceContext(TRACE, SPAN, is_sampled=True)),
        (f"cc-{TRACE}-{SPAN}-01.what", None),
        (f"{GOOD}-extra", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE[:-1]}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}-1", None),
        (f"0-{TRACE}-{SPAN}-01", None),
        (f"{GOOD}\n", None),
        (f" {GOOD}", None),
        (f"00-{TRACE[:-1]}\u0661-{SPAN}-01", None),
        ("", None),
    ],
)
def test_the_rules_of_the_specification(header, found) -> None:
    assert parse(header) == found


@given(st.text())
def test_any_text_is_read_or_ignored(header) -> None:
    assert parse(header) is None or len(header) >= 55


@pytest.mark.parametrize(
    ("metadata", "trace_id"),
    [
        ([], None),
        ([("traceparent", GOOD)], TRACE),
        ([("other", "x"), ("traceparent", GOOD)], TRACE),
        ([("traceparent", GOOD), ("traceparent", GOOD)], None),
        ([("traceparent", GOOD.encode())], None),
    ],
)
def test_one_header_counts_and_two_do_not(metadata, trace_id) -> None:
    found = from_metadata(metadata)
    assert (found.trace_id if found else None) == trace_id
