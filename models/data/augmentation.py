"""Data augmentation: distortions of a signal that do not change its digit.

The process behind MNIST-1D moves, stretches, scales and shears its digits, so doing that again makes a training set of
4,000 endless. Everything is drawn from one explicit NumPy generator: same state, same batch. NumPy only.

Shapes: B batch, L = 40 samples.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from models.errors import InvalidRecipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

RAMP_ENDS: Final = 3
"""Samples at either end whose means estimate the ramp."""


@dataclass(frozen=True)
class Augmentation:
    """How far each distortion may go; 0 turns it off. The defaults are those of the ``best`` recipe.

    Distortions are applied in the order of the fields, the first two with the estimated ramp taken out: a ramp that
    was shifted circularly would leave a step in the middle.
    """

    shift_samples: float = 4.0
    """Circular shift by up to this many samples either way, linearly interpolated. 0 to 40."""
    stretch: float = 0.15
    """Stretch about the middle by a factor of up to exp(+-stretch). 0 to 1."""
    scale: float = 0.15
    """Multiplication by 1 +- scale. 0 to 1."""
    ramp: float = 2.0
    """Adds a line from -ramp/2 to +ramp/2 at most (normalised units), rising or falling. 0 to 100."""
    noise: float = 0.08
    """Standard deviation of the white noise added (normalised units). 0 to 10."""

    def __post_init__(self) -> None:
        bounds = {"shift_samples": 40.0, "stretch": 1.0, "scale": 1.0, "ramp": 100.0, "noise": 10.0}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidRecipe(f"augmentation.{field.name}", value, "must be a number")
            if not 0 <= value <= bounds[field.name]:
                bound = f"must be between 0 and {bounds[field.name]:g}"
                raise InvalidRecipe(f"augmentation.{field.name}", value, bound)

    def draw(self, batch: int, length: int, random: np.random.Generator) -> Distortions:
        """Draw the distortions of each example of a batch.

        Takes the same number of draws from ``random`` for any strengths.
        """
        uniform_4B1 = random.uniform(-1, 1, (4, batch, 1)).astype(np.float32)
        noise_BL = random.standard_normal((batch, length), dtype=np.float32)
        noise_BL *= np.float32(self.noise)
        return Distortions(
            moves=bool(self.shift_samples or self.stretch),
            shift_B1=self.shift_samples * uniform_4B1[0],
            stretch_B1=np.exp(self.stretch * uniform_4B1[1]),
            scale_B1=1 + self.scale * uniform_4B1[2],
            slope_B1=self.ramp * uniform_4B1[3],
            noise_BL=noise_BL,
        )

    def apply(self, x_BL: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
        """A distorted copy of a batch, each example in its own way; float32 (B, L) in and out."""
        return distort(x_BL, self.draw(len(x_BL), x_BL.shape[1], random))


class Distortions(NamedTuple):
    """The distortions of each example of a batch; all arrays are float32."""

    moves: bool
    """Whether anything is shifted or stretched; if not, ``shift_B1`` and ``stretch_B1`` do nothing."""
    shift_B1: NDArray[np.float32]
    """Shift in samples to the right."""
    stretch_B1: NDArray[np.float32]
    """Stretch factor."""
    scale_B1: NDArray[np.float32]
    """Scale factor."""
    slope_B1: NDArray[np.float32]
    """Rise of the ramp that is added, from the first sample to the last."""
    noise_BL: NDArray[np.float32]
    """Noise that is added to each sample."""


def distort(x_BL: NDArray[np.float32], distortions: Distortions) -> NDArray[np.float32]:
    """A distorted copy of a batch; float32 (B, L) in and out. `models.training.fused.distortion` does the same."""
    y_BL = x_BL
    if distortions.moves:
        ramp_BL = estimate_ramp(x_BL)
        y_BL = move(x_BL - ramp_BL, distortions.shift_B1, distortions.stretch_B1) + ramp_BL
    added_BL = distortions.slope_B1 * ramp_line(x_BL.shape[1])
    distorted_BL: NDArray[np.float32] = y_BL * distortions.scale_B1 + added_BL + distortions.noise_BL
    return distorted_BL.astype(np.float32, copy=False)


def ramp_line(length: int) -> NDArray[np.float32]:
    """The line from -1/2 to 1/2, (L,) float32."""
    return np.linspace(-0.5, 0.5, length, dtype=np.float32)


def estimate_ramp(x_BL: NDArray[np.float32]) -> NDArray[np.float32]:
    """The shear of each signal as a line (B, L): from the mean of its first 3 samples to that of its last 3."""
    rise_B1 = x_BL[:, -RAMP_ENDS:].mean(axis=1, keepdims=True) - x_BL[:, :RAMP_ENDS].mean(axis=1, keepdims=True)
    ramp_BL: NDArray[np.float32] = rise_B1 * ramp_line(x_BL.shape[1])
    return ramp_BL


def move(
    x_BL: NDArray[np.float32], shift_B1: NDArray[np.float32], stretch_B1: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Circular shift to the right by ``shift`` samples and stretch by ``stretch`` about the middle of the signal.

    Values between samples are interpolated linearly, the last sample's neighbour being the first: whole shifts with
    stretch 1 are ``np.roll``.
    """
    length = x_BL.shape[1]
    middle = np.float32((length - 1) / 2)
    position_BL = (np.arange(length, dtype=np.float32) - middle - shift_B1) / stretch_B1 + middle
    floor_BL = np.floor(position_BL)
    fraction_BL = position_BL - floor_BL
    left_BL = floor_BL.astype(np.int64) % length
    right_BL = (left_BL + 1) % length
    rows_B1 = np.arange(len(x_BL))[:, None]
    moved_BL: NDArray[np.float32] = x_BL[rows_B1, left_BL] * (1 - fraction_BL) + x_BL[rows_B1, right_BL] * fraction_BL
    return moved_BL
