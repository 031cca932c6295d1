from __future__ import annotations

import pytest

from service.errors import InvalidRequest
from service.training.filters import DEFAULT_PAGE, LARGEST_PAGE, conditions, last_of, page_size, token
from service.training.run import Condition

DONE = [Condition("state", state, False) for state in ("QUEUED", "RUNNING")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  ", []),
        ("state = RUNNING", [Condition("state", "RUNNING")]),
        ('network!="conv"', [Condition("network", "conv", False)]),
        ("done = true", DONE),
        ("done != false", DONE),
        ("done=false", [Condition("state", state, False) for state in ("SUCCEEDED", "FAILED", "CANCELLED")]),
        (
            " recipe = quick AND publish_name = my.model-2 ",
            [Condition("recipe", "quick"), Condition("model", "my.model-2")],
        ),
    ],
)
def test_filters(text, expected) -> None:
    assert conditions(text) == expected


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("colour = red", "at 'colour'; the fields are state, done, network, recipe, publish_name"),
        ("state = BUSY", "at 'BUSY'; the states are QUEUED"),
        ("done = perhaps", "done is true or false"),
        ("state RUNNING", "at character 1"),
        ("state = RUNNING network = fc", "where AND is missing"),
        ("state = RUNNING AND", "at character 20"),
        ("state = RUNNING OR done = true", "where AND is missing"),
        ("state = ' OR 1=1 --", "at character 1"),
    ],
)
def test_what_is_no_filter_is_refused_and_told_where(text, where) -> None:
    with pytest.raises(InvalidRequest, match="filter: got ") as failure:
        conditions(text)
    assert where in str(failure.value)
    assert failure.value.details.field == "filter"


def test_page_sizes() -> None:
    assert [page_size(asked) for asked in (0, 1, LARGEST_PAGE, 10**9)] == [DEFAULT_PAGE, 1, LARGEST_PAGE, LARGEST_PAGE]
    with pytest.raises(InvalidRequest, match="got -1, expected at least 0"):
        page_size(-1)


def test_a_token_is_good_for_its_own_filter() -> None:
    assert last_of("", "done = true") is None
    assert last_of(token("done = true", 7), "done = true") == 7
    for wrong in (token("", 7), "x", "ä", "====", token("done = true", 7)[:-2]):
        with pytest.raises(InvalidRequest, match="page_token"):
            last_of(wrong, "done = true")
