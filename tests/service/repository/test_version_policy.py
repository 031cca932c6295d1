from __future__ import annotations

import pytest

from service.repository.version_policy import PolicyError, VersionPolicy


@pytest.mark.parametrize(
    ("text", "present", "candidates"),
    [
        ("latest", [1, 2, 10], [10, 2, 1]),
        ("latest:2", [1, 2, 10], [10, 2, 1]),
        ("all", [1, 2, 10], [10, 2, 1]),
        ("specific:1,3", [1, 2, 3], [3, 1]),
        ("specific:7", [1, 2], []),
    ],
)
def test_candidates_are_tried_newest_first(text, present, candidates) -> None:
    assert VersionPolicy.parse(text).candidates(present) == candidates


@pytest.mark.parametrize("text", ["latest:1", "latest:3", "all", "specific:1,2"])
def test_a_policy_prints_as_it_is_read(text) -> None:
    assert str(VersionPolicy.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "newest", "latest:0", "latest:-1", "latest:x", "all:1", "specific:", "specific:a"]
)
def test_what_is_no_policy_is_refused_with_the_text(text) -> None:
    with pytest.raises(PolicyError, match="version policy"):
        VersionPolicy.parse(text)


@pytest.mark.parametrize(
    ("value", "policy"),
    [
        ("latest:3", VersionPolicy(latest=3)),
        ({"latest": {}}, VersionPolicy(latest=1)),
        ({"latest": {"num_versions": 2}}, VersionPolicy(latest=2)),
        ({"latest": {"numVersions": "2"}}, VersionPolicy(latest=2)),
        ({"all": {}}, VersionPolicy(latest=None)),
        ({"specific": {"versions": [3, "1"]}}, VersionPolicy(latest=None, specific=(3, 1))),
    ],
)
def test_tritons_json_is_read(value, policy) -> None:
    assert VersionPolicy.from_json(value) == policy


@pytest.mark.parametrize(
    "value",
    [
        None,
        3,
        [],
        {},
        "newest",
        {"newest": {}},
        {"latest": 2},
        {"latest": {"count": 2}},
        {"latest": {"num_versions": -1}},
        {"latest": {"num_versions": True}},
        {"latest": {"num_versions": "1" * 30}},
        {"all": {"x": 1}},
        {"specific": {}},
        {"specific": {"versions": 1}},
        {"specific": {"versions": []}},
        {"specific": {"versions": [0]}},
        {"all": {}, "latest": {}},
    ],
)
def test_what_is_no_policy_in_json_is_refused(value) -> None:
    with pytest.raises(PolicyError, match="version policy"):
        VersionPolicy.from_json(value)
