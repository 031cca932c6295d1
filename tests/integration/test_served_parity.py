"""What the server answers is what PyTorch computes, for every test example, at every batch size, raw and typed."""

from __future__ import annotations

import numpy as np
import pytest

from models.artifact.artifact import read_manifest
from models.artifact.publication import versions
from service.client import InferenceClient

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.needs_torch

NAMES = ("mnist1d-conv", "mnist1d-fc")
BATCHES = (1, 2, 7, 64, 1000)
LOGITS_TOLERANCE = 1e-4
PROBABILITIES_TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def client(server):
    with InferenceClient(f"127.0.0.1:{server.port}") as connected:
        yield connected


def served(client, name: str, x_BL: np.ndarray, batch: int, *, typed: bool = False) -> dict[str, np.ndarray]:
    answers = [
        client.infer(name, {"x": x_BL[start : start + batch]}, typed=typed).outputs
        for start in range(0, len(x_BL), batch)
    ]
    return {output: np.concatenate([answer[output] for answer in answers]) for output in answers[0]}


def reference(network, x_BL: np.ndarray) -> dict[str, np.ndarray]:
    with torch.inference_mode():
        logits_BK = network(torch.from_numpy(np.array(x_BL)))
    return {"probabilities": torch.softmax(logits_BK, dim=-1).numpy(), "logits": logits_BK.numpy()}


@pytest.mark.parametrize("typed", [False, True], ids=["raw", "typed"])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", NAMES)
def test_served_answers_equal_pytorch(client, trained, name, batch, typed) -> None:
    x_BL = trained.test.x_BL
    answers = served(client, name, x_BL, batch, typed=typed)
    expected = reference(trained.networks[name], x_BL)
    assert answers["probabilities"].shape == (1000, 10)
    assert np.abs(answers["probabilities"] - expected["probabilities"]).max() <= PROBABILITIES_TOLERANCE
    assert np.abs(answers["logits"] - expected["logits"]).max() <= LOGITS_TOLERANCE
    for output in ("probabilities", "logits"):
        assert np.array_equal(answers[output].argmax(-1), expected["logits"].argmax(-1))


@pytest.mark.parametrize("name", NAMES)
def test_served_bits_do_not_depend_on_batch_size_or_contents_form(client, trained, name) -> None:
    x_BL = trained.test.x_BL
    whole = served(client, name, x_BL, 1000)
    for batch in BATCHES:
        for typed in (False, True):
            part = served(client, name, x_BL, batch, typed=typed)
            assert all(part[output].tobytes() == whole[output].tobytes() for output in whole)


def test_served_convolution_equals_its_dense_twin(client, trained) -> None:
    from models.networks.modules import dense_twin

    x_BL = trained.test.x_BL
    answers = served(client, "mnist1d-conv", x_BL, 64)
    twin = dense_twin(trained.networks["mnist1d-conv"]).double()
    with torch.inference_mode():
        logits_BK = twin(torch.from_numpy(np.array(x_BL)).double())
    assert np.abs(answers["logits"] - logits_BK.numpy()).max() <= LOGITS_TOLERANCE
    assert np.abs(answers["probabilities"] - torch.softmax(logits_BK, -1).numpy()).max() <= PROBABILITIES_TOLERANCE
    assert np.array_equal(answers["logits"].argmax(-1), logits_BK.argmax(-1).numpy())


def test_served_convolution_beats_its_baseline_by_fifteen_points(client, trained) -> None:
    accuracy = {
        name: float(
            (served(client, name, trained.test.x_BL, 100)["probabilities"].argmax(-1) == trained.test.y_B).mean()
        )
        for name in NAMES
    }
    assert accuracy["mnist1d-conv"] >= accuracy["mnist1d-fc"] + 0.15
    assert accuracy["mnist1d-conv"] > 0.8
    for name, measured in accuracy.items():
        (version,) = versions(trained.repository / name)
        assert read_manifest(trained.repository / name / str(version)).test_accuracy == pytest.approx(measured)


def test_the_server_says_that_both_are_proven(client) -> None:
    for name in NAMES:
        properties = client.model(name).properties
        assert properties["proof"] == "proven"
        assert float(properties["proof.max_difference"]) <= LOGITS_TOLERANCE
