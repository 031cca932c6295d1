"""Which networks are reported on, and what they answer."""

from __future__ import annotations

import numpy as np
import pytest

from models.data.dataset import canonical
from models.errors import ArtifactError
from models.networks import reference
from models.networks.architectures import ARCHITECTURES
from models.report.subject import Subject
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
