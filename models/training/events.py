"""The events of a training run, a frozen dataclass each, and their JSON lines for other programs.

A run calls its ``EventSink`` with each event as it happens; a progress bar, a log, a file of JSON lines and a training
service are all sinks. A sink must be quick, and an exception from it fails the run.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias


@dataclass(frozen=True)
class Started:
    """Training begins, or resumes from a checkpoint."""

    total_steps: int
    start_step: int
    """0, or the steps already taken by the run that is resumed."""
    recipe: Mapping[str, Any]
    """The recipe as ``TrainingRecipe.to_dict()``."""


@dataclass(frozen=True)
class Progress:
    """Some steps were taken; reported at most about ten times a second."""

    step: int
    total_steps: int
    loss: float
    """Cross-entropy in nats, mean over the training batches since the last report."""
    accuracy: float
    """Share of those training examples that were right at the time, 0 to 1."""
    steps_per_s: float
    remaining_s: float


@dataclass(frozen=True)
class Evaluated:
    """The net (its averaged weights, if the recipe averages) was evaluated on a whole split."""

    step: int
    split: Literal["train", "validation", "test"]
    loss: float
    accuracy: float


@dataclass(frozen=True)
class CheckpointSaved:
    """Everything needed to resume after ``step`` was saved to ``path``."""

    step: int
    path: Path


@dataclass(frozen=True)
class Finished:
    """Training is done."""

    step: int
    """Steps taken in all; fewer than planned if it was stopped early."""
    duration_s: float
    """Seconds that this process's part of the run took."""
    weights_sha256: str


@dataclass(frozen=True)
class StageStarted:
    """A stage of the pipeline begins, or work before it that may take seconds.

    Stages are ``load`` (PyTorch), ``data``, ``train`` and in it, before its first step, ``prepare`` (the engine, which
    may have to compile), ``evaluate``, ``export``, ``prove``, ``gate``, ``publish``.
    """

    stage: str


@dataclass(frozen=True)
class StageFinished:
    """A stage is done; ``detail`` has its results in brief."""

    stage: str
    duration_s: float
    detail: Mapping[str, Any] = field(default_factory=dict)


Event: TypeAlias = Started | Progress | Evaluated | CheckpointSaved | Finished | StageStarted | StageFinished
EventSink: TypeAlias = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The sink that discards all events."""


@contextlib.contextmanager
def stage(name: str, on_event: EventSink) -> Iterator[dict[str, Any]]:
    """Report a stage, and its end with what was put into the yielded dict; a stage that raises has no end."""
    on_event(StageStarted(name))
    started_s = time.monotonic()
    detail: dict[str, Any] = {}
    yield detail
    on_event(StageFinished(name, time.monotonic() - started_s, detail))


def to_json_line(event: Event) -> str:
    """One line of strict JSON, no newline: ``{"event": "progress", "step": 100, ...}``.

    The event's name is that of its class in snake case. Numbers that JSON cannot hold (a diverging loss) become null.
    """
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
    values = {item.name: _plain(getattr(event, item.name)) for item in fields(event)}
    return json.dumps({"event": name, **values}, allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    return value
