"""Which networks are reported on, what they answer, and which one is beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models import reference
from models.architectures import ARCHITECTURES
from models.dataset import canonical
from models.errors import ArtifactError
from models.report.subject import Subject, counterpart_name, pair_of
from tests.conftest import affine_model, publish_affine, put_plain
from tests.models.report.subjects import manifest, model_bytes, publish_random, subject


@pytest.mark.parametrize("network", ARCHITECTURES)
def test_its_answers_are_those_of_the_reference(network):
    x_BL = canonical().test.x_BL[:20]
    made = subject(network)
    expected = reference.probabilities(ARCHITECTURES[network], made.weights, x_BL)
    np.testing.assert_allclose(made.probabilities(x_BL), expected, atol=1e-5)
    shapes = [layer.shape for layer in made.hidden(x_BL)]
    if network == "conv":
        assert shapes == [(20, 15, 19), (20, 15, 9), (20, 15, 4)]
    if network == "fc":
        assert shapes == [(20, 285), (20, 135), (20, 60)]


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


def test_a_model_that_may_not_be_looked_at_is_no_obstacle(repository, monkeypatch):
    own = Subject.read(publish_random(repository, "conv"))
    publish_random(repository, "fc")
    publish_random(repository, "fc", name="locked", created="2026-02-01T00:00:00+00:00")
    listed = Path.iterdir

    def iterdir(path):
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert pair_of(own, repository).other.manifest.name == "mnist1d-fc"


def test_a_version_that_kept_no_history_has_none(repository):
    assert Subject.read(publish_random(repository, "conv", kept=False)).history is None
    assert len(Subject.read(publish_random(repository, "conv")).history.curves) == 2


def test_what_is_no_network_of_this_project_is_refused(repository):
    with pytest.raises(ArtifactError, match=r"no network of this project.*names none, known are conv, fc"):
        Subject.read(publish_affine(repository, "foreign"))
    with pytest.raises(ArtifactError, match="has no manifest"):
        Subject.read(put_plain(repository, "plain", affine_model()))
    content = model_bytes("fc")
    with pytest.raises(ArtifactError, match="does not hold the weights of conv"):
        Subject.of(manifest(content, "conv"), content, None)


@pytest.mark.needs_torch
def test_a_published_network_is_as_good_as_its_manifest_says(published):
    own = Subject.read(published.path)
    test = canonical().test
    accuracy = float(np.mean(own.probabilities(test.x_BL).argmax(axis=1) == test.y_B))
    assert accuracy == published.evaluation.accuracy
