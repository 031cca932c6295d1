"""Statistics of a few figures: mean, range, standard deviation, and the confidence interval of the mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE: Final = 0.95
_BISECTIONS: Final = 64
"""One for each bit of a float; afterwards the two ends are neighbouring floats."""


@dataclass(frozen=True)
class Spread:
    """Statistics of figures of one kind, one for each seed."""

    count: int
    mean: float
    lowest: float
    highest: float
    deviation: float | None
    """Sample standard deviation (divided by ``count`` - 1); None for a single figure."""
    interval: tuple[float, float] | None
    """Interval of the mean at 95 % confidence, by Student's t, which assumes roughly normal figures; None
    for a single figure."""

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """The spread of at least one figure; ValueError for none."""
        if not values:
            raise ValueError("there must be at least 1 figure, got 0")
        count = len(values)
        mean = math.fsum(values) / count
        if count == 1:
            return Spread(1, mean, mean, mean, None, None)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
        half = student_t_quantile((1 + CONFIDENCE) / 2, count - 1) * deviation / math.sqrt(count)
        return Spread(count, mean, min(values), max(values), deviation, (mean - half, mean + half))

    def to_dict(self) -> dict[str, Any]:
        """The statistics as plain values for JSON."""
        return {
            "count": self.count,
            "mean": self.mean,
            "lowest": self.lowest,
            "highest": self.highest,
            "deviation": self.deviation,
            "confidence": CONFIDENCE,
            "interval": None if self.interval is None else list(self.interval),
        }


def student_t_quantile(probability: float, degrees_of_freedom: int) -> float:
    """The value that Student's t stays below with ``probability``, above 0 and below 1; ValueError otherwise."""
    if not 0 < probability < 1:
        raise ValueError(f"probability must be above 0 and below 1, got {probability}")
    if degrees_of_freedom < 1:
        raise ValueError(f"degrees_of_freedom must be at least 1, got {degrees_of_freedom}")
    if probability < 0.5:
        return -student_t_quantile(1 - probability, degrees_of_freedom)
    # Bisect the angle between 0 and pi / 2, where t = tan(angle) sqrt(degrees_of_freedom).
    low, high = 0.0, math.pi / 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if (1 + _share_within(middle, degrees_of_freedom)) / 2 < probability:
            low = middle
        else:
            high = middle
    return math.tan(low) * math.sqrt(degrees_of_freedom)


def _share_within(angle: float, degrees_of_freedom: int) -> float:
    """Probability that |t| < tan(angle) sqrt(degrees_of_freedom): the finite series for whole degrees of freedom.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 (odd) and 26.7.4 (even).
    """
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = degrees_of_freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for power in range(1 + odd, degrees_of_freedom, 2):
        total += term
        term *= cosine**2 * power / (power + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
