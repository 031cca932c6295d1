"""A latency histogram with buckets of equal relative width, in bounded memory and accurate to 0.2 per cent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_SUB_BUCKETS = 512
_LOWEST = -30
"""Exponent of two of the lowest bucket, which counts everything below a nanosecond."""
_HIGHEST = 14
"""Exponent of two of the highest bucket, which counts everything above four and a half hours."""
_SMALLEST_S = math.ldexp(0.5, _LOWEST)
_BUCKETS = (_HIGHEST - _LOWEST) * _SUB_BUCKETS


class Histogram:
    """Durations in seconds. Quantiles are accurate to 0.2 per cent; smallest, largest and mean are exact."""

    def __init__(self) -> None:
        # Only the used ones of thousands of buckets, in order.
        self._buckets: NDArray[np.int64] = np.zeros(0, np.int64)
        self._counts: NDArray[np.int64] = np.zeros(0, np.int64)
        self.count = 0
        self.total_s = 0.0
        self.min_s = math.inf
        self.max_s = 0.0

    def add(self, durations_s: ArrayLike) -> None:
        """Count durations; negative ones count as 0."""
        values = np.maximum(np.asarray(durations_s, np.float64), 0.0)
        if not values.size:
            return
        # frexp gives zero the exponent 0; here it belongs into the lowest bucket.
        mantissa, exponent = np.frexp(np.maximum(values, _SMALLEST_S))
        index = (exponent.astype(np.int64) - _LOWEST) * _SUB_BUCKETS + ((mantissa - 0.5) * 2 * _SUB_BUCKETS).astype(
            np.int64
        )
        self._count(*np.unique(np.clip(index, 0, _BUCKETS - 1), return_counts=True))
        self.count += values.size
        self.total_s += float(values.sum())
        self.min_s = min(self.min_s, float(values.min()))
        self.max_s = max(self.max_s, float(values.max()))

    def merge(self, other: Histogram) -> None:
        """Add the counts of another histogram."""
        self._count(other._buckets, other._counts)
        self.count += other.count
        self.total_s += other.total_s
        self.min_s = min(self.min_s, other.min_s)
        self.max_s = max(self.max_s, other.max_s)

    @property
    def mean_s(self) -> float:
        """Mean duration in seconds; 0 if nothing was counted."""
        return self.total_s / self.count if self.count else 0.0

    def quantile_s(self, q: float) -> float:
        """The duration that a share ``q`` (0 to 1) of all did not exceed; 0 if nothing was counted."""
        if not 0 <= q <= 1:
            raise ValueError(f"q: got {q}, expected 0 to 1")
        if not self.count:
            return 0.0
        rank = max(1, math.ceil(q * self.count - 1e-9))
        if rank == self.count:
            return self.max_s
        bucket = int(self._buckets[np.searchsorted(np.cumsum(self._counts), rank)])
        exponent, sub = divmod(bucket, _SUB_BUCKETS)
        middle = math.ldexp(0.5 + (sub + 0.5) / (2 * _SUB_BUCKETS), exponent + _LOWEST)
        return min(max(middle, self.min_s), self.max_s)

    def _count(self, buckets: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        merged, where = np.unique(np.concatenate([self._buckets, buckets]), return_inverse=True)
        weights = np.concatenate([self._counts, counts])
        self._buckets, self._counts = merged, np.bincount(where, weights, len(merged)).astype(np.int64)
