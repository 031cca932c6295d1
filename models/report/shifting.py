"""Measure how answers change when signals are moved: the figures behind the demonstration.

A signal is shifted circularly, after its ramp was removed so that its ends meet. The unmoved signals are measured
without their ramp too, so that nothing but the shift differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.data.augmentation import estimate_ramp
from models.networks.convolution import convolve_1d, relu
from models.report.subject import LAYER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.data.dataset import Examples
    from models.networks.convolution import Array
    from models.report.subject import Subject

SHIFTS: Final = tuple(range(-10, 11))
"""The shifts of the demonstration, in samples to the right."""
MEASURED: Final = (-10, -8, -6, -4, -2, -1, 0, 1, 2, 4, 6, 8, 10)
"""The shifts that are measured on all examples."""


@dataclass(frozen=True)
class ShiftFigures:
    """How a network answers moved signals, for the S shifts of `MEASURED`."""

    accuracy_S: tuple[float, ...]
    """Share of right answers, 0 to 1."""
    agreement_S: tuple[float, ...]
    """Share of answers that are the same as for the unmoved signal, right or wrong, 0 to 1."""


def told(shift: int) -> str:
    """Describe a shift in words: ``4 samples to the right``."""
    if shift == 0:
        return "0 samples"
    return f"{abs(shift)} sample{'s' if abs(shift) > 1 else ''} to the {'right' if shift > 0 else 'left'}"


def without_ramp(x_BL: NDArray[np.float32]) -> NDArray[np.float32]:
    """Remove the ramp of signals, so that their ends lie at one height."""
    level_BL: NDArray[np.float32] = x_BL - estimate_ramp(x_BL)
    return level_BL


def moved(x_BL: NDArray[Any], shift: int) -> NDArray[Any]:
    """Shift signals circularly by whole samples, to the right if positive."""
    return np.roll(x_BL, shift, axis=-1)


def measure(subject: Subject, examples: Examples) -> ShiftFigures:
    """Measure the answers of a network to all examples at the shifts of `MEASURED`."""
    level_BL = without_ramp(examples.x_BL)
    answers_SB = [subject.probabilities(moved(level_BL, shift)).argmax(axis=1) for shift in MEASURED]
    unmoved_B = answers_SB[MEASURED.index(0)]
    return ShiftFigures(
        tuple(float(np.mean(answers_B == examples.y_B)) for answers_B in answers_SB),
        tuple(float(np.mean(answers_B == unmoved_B)) for answers_B in answers_SB),
    )


def first_layer(subject: Subject, x_BL: NDArray[Any]) -> Array:
    """The first hidden layer as maps (B, C, 19); the units of a fully connected net are laid out like its twin's.

    Convolutions are summed tap by tap here, in the same order at every position, so that equal inputs give equal bits.
    """
    if subject.role == "conv":
        weight, bias = subject.weights["conv1.weight"], subject.weights["conv1.bias"]
        x_BCL = x_BL.astype(np.float64)[:, None, :]
        return convolve_1d(x_BCL, weight, bias, stride=LAYER.stride, activation=relu)
    return subject.hidden(x_BL)[0].reshape(len(x_BL), -1, LAYER.output_length(x_BL.shape[1]))


def difference_to_moved(before_CL: Array, after_CL: Array, shift: int) -> float | None:
    """The largest difference of a map to the map before, moved by half the shift; None if that is no whole number.

    Only the columns that were not cut off at either end are compared.
    """
    columns, rest = divmod(shift, LAYER.stride)
    if rest:
        return None
    length = before_CL.shape[1]
    kept = range(max(0, columns), min(length, length + columns))
    return float(max(np.abs(after_CL[:, i] - before_CL[:, i - columns]).max() for i in kept))
