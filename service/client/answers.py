"""What a server tells, as plain values."""

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
    """What a model answered."""

    model: str
    version: str
    id: str
    outputs: Mapping[str, np.ndarray]
    """Arrays by output name, in the order asked for; strings come as ``str`` in object arrays."""
    parameters: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    """The parameters of the response."""

    def classes(self, output: str) -> tuple[tuple[Classified, ...], ...]:
        """The classes of an output that was asked for them, best first: one tuple a row, one in all without a batch.

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
    """Empty where the model has no labels."""


def _classified(output: str, element: object) -> Classified:
    value, _, rest = str(element).partition(":")
    index, _, label = rest.partition(":")
    try:
        return Classified(float(value), int(index), label)
    except ValueError as error:
        raise ValueError(f"output {output!r}: expected value:index[:label], got {element!r}") from error


@dataclass(frozen=True)
class TimeSpent:
    """How often something was done and how long that took in all."""

    count: int
    total_ns: int

    @property
    def mean_us(self) -> float:
        """Microseconds each; 0 where it was never done."""
        return self.total_ns / self.count / 1e3 if self.count else 0.0


@dataclass(frozen=True)
class ModelStatistics:
    """What one version of a model has done since its server started."""

    name: str
    version: str
    inferences: int
    """Rows: a request with a batch of 64 counts 64."""
    executions: int
    """Runs of the model: requests that ran together count 1."""
    last_inference_ms: int
    """Milliseconds since the epoch; 0 where there was none."""
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
    """A model as Triton configures it, as far as that concerns a caller."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    """0: its first axis is no batch axis, and requests are not run together."""
    inputs: tuple[TensorConfig, ...]
    outputs: tuple[TensorConfig, ...]
    batches_requests: bool
    """Whether requests that wait together run together."""
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    """How long a request may be kept waiting for company."""
    decoupled: bool = False
    """Whether a request may be answered by any number of responses."""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelState:
    """One version of a model in the server's repository."""

    name: str
    version: str
    state: str
    """UNKNOWN, READY, UNAVAILABLE, LOADING or UNLOADING."""
    reason: str
    """Why it is not ready."""
