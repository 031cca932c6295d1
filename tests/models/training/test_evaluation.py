from __future__ import annotations

import json

import numpy as np
import pytest

from models.data.dataset import Examples, canonical

torch = pytest.importorskip("torch")

from models.networks.modules import build  # noqa: E402  (after importorskip)
from models.training.evaluation import evaluate, evaluate_logits, predict_logits  # noqa: E402  (after importorskip)

pytestmark = pytest.mark.needs_torch


def test_the_numbers_by_hand():
    logits_BK = np.full((4, 10), -1e9)
    logits_BK[0, 3] = logits_BK[1, 3] = logits_BK[2, 5] = 0
    logits_BK[3, [5, 7]] = [np.log(3), 0]
    result = evaluate_logits(logits_BK, np.array([3, 3, 5, 7]))

    assert result.accuracy == 0.75
    assert result.loss == pytest.approx(np.log(4) / 4)
    assert result.count == 4
    assert result.confusion_KK.dtype == np.int64
    assert result.confusion_KK[3, 3] == 2
    assert result.confusion_KK[5, 5] == 1
    assert result.confusion_KK[7, 5] == 1  # row: the truth, column: the answer
    assert result.confusion_KK.sum() == 4
    assert (result.per_class[3], result.per_class[5], result.per_class[7]) == (1, 1, 0)
    assert np.isnan(result.per_class[0])


def test_evaluation_agrees_with_torch_on_the_test_set():
    network, test = build("conv", seed=0, init="pytorch"), canonical().test
    result = evaluate(network, test)
    logits_BK, y_B = network(torch.tensor(test.x_BL)).detach(), torch.tensor(test.y_B)

    assert result.loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits_BK, y_B)), rel=1e-5)
    assert result.accuracy == float((logits_BK.argmax(1) == y_B).double().mean())
    assert result.accuracy == pytest.approx(result.confusion_KK.trace() / 1000)
    assert np.array_equal(result.confusion_KK.sum(axis=1), np.bincount(test.y_B))


def test_to_dict_is_json_with_null_for_classes_without_examples():
    examples = canonical().test.take([0])
    values = json.loads(json.dumps(evaluate(build("fc", seed=0), examples).to_dict(), allow_nan=False))

    assert set(values) == {"accuracy", "loss", "per_class", "confusion", "count"}
    assert values["count"] == 1
    assert values["per_class"].count(None) == 9
    assert np.array(values["confusion"]).shape == (10, 10)


@pytest.mark.parametrize("batch", [1, 7, 100, 1000, 5000])
def test_predictions_are_the_same_in_batches_of_any_size(batch):
    network, x_BL = build("conv", seed=0), canonical().test.x_BL[:101]
    expected = network(torch.tensor(x_BL)).detach().numpy()

    assert np.abs(predict_logits(network, x_BL, batch) - expected).max() < 1e-5


def test_predictions_of_nothing():
    assert predict_logits(build("conv", seed=0), np.zeros((0, 40), np.float32)).shape == (0, 10)


def test_predictions_are_in_the_dtype_of_the_network_and_leave_its_mode():
    network = build("conv", seed=0).double().train()
    logits_BK = predict_logits(network, canonical().test.x_BL[:3])

    assert logits_BK.dtype == np.float64
    assert network.training


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: predict_logits(build("conv", seed=0), np.zeros((1, 40), np.float32), 0), "batch must be at least 1"),
        (lambda: evaluate_logits(np.zeros((0, 10)), np.zeros(0, np.int64)), "at least 1 example"),
        (lambda: evaluate_logits(np.zeros((2, 10)), np.zeros(3, np.int64)), r"shape \(3, 10\), got \(2, 10\)"),
        (
            lambda: evaluate(build("conv", seed=0), Examples(np.zeros((0, 40), np.float32), np.zeros(0, np.int64))),
            "at least 1 example",
        ),
    ],
)
def test_impossible_requests_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_confident_logits_do_not_overflow():
    logits_BK = np.zeros((1, 10), np.float32)
    logits_BK[0, 1] = 1e30
    assert evaluate_logits(logits_BK, np.array([1])).loss == 0
    assert np.isfinite(evaluate_logits(logits_BK, np.array([2])).loss)


@pytest.mark.parametrize("row", [[np.inf, np.inf], [np.inf, 0], [-np.inf, -np.inf], [np.nan, 0]])
def test_the_loss_of_logits_that_are_not_finite_is_not_and_nothing_warns_of_it(row):
    """Training that diverges is told by its loss; NumPy's own words about it would only be noise before that."""
    logits_BK = np.repeat(np.array([row], np.float32), 5, axis=1)
    evaluation = evaluate_logits(logits_BK, np.array([0]))
    assert not np.isfinite(evaluation.loss)
    assert evaluation.count == evaluation.confusion_KK.sum() == 1
