"""Evaluate a network on a set of examples: accuracy, loss, accuracy of each class, and confusion matrix.

Shapes: B batch, L = 40 samples, K = 10 classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.data.dataset import CLASSES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from models.data.dataset import Examples


@dataclass(frozen=True)
class Evaluation:
    """The scores of a network on ``count`` labelled examples."""

    accuracy: float
    """Share of right answers, 0 to 1."""
    loss: float
    """Mean cross-entropy in nats; not finite where logits are not."""
    per_class: tuple[float, ...]
    """Accuracy among the examples of each digit; NaN for a digit that has none."""
    confusion_KK: NDArray[np.int64]
    """Confusion matrix (10, 10): how many examples of the row's digit were taken for the column's."""
    count: int
    """Number of examples."""

    def to_dict(self) -> dict[str, Any]:
        """The evaluation as plain values for JSON; the accuracy of a digit without examples becomes None."""
        return {
            "accuracy": self.accuracy,
            "loss": self.loss,
            "per_class": [None if np.isnan(value) else value for value in self.per_class],
            "confusion": self.confusion_KK.tolist(),
            "count": self.count,
        }


def predict_logits(network: nn.Module, x_BL: NDArray[np.float32], batch: int = 1000) -> NDArray[np.floating[Any]]:
    """Logits (B, 10) in the network's own dtype, ``batch`` examples at a time; B may be 0.

    Runs without gradients in eval mode and leaves the network in the mode it was in. ValueError for a batch below 1.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    dtype = next(network.parameters()).dtype
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            # torch.tensor copies: the arrays of a dataset are read-only, which torch.from_numpy warns of
            parts = [
                network(torch.tensor(x_BL[start : start + batch], dtype=dtype)).numpy()
                for start in range(0, max(1, len(x_BL)), batch)
            ]
    finally:
        network.train(was_training)
    return np.concatenate(parts)


def evaluate(network: nn.Module, examples: Examples) -> Evaluation:
    """Run ``network`` over all ``examples`` and score its answers. ValueError if there are none."""
    return evaluate_logits(predict_logits(network, examples.x_BL), examples.y_B)


def evaluate_logits(logits_BK: NDArray[np.floating[Any]], y_B: NDArray[np.int64]) -> Evaluation:
    """Score logits that were computed elsewhere, by a server for instance. ValueError if there are none."""
    count = len(y_B)
    if count == 0:
        raise ValueError("there must be at least 1 example, got 0")
    if logits_BK.shape != (count, CLASSES):
        raise ValueError(f"logits must have shape ({count}, {CLASSES}), got {logits_BK.shape}")
    logits_BK = logits_BK.astype(np.float64)
    top_B1 = logits_BK.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # diverging training makes infinite logits, which show in the loss
        log_sum_B = np.log(np.exp(logits_BK - top_B1).sum(axis=1)) + top_B1[:, 0]
        loss = float((log_sum_B - logits_BK[np.arange(count), y_B]).mean())
    confusion_KK = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(confusion_KK, (y_B, logits_BK.argmax(axis=1)), 1)
    right_K, total_K = confusion_KK.diagonal(), confusion_KK.sum(axis=1)
    per_class = tuple(
        float(right / total) if total else float("nan") for right, total in zip(right_K, total_K, strict=True)
    )
    return Evaluation(float(right_K.sum() / count), loss, per_class, confusion_KK, count)
