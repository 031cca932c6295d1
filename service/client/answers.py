"""Answers of a server, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np


@dataclass(frozen=True)
class ServerInfo:
    """A server as it describes itself."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True)
class TensorInfo:
    """One input or output as the server describes it."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """-1 for a free axis; the batch axis is included."""


@dataclass(frozen=True)
class ModelInfo:
    """A model as the server describes it."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """The answer of a model to one request."""

    model: str
    version: str
    id: str
    outputs: Mapping[str, np.ndarray]
    """Arrays by output name, in the order asked for; strings come as ``str`` in object arrays."""
    parameters: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    """The parameters of the response."""

    def classes(self, output: str) -> tuple[tuple[Classified, ...], ...]:
        """The classes of an output that was requested as classes, best first: a tuple per row, or one without a batch.

        Raises:
            KeyError: the answer has no such output.
            ValueError: the output does not hold classes.
        """
        array = self.outputs[output]
        rows = array if array.ndim > 1 else array.reshape(1, -1)
        return tuple(tuple(_classified(output, element) for element in row.ravel()) for row in rows)


@dataclass(frozen=True)
class Classified:
    """One class of an output."""

    value: float
    index: int
    label: str
    """The class label; empty if the model has none."""


def _classified(output: str, element: object) -> Classified:
    value, _, rest = str(element).partition(":")
    index, _, label = rest.partition(":")
    try:
        return Classified(float(value), int(index), label)
    except ValueError as error:
        raise ValueError(f"output {output!r}: expected value:index[:label], got {element!r}") from error


@dataclass(frozen=True)
class TimeSpent:
    """A number of events and their total duration."""

    count: int
    total_ns: int

    @property
    def mean_us(self) -> float:
        """Mean duration in microseconds; 0 if the count is 0."""
        return self.total_ns / self.count / 1e3 if self.count else 0.0


@dataclass(frozen=True)
class ModelStatistics:
    """Statistics of one version of a model since its server started."""

    name: str
    version: str
    inferences: int
    """Rows: a request with a batch of 64 counts 64."""
    executions: int
    """Runs of the model: requests that ran together count 1."""
    last_inference_ms: int
    """Milliseconds since the epoch; 0 if there was none."""
    success: TimeSpent
    fail: TimeSpent
    queue: TimeSpent
    compute_input: TimeSpent
    compute_infer: TimeSpent
    compute_output: TimeSpent
    batches: Mapping[int, TimeSpent]
    """The runs of each batch size."""


@dataclass(frozen=True)
class TensorConfig:
    """One input or output in a model's configuration."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    """-1 for a free axis; without the batch axis where the model's ``max_batch_size`` is above 0."""


@dataclass(frozen=True)
class ModelConfig:
    """The parts of Triton's model configuration that matter to a caller."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    """Most rows of one request; 0 if requests are not batched."""
    inputs: tuple[TensorConfig, ...]
    outputs: tuple[TensorConfig, ...]
    batches_requests: bool
    """Whether the server batches requests."""
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    """How long a request may be held back for others to join its batch."""
    decoupled: bool = False
    """Whether a request may have any number of responses."""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelState:
    """One version of a model in the server's repository."""

    name: str
    version: str
    state: str
    """UNKNOWN, READY, UNAVAILABLE, LOADING or UNLOADING."""
    reason: str
    """Why the version is not ready."""
