"""`models.data.augmentation.distort`, compiled: the same bits, in one pass over each signal.

Shapes: B batch, L samples.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from models.data.augmentation import RAMP_ENDS, ramp_line
from models.training.fused.compiled import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.data.augmentation import Distortions


def distort(x_BL: NDArray[np.float32], distortions: Distortions) -> NDArray[np.float32]:
    """A distorted copy of a batch; float32 (B, L) in and out."""
    distorted_BL = np.empty_like(x_BL)
    length = x_BL.shape[1]
    _distort(x_BL, distortions, ramp_line(length), np.empty(length, np.float32), distorted_BL)
    return distorted_BL


@compiled
def _distort(
    x_BL: NDArray[np.float32],
    distortions: Distortions,
    line_L: NDArray[np.float32],
    level_L: NDArray[np.float32],
    distorted_BL: NDArray[np.float32],
) -> None:
    length = x_BL.shape[1]
    one, middle, ends = np.float32(1), np.float32((length - 1) / 2), np.float32(RAMP_ENDS)
    for b in range(len(x_BL)):
        scale, slope = distortions.scale_B1[b, 0], distortions.slope_B1[b, 0]
        shift, stretch = distortions.shift_B1[b, 0], distortions.stretch_B1[b, 0]
        first, last = x_BL[b, 0], x_BL[b, length - RAMP_ENDS]
        for i in range(1, RAMP_ENDS):
            first += x_BL[b, i]
            last += x_BL[b, length - RAMP_ENDS + i]
        rise = last / ends - first / ends
        for i in range(length):
            level_L[i] = x_BL[b, i] - rise * line_L[i]
        for i in range(length):
            y = x_BL[b, i]
            if distortions.moves:
                position = (np.float32(i) - middle - shift) / stretch + middle
                floor = math.floor(position)
                fraction = position - np.float32(floor)
                left = floor % length
                right = left + 1 if left + 1 < length else 0
                y = level_L[left] * (one - fraction) + level_L[right] * fraction + rise * line_L[i]
            distorted_BL[b, i] = y * scale + slope * line_L[i] + distortions.noise_BL[b, i]
