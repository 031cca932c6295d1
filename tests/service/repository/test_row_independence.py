from __future__ import annotations

import pytest

from models.artifact.artifact import read_manifest
from service.repository.model_settings import ModelSettings
from service.repository.row_independence import row_independence
from service.runtime.row_independence import UNKNOWN
from tests.conftest import publish_affine

CONV = {"network": {"name": "conv", "parameters": 2_050}}
OURS = (True, "published by this project's pipeline: network conv")


def manifest_with(repository, provenance, **fields):
    return read_manifest(publish_affine(repository, provenance=provenance, **fields))


def test_a_network_of_this_project_is_known(repository) -> None:
    assert row_independence(manifest_with(repository, CONV), ModelSettings()) == OURS


@pytest.mark.parametrize(
    "provenance",
    [
        {},
        {"network": "conv"},
        {"network": {"name": "resnet", "parameters": 2_050}},
        {"network": {"name": "conv", "parameters": 2_051}},
        {"network": {"name": ["conv"], "parameters": 2_050}},
        {"network": None},
    ],
)
def test_of_any_other_model_nothing_is_known(repository, provenance) -> None:
    assert row_independence(manifest_with(repository, provenance), ModelSettings()) == UNKNOWN
    assert not UNKNOWN.is_known


def test_without_a_manifest_or_a_proof_nothing_is_known(repository) -> None:
    assert row_independence(None, ModelSettings()) == UNKNOWN
    assert row_independence(manifest_with(repository, CONV, goldens=[]), ModelSettings()) == UNKNOWN


@pytest.mark.parametrize("word", [True, False])
def test_the_word_of_the_operator_goes_first(repository, word) -> None:
    told = f"declared by the operator: rows_are_independent is {str(word).lower()}"
    settings = ModelSettings(rows_are_independent=word)
    assert row_independence(None, settings) == (word, told)
    assert row_independence(manifest_with(repository, CONV), settings) == (word, told)
