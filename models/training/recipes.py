"""Recipes: everything that decides what training does, as one frozen and validated value. No torch.

A recipe and a dataset determine the trained weights, bit for bit on one machine. Choices, such as when to stop early or
which recipe to prefer, are made on a validation split that is held out of the training examples; the test set is only
ever reported. ``lecture`` and ``best`` run for a fixed number of steps and so have nothing to choose: by default they
train on all 4,000 examples. ``validation=500`` holds 500 out.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from models.data.augmentation import Augmentation
from models.errors import InvalidRecipe
from models.networks.architectures import architecture

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_STEPS: Final = 100_000_000
MAX_LEARNING_RATE: Final = 1e6
MAX_SEED: Final = 2**63 - 1
SHORTEST_IN_WARMUPS: Final = 8
"""A run is at least this many times as long as its warm-up, unless ``warmup_steps`` was set explicitly."""


@dataclass(frozen=True)
class TrainingRecipe:
    """How a network is trained. InvalidRecipe, naming field, value and bound, if something is out of bounds."""

    name: str
    """Name in tables and manifests; overrides do not change it."""
    network: str = "conv"
    """Name of an architecture: conv, fc, conv25 or fc-slide."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """The optimiser: sgd, or adamw with betas 0.9 and 0.999 and epsilon 1e-8."""
    learning_rate: float = 0.01
    """Peak learning rate; above 0, at most 1,000,000."""
    momentum: float = 0.0
    """Momentum of sgd; 0 up to, not including, 1. 0 for adamw."""
    weight_decay: float = 0.0
    """Weight decay, 0 to 100: added to the gradient by sgd (an L2 penalty), taken off the weights by adamw."""
    steps: int = 100_000
    """Updates of the weights; 1 to 100,000,000."""
    batch_size: int = 100
    """Examples in one update; at least 1, at most as many as there are to train on."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or half a cosine down to 0 at the last step."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly to its peak; at least 0 and below ``steps``. If `replace`
    changes ``steps`` alone, it is limited to an eighth of them, so that a short run reaches the peak too."""
    ema: float = 0.0
    """Decay of the exponential moving average of the weights that becomes the result; 0 (off) up to, not including, 1.
    At step t the decay is at most (1 + t) / (10 + t), so that short runs forget their random start."""
    init: Literal["he", "pytorch"] = "he"
    """First weights: he (normal, zero biases) or pytorch (that library's default, uniform)."""
    seed: int = 0
    """Seed of first weights, order and augmentation; 0 to 2^63 - 1."""
    augmentation: Augmentation | None = None
    """Distortions of the training examples, new ones each epoch; None for the examples as they are."""
    validation: int = 0
    """Training examples held out for choices, the same ones for every seed; 0 trains on all of them."""
    evaluate_every: int = 1_000
    """Steps between evaluations on every split; 0 evaluates at the end only. Test results are reported, not used."""
    early_stopping_patience: int = 0
    """Evaluations without a lower validation loss after which training stops and returns to the best weights; 0 never
    stops. Needs ``validation`` and ``evaluate_every``."""

    def __post_init__(self) -> None:
        self._check_types()
        architecture(self.network)
        _one_of("optimiser", self.optimiser, "sgd", "adamw")
        _one_of("schedule", self.schedule, "constant", "cosine")
        _one_of("init", self.init, "he", "pytorch")
        if not 0 < self.learning_rate <= MAX_LEARNING_RATE:
            bound = f"must be above 0 and at most {MAX_LEARNING_RATE:,.0f}"
            raise InvalidRecipe("learning_rate", self.learning_rate, bound)
        _fraction("momentum", self.momentum)
        if self.momentum and self.optimiser == "adamw":
            raise InvalidRecipe("momentum", self.momentum, "must be 0 with optimiser adamw, which has its own")
        if not 0 <= self.weight_decay <= 100:
            raise InvalidRecipe("weight_decay", self.weight_decay, "must be between 0 and 100")
        _between("steps", self.steps, 1, MAX_STEPS)
        _between("batch_size", self.batch_size, 1, MAX_STEPS)
        if not 0 <= self.warmup_steps < self.steps:
            bound = f"must be at least 0 and below {self.steps:,}, the steps"
            raise InvalidRecipe("warmup_steps", self.warmup_steps, bound)
        _fraction("ema", self.ema)
        _between("seed", self.seed, 0, MAX_SEED)
        _between("validation", self.validation, 0, MAX_STEPS)
        _between("evaluate_every", self.evaluate_every, 0, MAX_STEPS)
        _between("early_stopping_patience", self.early_stopping_patience, 0, MAX_STEPS)
        if self.early_stopping_patience and not self.validation:
            bound = "must be 0 unless validation is above 0: the test set decides nothing"
            raise InvalidRecipe("early_stopping_patience", self.early_stopping_patience, bound)
        if self.early_stopping_patience and not self.evaluate_every:
            bound = "must be 0 unless evaluate_every is above 0"
            raise InvalidRecipe("early_stopping_patience", self.early_stopping_patience, bound)

    def _check_types(self) -> None:
        """Reject values of a wrong type, from JSON for instance, which would fail in the middle of a run."""
        for field in dataclasses.fields(self):
            value, expected = getattr(self, field.name), _TYPES[field.name]
            if isinstance(value, bool) or not isinstance(value, expected):
                raise InvalidRecipe(field.name, value, f"must be {_KINDS[expected]}")

    def check_fits(self, examples: int) -> None:
        """Raise InvalidRecipe unless a training set of ``examples`` examples is large enough for the recipe."""
        if self.validation >= examples:
            raise InvalidRecipe("validation", self.validation, f"must be below {examples:,}, all examples")
        if self.batch_size > examples - self.validation:
            bound = f"must be at most {examples - self.validation:,}, the examples to train on"
            raise InvalidRecipe("batch_size", self.batch_size, bound)

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of the update that takes ``step`` (0 is the first) to ``step + 1``."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.learning_rate
        progress = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain values for JSON; ``from_dict`` reads them back."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> TrainingRecipe:
        """The recipe that ``to_dict`` described. InvalidRecipe for an unknown field or a bad value."""
        for field, value in values.items():
            _known_field(field, value, _TYPES)
        if "name" not in values:
            raise InvalidRecipe("name", None, "must be given")
        values = dict(values)
        augmentation = values.get("augmentation")
        if isinstance(augmentation, dict):
            for field, value in augmentation.items():
                _known_field(f"{_NESTED}{field}", value)
            values["augmentation"] = Augmentation(**augmentation)
        return TrainingRecipe(**values)

    def describe(self) -> tuple[tuple[str, str], ...]:
        """The recipe as (field, value) pairs for a table, with a row for each field of the augmentation."""
        rows = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Augmentation):
                rows += [(f"augmentation.{key}", f"{item:g}") for key, item in dataclasses.asdict(value).items()]
            elif value is None:
                rows.append((field.name, "none"))
            elif isinstance(value, int):
                rows.append((field.name, f"{value:,}" if field.name != "seed" else str(value)))
            else:
                rows.append((field.name, f"{value:g}" if isinstance(value, float) else str(value)))
        return tuple(rows)

    def replace(self, **overrides: object) -> TrainingRecipe:
        """A copy with some fields changed; names such as ``augmentation.noise`` change the augmentation.

        If ``steps`` changes and ``warmup_steps`` is not given, the warm-up is limited to an eighth of the steps.
        InvalidRecipe for an unknown field, a value out of bounds, and a part of an augmentation that is off.
        """
        for field, value in overrides.items():
            _known_field(field, value)
        nested = {key: value for key, value in overrides.items() if key.startswith(_NESTED)}
        direct: dict[str, Any] = {key: value for key, value in overrides.items() if key not in nested}
        steps = direct.get("steps")
        if isinstance(steps, int) and "warmup_steps" not in direct:
            direct["warmup_steps"] = min(self.warmup_steps, max(steps, 0) // SHORTEST_IN_WARMUPS)
        changed = dataclasses.replace(self, **direct)
        if not nested:
            return changed
        if changed.augmentation is None:
            field, value = next(iter(nested.items()))
            # Requests and command lines turn it on in different ways, so the message names the field only.
            bound = "cannot be set while augmentation is none; turn it on as well, with the field augmentation"
            raise InvalidRecipe(field, value, bound)
        parts: dict[str, Any] = {key.removeprefix(_NESTED): value for key, value in nested.items()}
        return dataclasses.replace(changed, augmentation=dataclasses.replace(changed.augmentation, **parts))


_NESTED: Final = "augmentation."
_TYPES: Final[Mapping[str, Any]] = {
    "name": str,
    "network": str,
    "optimiser": str,
    "learning_rate": (float, int),
    "momentum": (float, int),
    "weight_decay": (float, int),
    "steps": int,
    "batch_size": int,
    "schedule": str,
    "warmup_steps": int,
    "ema": (float, int),
    "init": str,
    "seed": int,
    "augmentation": (Augmentation, type(None)),
    "validation": int,
    "evaluate_every": int,
    "early_stopping_patience": int,
}
"""Types of each field for ``isinstance``; a test keeps the table complete."""
_KINDS: Final[Mapping[Any, str]] = {
    str: "a string",
    int: "a whole number",
    (float, int): "a number",
    (Augmentation, type(None)): "an augmentation (its fields) or none",
}


def recipe(name: str, /, **overrides: object) -> TrainingRecipe:
    """The recipe called ``name``, some fields replaced. InvalidRecipe for an unknown name, field or bad value."""
    if name not in RECIPES:
        raise InvalidRecipe("name", name, f"must be one of {', '.join(RECIPES)}")
    return RECIPES[name].replace(**overrides)


def fields() -> tuple[str, ...]:
    """Every field that an override can name."""
    parts = tuple(f"{_NESTED}{field.name}" for field in dataclasses.fields(Augmentation))
    return tuple(field.name for field in dataclasses.fields(TrainingRecipe)) + parts


def parse_override(text: str) -> tuple[str, Any]:
    """Parse ``"steps=500"`` -> ``("steps", 500)``, with the value in the type of the field.

    Numbers may be written 100_000 or 1e-2, whole ones 1e5 too; ``augmentation`` is ``none`` or ``default``.
    InvalidRecipe for an unknown field, listing the known ones, and for a value that cannot be read.
    """
    field, equals, value = text.partition("=")
    field, value = field.strip(), value.strip()
    if not equals:
        raise InvalidRecipe(field, text, "must be written field=value")
    _known_field(field, value)
    if field == "augmentation":
        _one_of(field, value, "none", "default")
        return field, None if value == "none" else Augmentation()
    kind = (float, int) if field.startswith(_NESTED) else _TYPES[field]
    if kind is str:
        return field, value
    try:
        number = float(value) if kind is not int or "e" in value.lower() else int(value)
    except ValueError:
        raise InvalidRecipe(field, value, f"must be {_KINDS[kind]}") from None
    if kind is not int:
        return field, number
    if not math.isfinite(number) or number != int(number):
        raise InvalidRecipe(field, value, f"must be {_KINDS[int]}")
    return field, int(number)


def _known_field(field: str, value: object, known: Iterable[str] = ()) -> None:
    known = tuple(known) or fields()
    if field not in known:
        raise InvalidRecipe(field, value, f"no such field; the fields are {', '.join(known)}")


def _one_of(field: str, value: str, *allowed: str) -> None:
    if value not in allowed:
        raise InvalidRecipe(field, value, f"must be {' or '.join(allowed)}")


def _between(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidRecipe(field, value, f"must be between {low:,} and {high:,}")


def _fraction(field: str, value: float) -> None:
    if not 0 <= value < 1:
        raise InvalidRecipe(field, value, "must be at least 0 and below 1")


_LECTURE = TrainingRecipe(name="lecture")
_BEST = TrainingRecipe(
    name="best",
    optimiser="adamw",
    learning_rate=0.01,
    weight_decay=0.01,
    steps=100_000,
    schedule="cosine",
    warmup_steps=500,
    ema=0.999,
    augmentation=Augmentation(),
)

RECIPES: Final[Mapping[str, TrainingRecipe]] = MappingProxyType(
    {
        "lecture": _LECTURE,
        "best": _BEST,
        "quick": dataclasses.replace(_BEST, name="quick", steps=10_000),
        "plain": dataclasses.replace(_BEST, name="plain", steps=4_000, augmentation=None),
    }
)
"""``lecture``: 100,000 steps of plain SGD, as the lecture trains; it overfits, and that is part of the lesson.
``best``: AdamW, cosine schedule, averaged weights and augmentation; the most accurate known here.
``quick``: ``best`` in 10,000 steps, seconds instead of a minute, for a point or two of accuracy.
``plain``: 4,000 steps of the same without augmentation: what an architecture makes of the examples as they are.
Augmentation teaches a fully connected net by example what a convolution knows by its shape, so compare the two here."""
