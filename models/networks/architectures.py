"""The four networks of the lecture, as plain descriptions that need no torch.

Why there are 2,050, 59,065 and 150,185 parameters
    The lecture compares a convolutional net with a fully connected one of the same number of hidden units. ``conv`` has
    15 channels: hidden layers of 15*19 = 285, 15*9 = 135 and 15*4 = 60 units, and 2,050 parameters. Its twin ``fc`` has
    one unit for each of those hidden units, 40-285-135-60-10, and 59,065 parameters: 29 times as many, for a larger
    family of functions that contains every function of ``conv`` (see ``modules.dense_twin``).
    The lecture's slide pairs 2,050 with 150,185 instead, as early printings of the book did; the errata correct it.
    150,185 is a real count, however: it is that of 40-475-225-100-10, the twin of the net with 25 channels, which has
    4,910 parameters. Both pairs are defined here, so that each net can be compared with its twin.

``modules.build`` turns a name of this table into a torch module.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from models.errors import InvalidRecipe

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Architecture:
    """The description of one network: its name, its size, and the network it is compared with."""

    name: str
    """The key in ``ARCHITECTURES``; also the default name of the published model."""
    title: str
    """One-line description for tables and reports."""
    parameters: int
    """Number of trainable parameters, weights and biases."""
    kind: Literal["conv", "fully_connected"]
    """Which of ``channels`` and ``widths`` describes it."""
    channels: int | None = None
    """Channels of each of the three convolution layers (``conv`` only)."""
    widths: tuple[int, ...] | None = None
    """Units of every layer, input and output included (``fully_connected`` only)."""
    baseline: str | None = None
    """The fully connected twin: one unit for each hidden unit of this net. None for the baselines themselves."""


def _table(*architectures: Architecture) -> Mapping[str, Architecture]:
    return MappingProxyType({architecture.name: architecture for architecture in architectures})


ARCHITECTURES: Final[Mapping[str, Architecture]] = _table(
    Architecture(
        name="conv",
        title="convolutional, 3 layers of 15 channels",
        parameters=2_050,
        kind="conv",
        channels=15,
        baseline="fc",
    ),
    Architecture(
        name="fc",
        title="fully connected twin of conv, 40-285-135-60-10",
        parameters=59_065,
        kind="fully_connected",
        widths=(40, 285, 135, 60, 10),
    ),
    Architecture(
        name="conv25",
        title="convolutional, 3 layers of 25 channels",
        parameters=4_910,
        kind="conv",
        channels=25,
        baseline="fc-slide",
    ),
    Architecture(
        name="fc-slide",
        title="fully connected as on the lecture's slide, the twin of conv25, 40-475-225-100-10",
        parameters=150_185,
        kind="fully_connected",
        widths=(40, 475, 225, 100, 10),
    ),
)
"""Every network by name, convolutional nets before their baselines."""


def architecture(name: str) -> Architecture:
    """The architecture called ``name``; InvalidRecipe naming the known ones otherwise."""
    try:
        return ARCHITECTURES[name]
    except KeyError:
        raise InvalidRecipe("network", name, f"must be one of {', '.join(ARCHITECTURES)}") from None
