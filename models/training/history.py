"""The history of a run: loss and accuracy on every split, step after step. Stored beside the manifest.

The curves of all runs have about the same number of points, close together at the start, where most happens. The
evaluations for a curve decide nothing: neither the weights nor when training stops. Torch-free.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from models.artifact.artifact import HISTORY_FILE
from models.artifact.goldens import read_regular
from models.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from models.training.events import Evaluated

FORMAT_VERSION: Final = 1
SPLITS: Final = ("train", "validation", "test")
CURVE_POINTS: Final = 60
"""Number of evaluations of a run for its curve."""
_CROWDING: Final = 1.5
"""Points lie evenly along the 1.5th root of the steps: the first gap is 0.2 percent of the run, the last one 2.5."""


def curve_steps(steps: int, points: int = CURVE_POINTS) -> tuple[int, ...]:
    """The steps after which a run of ``steps`` updates is evaluated for its curve: ascending, the last is ``steps``.

    At most ``points``; fewer where a run is so short that some would fall on the same step. ValueError below 1.
    """
    if steps < 1 or points < 1:
        raise ValueError(f"steps and points must be at least 1, got {steps} and {points}")
    return tuple(sorted({max(1, round(steps * (point / points) ** _CROWDING)) for point in range(1, points + 1)}))


@dataclass(frozen=True)
class Curve:
    """N evaluations of one split. ValueError unless all fields have one length, steps ascend and values are valid."""

    steps_N: tuple[int, ...]
    """Number of updates of the weights so far."""
    loss_N: tuple[float, ...]
    """Mean cross-entropy in nats."""
    accuracy_N: tuple[float, ...]
    """Share of right answers, 0 to 1."""

    def __post_init__(self) -> None:
        if not len(self.steps_N) == len(self.loss_N) == len(self.accuracy_N):
            raise ValueError("steps, loss and accuracy must have one value for each evaluation")
        if any(later <= earlier for earlier, later in zip((0, *self.steps_N), self.steps_N, strict=False)):
            raise ValueError("steps must ascend from 1")
        if not all(math.isfinite(loss) and loss >= 0 for loss in self.loss_N):
            raise ValueError("loss must be finite and at least 0")
        if not all(0 <= accuracy <= 1 for accuracy in self.accuracy_N):
            raise ValueError("accuracy must be between 0 and 1")

    def __len__(self) -> int:
        return len(self.steps_N)

    @property
    def error_N(self) -> tuple[float, ...]:  # noqa: N802 - a shape in its name, as the fields have
        """Share of wrong answers, 0 to 1."""
        return tuple(1 - accuracy for accuracy in self.accuracy_N)


@dataclass(frozen=True)
class History:
    """The curves of a run by split, for those of `SPLITS` that have examples."""

    curves: Mapping[str, Curve]

    @classmethod
    def of(cls, evaluations: Iterable[Evaluated]) -> History:
        """The history of a run from its evaluations, ``TrainedNetwork.history`` for instance.

        A step that was evaluated again after a resumption counts once.
        """
        seen: dict[str, dict[int, Evaluated]] = {}
        for evaluated in evaluations:
            seen.setdefault(evaluated.split, {})[evaluated.step] = evaluated
        return cls({split: _curve(seen[split]) for split in SPLITS if split in seen})

    def to_json(self) -> str:
        """The text of ``history.json``."""
        curves = {
            split: {"step": curve.steps_N, "loss": curve.loss_N, "accuracy": curve.accuracy_N}
            for split, curve in self.curves.items()
        }
        return json.dumps({"format_version": FORMAT_VERSION, "splits": curves}, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> History:
        """The inverse of `to_json`; ArtifactError saying what is wrong."""
        try:
            data = json.loads(text)
            if data["format_version"] != FORMAT_VERSION:
                raise ArtifactError(
                    f"{HISTORY_FILE}, format_version: got {data['format_version']!r}, this program reads "
                    f"{FORMAT_VERSION}"
                )
            return cls({str(split): _read_curve(columns) for split, columns in data["splits"].items()})
        except KeyError as error:
            raise ArtifactError(f"{HISTORY_FILE}: {error} is missing") from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ArtifactError(f"{HISTORY_FILE} cannot be read: {error}") from error

    @classmethod
    def read(cls, directory: Path) -> History | None:
        """The history of a published version; None for a version without one. ArtifactError if it is damaged."""
        try:
            return cls.from_json(read_regular(directory / HISTORY_FILE, HISTORY_FILE))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ArtifactError(f"{HISTORY_FILE} cannot be read: {error.strerror}") from error


def _curve(by_step: Mapping[int, Evaluated]) -> Curve:
    evaluations = [by_step[step] for step in sorted(by_step)]
    return Curve(
        tuple(item.step for item in evaluations),
        tuple(item.loss for item in evaluations),
        tuple(item.accuracy for item in evaluations),
    )


def _read_curve(columns: Mapping[str, Any]) -> Curve:
    steps, loss, accuracy = (tuple(columns[name]) for name in ("step", "loss", "accuracy"))
    return Curve(tuple(_whole(steps)), tuple(_numbers(loss)), tuple(_numbers(accuracy)))


def _whole(values: Iterable[object]) -> Iterator[int]:
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"a step is {value!r}, not a whole number")
        yield value


def _numbers(values: Iterable[object]) -> Iterator[float]:
    for value in values:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError(f"{value!r} is no number")
        yield float(value)
