"""Which network is beside the one that is reported on."""

from __future__ import annotations

import pytest

from models.errors import ArtifactError
from models.networks.architectures import ARCHITECTURES
from models.report.counterpart import Likeness, counterpart_name, likeness, pair_of
from models.report.headline import headline
from models.report.subject import Subject
from tests.conftest import affine_model, publish_affine, put_plain
from tests.models.report.subjects import publish_random


@pytest.mark.parametrize(
    ("network", "counterpart"), [("conv", "fc"), ("fc", "conv"), ("conv25", "fc-slide"), ("fc-slide", "conv25")]
)
def test_every_network_has_a_counterpart(network, counterpart):
    assert counterpart_name(ARCHITECTURES[network]) == counterpart


def test_the_newest_version_of_the_counterpart_is_beside_it_whatever_its_name(repository):
    own = Subject.read(publish_random(repository, "conv"))
    alone = pair_of(own, repository)
    assert alone.other is None
    assert "no published version of its counterpart fc" in alone.why_alone
    publish_random(repository, "fc", created="2026-01-02T00:00:00+00:00")
    publish_random(repository, "fc", name="another", created="2026-03-01T00:00:00+00:00")
    publish_random(repository, "fc", created="2026-02-01T00:00:00+00:00")
    publish_random(repository, "fc-slide", created="2026-04-01T00:00:00+00:00")
    put_plain(repository, "plain", affine_model())
    publish_affine(repository, "foreign")
    found = pair_of(own, repository)
    assert (found.other.manifest.name, found.other.manifest.version) == ("another", 1)
    assert (found.conv, found.fc) == (own, found.other)
    assert pair_of(found.other, repository).conv.manifest == own.manifest


def test_a_damaged_counterpart_is_passed_over_and_told(repository):
    own = Subject.read(publish_random(repository, "conv"))
    damaged = publish_random(repository, "fc", created="2026-02-01T00:00:00+00:00")
    (damaged / "history.json").write_text("{")
    assert "mnist1d-fc version 1 cannot be read: history.json" in pair_of(own, repository).why_alone
    publish_random(repository, "fc", created="2026-01-01T00:00:00+00:00")
    assert pair_of(own, repository).other.manifest.version == 2
    (damaged / "manifest.json").write_text("{")
    assert pair_of(own, repository).other.manifest.version == 2


def test_a_model_that_may_not_be_looked_at_is_no_obstacle(repository, lock):
    own = Subject.read(publish_random(repository, "conv"))
    publish_random(repository, "fc")
    publish_random(repository, "fc", name="locked", created="2026-02-01T00:00:00+00:00")
    lock("locked")
    assert pair_of(own, repository).other.manifest.name == "mnist1d-fc"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"name": "quick", "steps": 7}, {"name": "quick", "steps": 7, "seed": 1}, Likeness.SAME),
        ({"name": "quick", "steps": 7}, {"name": "quick", "steps": 8}, Likeness.OTHER_STEPS),
        ({"name": "quick", "steps": 7}, {"name": "best", "steps": 7}, Likeness.OTHER_RECIPE),
        ({}, {}, Likeness.OTHER_RECIPE),
        ({}, {"name": "best"}, Likeness.OTHER_RECIPE),
    ],
)
def test_likeness(first, second, expected):
    assert likeness(first, second) is expected
    assert likeness(second, first) is expected


def test_the_one_that_was_trained_most_alike_is_beside_it(repository):
    own = Subject.read(publish_random(repository, "conv"))

    def beside():
        pair = pair_of(own, repository)
        assert f"Beside it is mnist1d-fc version {pair.other.manifest.version}, {pair.why_beside}." in headline(pair)
        return pair.other.manifest.version, pair.why_beside

    publish_random(repository, "fc", recipe_name="lecture", created="2026-05-01T00:00:00+00:00")
    assert beside() == (1, "the only one there, as none is by the same recipe")
    publish_random(repository, "fc", steps=50, created="2026-03-01T00:00:00+00:00")
    publish_random(repository, "fc", steps=60, created="2026-04-01T00:00:00+00:00")
    assert beside() == (3, "the newest of 2 by the same recipe, as none has the same number of steps")
    publish_random(repository, "fc", created="2026-02-01T00:00:00+00:00")
    assert beside() == (4, "the only one by the same recipe and number of steps")
    publish_random(repository, "fc", created="2026-01-01T00:00:00+00:00")
    assert beside() == (4, "the newest of 2 by the same recipe and number of steps")


def test_the_one_that_is_asked_for_is_beside_it(repository, tmp_path, monkeypatch):
    own = Subject.read(publish_random(repository, "conv"))
    publish_random(repository, "fc", recipe_name="lecture")
    publish_random(repository, "fc")
    elsewhere = publish_random(tmp_path / "other", "fc", name="far")

    def beside(text):
        found = pair_of(own, repository, beside=text)
        assert found.why_beside == "as it was asked for"
        return found.other.manifest.name, found.other.manifest.version

    assert beside("mnist1d-fc/1") == ("mnist1d-fc", 1)
    assert beside("mnist1d-fc") == ("mnist1d-fc", 2)
    assert beside(str(elsewhere)) == ("far", 1)
    monkeypatch.chdir(elsewhere.parent)
    assert beside("1") == ("far", 1)
    assert beside("..//far") == ("far", 1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mnist1d-fc/2", r"beside: got 'mnist1d-fc/2', which is no directory and no NAME or NAME/VERSION in .*of fc"),
        ("nowhere", r"beside: got 'nowhere', which is no directory"),
        ("mnist1d-conv/1", r"beside: got 'mnist1d-conv/1', a conv, expected a version of fc"),
        ("plain/1", "has no manifest"),
    ],
)
def test_what_cannot_be_beside_it_is_refused(text, problem, repository):
    own = Subject.read(publish_random(repository, "conv"))
    publish_random(repository, "fc")
    put_plain(repository, "plain", affine_model())
    with pytest.raises(ArtifactError, match=problem):
        pair_of(own, repository, beside=text)
