"""MNIST-1D: the canonical 5,000 examples, and any number of fresh ones from the same process. NumPy only.

The dataset and its process are those of Greydanus & Kobak, "Scaling down deep learning with MNIST-1D" (Apache-2.0). An
example starts as one of ten templates of 12 numbers; it is padded with zeros, resampled, scaled, moved, buried in
correlated noise wherever it is zero, made noisy, sheared by a ramp, and resampled to 40 points. Nothing is downloaded
and nothing is unpickled: the canonical arrays are generated here, equal to the published ones bit for bit in float32,
and their SHA-256 is checked on every generation.

Shapes: B examples, L = 40 samples; T = 72 points of the signal while it is being made.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

SAMPLES: Final = 40
"""Length of one example."""
CLASSES: Final = 10
"""Digits 0 to 9."""

CANONICAL_SEED: Final = 42
CANONICAL_TRAIN: Final = 4_000
CANONICAL_TEST: Final = 1_000

CANONICAL_SHA256: Final[Mapping[str, str]] = MappingProxyType(
    {
        "train_x": "d53506bddd12d3b72c7153b1ae7f34807724b1dd078a7273809bf9d0792319f6",
        "train_y": "d97dc7aecec8ad6b5d8f143ba3e9c4bd7e25c420d7dfc2eb990591cfc0ed3e15",
        "test_x": "30addc43827c82aafa5db8bc97cea63349ca687e87db2f201cc4f5415d9a4ebd",
        "test_y": "8de99be3ff9dab15ae0dc072c3d6ced7cf6b33d365888ce4a386fc944489452c",
    }
)
"""SHA-256 of the published arrays: little-endian, C order, x float32 and y int64."""

MEAN: Final = -0.00550750643127718
STD: Final = 0.15467803420593054
"""Mean and standard deviation of all 5,000 canonical signals before they are normalised. Fresh examples use the same
two numbers, so that a network trained on one set works on the other."""

_TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)
_POINTS = 72
_PADDINGS = range(36, 61)
_SCALE = 0.4
_TRANSLATIONS = 48
_CORRELATED_NOISE = 0.25
_FILTER_SIGMA = 2.0
_FILTER_RADIUS = 8
_IID_NOISE = 0.02
_SHEAR = 0.75
_CHUNK = 10_000
"""Number of fresh examples made at a time, which bounds the memory of the 72-point signals to some 30 MB."""


@dataclass(frozen=True)
class Examples:
    """Signals and their digits. Arrays may be read-only: copy before you write."""

    x_BL: NDArray[np.float32]
    """Signals, (B, 40) float32, normalised."""
    y_B: NDArray[np.int64]
    """Digits, (B,) int64, 0 to 9."""

    def __post_init__(self) -> None:
        if self.x_BL.dtype != np.float32 or self.x_BL.ndim != 2 or self.x_BL.shape[1] != SAMPLES:
            raise ValueError(f"x_BL must be float32 (B, {SAMPLES}), got {self.x_BL.dtype} {self.x_BL.shape}")
        if self.y_B.dtype != np.int64 or self.y_B.shape != self.x_BL.shape[:1]:
            raise ValueError(f"y_B must be int64 ({len(self.x_BL)},), got {self.y_B.dtype} {self.y_B.shape}")

    def __len__(self) -> int:
        return len(self.y_B)

    def take(self, indices: ArrayLike) -> Examples:
        """The examples at ``indices``, in that order; IndexError if one is out of range."""
        rows = np.asarray(indices, dtype=np.int64)
        return Examples(self.x_BL[rows], self.y_B[rows])


@dataclass(frozen=True)
class Dataset:
    """A training set and a test set, with the hash of every array."""

    train: Examples
    test: Examples
    sha256: Mapping[str, str]
    """Keys train_x, train_y, test_x, test_y; see ``array_sha256``."""

    @staticmethod
    def of(train: Examples, test: Examples) -> Dataset:
        """A dataset of any examples, its hashes computed."""
        arrays: dict[str, NDArray[Any]] = {
            "train_x": train.x_BL,
            "train_y": train.y_B,
            "test_x": test.x_BL,
            "test_y": test.y_B,
        }
        hashes = {name: array_sha256(array) for name, array in arrays.items()}
        return Dataset(train, test, MappingProxyType(hashes))


def array_sha256(array: NDArray[Any]) -> str:
    """SHA-256 of an array's bytes, little-endian and in C order; the shape is not part of it."""
    little_endian = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return hashlib.sha256(little_endian.tobytes()).hexdigest()


@cache
def canonical() -> Dataset:
    """The published 4,000 training and 1,000 test examples, generated (half a second, once per process) and checked.

    The arrays are read-only. Raises DatasetError, naming the array, the expected and the actual hash, if they differ
    from the published ones by a single bit.
    """
    count = CANONICAL_TRAIN + CANONICAL_TEST
    random = np.random.RandomState(CANONICAL_SEED)
    y_B = np.repeat(np.arange(CLASSES), count // CLASSES)
    signals_BL = _signals(y_B, _Draws.one_by_one(random, count))
    order = random.permutation(count)
    everything = _examples(signals_BL[order], y_B[order])
    train, test = slice(None, CANONICAL_TRAIN), slice(CANONICAL_TRAIN, None)
    dataset = Dataset.of(
        Examples(everything.x_BL[train], everything.y_B[train]),
        Examples(everything.x_BL[test], everything.y_B[test]),
    )
    check_canonical(dataset)
    return dataset


def check_canonical(dataset: Dataset) -> None:
    """Raise DatasetError unless every array of ``dataset`` has the published hash."""
    for name, expected in CANONICAL_SHA256.items():
        got = dataset.sha256[name]
        if got != expected:
            raise DatasetError(f"generated {name} is not the published array: expected sha256 {expected}, got {got}")


def fresh(count: int, seed: int) -> Examples:
    """``count`` new examples from the process of the canonical ones; the same for the same ``count`` and ``seed``.

    Classes are shuffled and balanced: their counts differ by one at most. NumPy's global random state is neither read
    nor changed. ValueError for a count below 1 or a negative seed. The arrays are read-only.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    random = np.random.default_rng(seed)
    y_B = random.permutation(np.arange(count, dtype=np.int64) % CLASSES)
    chunks = [
        _signals(part_B, _Draws.at_once(random, len(part_B))) for part_B in np.split(y_B, range(_CHUNK, count, _CHUNK))
    ]
    return _examples(np.concatenate(chunks), y_B)


def split(examples: Examples, validation: int, seed: int) -> tuple[Examples, Examples]:
    """Split into (remaining, held out): ``validation`` examples chosen by ``seed`` only, in class proportions.

    Each class gives its share of ``validation`` rounded down, and the classes with the largest remainders one more.
    Both parts keep the order of ``examples``; validation 0 gives an empty second part. ValueError unless
    0 <= validation < len(examples).
    """
    if not 0 <= validation < len(examples):
        raise ValueError(f"validation must be at least 0 and below {len(examples)}, got {validation}")
    random = np.random.default_rng(seed)
    counts_K = np.bincount(examples.y_B, minlength=CLASSES)
    shares_K = counts_K * validation / len(examples)
    quotas_K = np.floor(shares_K).astype(np.int64)
    largest = np.argsort(quotas_K - shares_K, kind="stable")
    quotas_K[largest[: validation - int(quotas_K.sum())]] += 1
    held_out_B = np.zeros(len(examples), dtype=bool)
    for digit, quota in enumerate(quotas_K):
        held_out_B[random.permutation(np.flatnonzero(examples.y_B == digit))[:quota]] = True
    return examples.take(np.flatnonzero(~held_out_B)), examples.take(np.flatnonzero(held_out_B))


# ---- the process -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Draws:
    """All random numbers of B examples, so that the process itself is a deterministic function of them."""

    padding_B: NDArray[np.int64]
    """Index into ``_PADDINGS``."""
    scale_B: NDArray[np.float64]
    """Uniform in [0, 1), as is ``shear_B``."""
    shift_B: NDArray[np.int64]
    correlated_BT: NDArray[np.float64]
    """Standard normal, as is ``iid_BT``."""
    iid_BT: NDArray[np.float64]
    shear_B: NDArray[np.float64]

    @staticmethod
    def one_by_one(random: np.random.RandomState, count: int) -> _Draws:
        """Draw example after example, in the order of the published generator: the order decides every number."""
        draws = _Draws(
            np.empty(count, np.int64),
            np.empty(count),
            np.empty(count, np.int64),
            np.empty((count, _POINTS)),
            np.empty((count, _POINTS)),
            np.empty(count),
        )
        for b in range(count):
            draws.padding_B[b] = int(random.rand() * len(_PADDINGS))
            draws.scale_B[b] = random.rand()
            draws.shift_B[b] = random.choice(_TRANSLATIONS)
            draws.correlated_BT[b] = random.randn(_POINTS)
            draws.iid_BT[b] = random.randn(_POINTS)
            draws.shear_B[b] = random.rand()
        return draws

    @staticmethod
    def at_once(random: np.random.Generator, count: int) -> _Draws:
        """Draws from the same distributions, a whole array at a time."""
        return _Draws(
            random.integers(len(_PADDINGS), size=count),
            random.random(count),
            random.integers(_TRANSLATIONS, size=count),
            random.standard_normal((count, _POINTS)),
            random.standard_normal((count, _POINTS)),
            random.random(count),
        )


def _signals(y_B: NDArray[np.int64], draws: _Draws) -> NDArray[np.float64]:
    """Signals (B, 40) before normalisation."""
    clean_BT = _padded_templates()[y_B, draws.padding_B] * (1 + _SCALE * (draws.scale_B - 0.5))[:, None]
    source_BT = (np.arange(_POINTS) - draws.shift_B[:, None]) % _POINTS
    signal_BT = np.take_along_axis(clean_BT, source_BT, axis=1)
    noise_BT = _gaussian_filter(_CORRELATED_NOISE * draws.correlated_BT)
    signal_BT = np.where(signal_BT == 0, noise_BT, signal_BT) + _IID_NOISE * draws.iid_BT
    ramp_BT = _SHEAR * (draws.shear_B[:, None] - 0.5) * np.linspace(-0.5, 0.5, _POINTS)
    return _resample(signal_BT - ramp_BT, SAMPLES)


@cache
def _padded_templates() -> NDArray[np.float64]:
    """Every template with every padding, resampled to 72 points: (10, 25, 72)."""
    x_KT = np.array(_TEMPLATES)
    x_KT -= x_KT.mean(axis=1, keepdims=True)
    x_KT /= x_KT.std(axis=1, keepdims=True)
    x_KT -= x_KT[:, :1]
    x_KT = x_KT / 6 + 1e-8  # the offset keeps zeros of the digit apart from those of the padding
    padded = [_resample(np.pad(x_KT, ((0, 0), (0, zeros))), _POINTS) for zeros in _PADDINGS]
    return np.stack(padded, axis=1)


def _resample(x_BT: NDArray[np.float64], points: int) -> NDArray[np.float64]:
    """Linear interpolation at ``points`` places, evenly spaced from the first sample to the last."""
    old_T, new_L = np.linspace(0, 1, x_BT.shape[1]), np.linspace(0, 1, points)
    left_L = np.clip(np.searchsorted(old_T, new_L, side="right") - 1, 0, len(old_T) - 2)
    slope_BL = (x_BT[:, left_L + 1] - x_BT[:, left_L]) / (old_T[left_L + 1] - old_T[left_L])
    return slope_BL * (new_L - old_T[left_L]) + x_BT[:, left_L]


def _gaussian_filter(x_BT: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted means with Gaussian weights, sigma 2, cut at radius 8; the signal is mirrored at its ends."""
    offsets = np.arange(-_FILTER_RADIUS, _FILTER_RADIUS + 1)
    weights = np.exp(-0.5 * (offsets / _FILTER_SIGMA) ** 2)
    weights /= weights.sum()
    mirrored_BT = np.pad(x_BT, ((0, 0), (_FILTER_RADIUS, _FILTER_RADIUS)), mode="symmetric")
    length = x_BT.shape[1]
    filtered_BT = np.zeros_like(x_BT)
    for tap, weight in enumerate(weights):
        filtered_BT += weight * mirrored_BT[:, tap : tap + length]
    return filtered_BT


def _examples(signals_BL: NDArray[np.float64], y_B: NDArray[np.int64]) -> Examples:
    examples = Examples(((signals_BL - MEAN) / STD).astype(np.float32), y_B)
    examples.x_BL.setflags(write=False)
    examples.y_B.setflags(write=False)
    return examples
