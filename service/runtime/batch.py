"""Requests that wait for a run, and how those that run together are put into one batch and taken out of it again."""

from __future__ import annotations

import contextvars
import logging
import math
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from service.runtime.statistics import Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from service.runtime.thread_run import ThreadRun

_log = logging.getLogger(__name__)

Answer = list[np.ndarray] | bytes
"""The answers of one request in the order of its outputs; or, from a form that says so, the response as it travels."""


class Form(Protocol):
    """What requests look like while they wait. Those of one form are put together in the way that is cheapest."""

    def feeds(self, contents: object) -> Mapping[str, np.ndarray]:
        """One request's inputs as arrays; the first axis counts rows."""
        ...

    def shape_key(self, contents: object, outputs: tuple[str, ...]) -> Hashable:
        """Equal for requests that may be in one batch, whatever their forms."""
        ...

    def elements(self, contents: object) -> int:
        """How many elements the inputs have, all in all; at least 1."""
        ...

    def gather(self, batch: Sequence[Waiting]) -> Mapping[str, np.ndarray]:
        """One batch's inputs; every member has this form. Raises ServiceError for contents that cannot be asked."""
        ...

    def scatter(self, batch: Sequence[Waiting], answers: list[np.ndarray]) -> list[Answer | Exception]:
        """Each member's part of the answers."""
        ...


class Waiting:
    """One request in the queue of a model. Class attributes are what most requests never set."""

    form: Form
    contents: object
    outputs: tuple[str, ...]
    rows: int
    level: int
    shape_key: Hashable
    elements: int
    """How many its inputs have, all in all; at least 1."""
    since_ns: int
    expires_ns: int | None = None
    """On the clock of ``time.perf_counter_ns``: it must not be run any more then."""
    is_deadline = True
    """Whether that is the caller's deadline, or the time it would wait in the queue."""
    queue_ns = 0
    run: Timing | None = None
    """How long its run took."""
    thread_run: ThreadRun | None = None
    """What runs it now, if that is a thread."""

    @property
    def context(self) -> contextvars.Context:
        """What is logged while it runs alone is logged within this."""
        raise NotImplementedError

    def settle(self, outcome: Answer | Exception) -> None:
        """The answer, or what failed it; not called for one that was withdrawn."""
        raise NotImplementedError

    @staticmethod
    def settle_all(batch: Sequence[Any], outcomes: Sequence[Answer | Exception]) -> None:
        """Settle requests of one class that ran together. Never raises: one that cannot be settled harms no other."""
        for waiting, outcome in zip(batch, outcomes, strict=True):
            try:
                waiting.settle(outcome)
            except Exception:  # noqa: BLE001 - a defect
                _log.exception("unexpected error while a request was answered")

    def timing(self) -> Timing:
        """Where its time went: a value of its own, for its caller to add to."""
        run = self.run
        if run is None:
            return Timing(self.queue_ns)
        return Timing(self.queue_ns, run.input_ns, run.infer_ns, run.output_ns)


class Question(Waiting):
    """The general kind."""

    def __init__(
        self,
        form: Form,
        contents: object,
        outputs: tuple[str, ...],
        rows: int,
        done: Callable[[Answer | Exception, Timing], None],
        since_ns: int,
        level: int,
    ) -> None:
        self.form = form
        self.contents = contents
        self.outputs = outputs
        self.rows = rows
        self.done: Callable[[Answer | Exception, Timing], None] | None = done
        """None once it was called, or nobody wants it called any more."""
        self.since_ns = since_ns
        self.level = level
        self.shape_key = form.shape_key(contents, outputs)
        self.elements = form.elements(contents)
        self._context = contextvars.copy_context()

    @property
    def context(self) -> contextvars.Context:
        """That of its caller."""
        return self._context

    def settle(self, outcome: Answer | Exception) -> None:
        """Call `done`, once."""
        done, self.done = self.done, None
        if done is not None:
            done(outcome, self.timing())


class ArraysForm:
    """The general form: contents are a mapping of arrays by input name."""

    def feeds(self, contents: object) -> Mapping[str, np.ndarray]:
        """The mapping itself."""
        return cast("Mapping[str, np.ndarray]", contents)

    def shape_key(self, contents: object, outputs: tuple[str, ...]) -> Hashable:
        """Outputs, the inputs' shapes without the batch axis, the inputs' names."""
        feeds = self.feeds(contents)
        return (outputs, tuple(array.shape[1:] for array in feeds.values()), tuple(feeds))

    def elements(self, contents: object) -> int:
        """Number of elements in all inputs together."""
        return sum(array.size for array in self.feeds(contents).values()) or 1

    def gather(self, batch: Sequence[Waiting]) -> Mapping[str, np.ndarray]:
        """One array an input, the members' rows one after the other. Members may have any form."""
        feeds = [waiting.form.feeds(waiting.contents) for waiting in batch]
        if len(feeds) == 1:
            return feeds[0]
        return {name: np.concatenate([each[name] for each in feeds]) for name in feeds[0]}

    def scatter(self, batch: Sequence[Waiting], answers: list[np.ndarray]) -> list[Answer | Exception]:
        """Views."""
        if len(batch) == 1:
            return [answers]
        outcomes: list[Answer | Exception] = []
        start = 0
        for waiting in batch:
            stop = start + waiting.rows
            outcomes.append([array[start:stop] for array in answers])
            start = stop
        return outcomes


ARRAYS = ArraysForm()


def count(shape: Sequence[int]) -> int:
    """Elements of an array of that shape; at least 1."""
    return math.prod(shape) or 1
