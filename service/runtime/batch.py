"""Waiting requests, and how they are gathered into one batch and its answers scattered to them."""

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
"""The answers to one request in the order of its outputs; for some forms, the serialized response."""


class Form(Protocol):
    """The representation of requests while they wait, and how a batch of them is gathered most cheaply."""

    def feeds(self, contents: object) -> Mapping[str, np.ndarray]:
        """One request's inputs as arrays; the first axis counts rows."""
        ...

    def shape_key(self, contents: object, outputs: tuple[str, ...]) -> Hashable:
        """A key that is equal for requests that may share a batch, across all forms."""
        ...

    def elements(self, contents: object) -> int:
        """Number of elements in all inputs together; at least 1."""
        ...

    def gather(self, batch: Sequence[Waiting]) -> Mapping[str, np.ndarray]:
        """The inputs of one batch, whose members all have this form. Raises ServiceError for invalid contents."""
        ...

    def scatter(self, batch: Sequence[Waiting], answers: list[np.ndarray]) -> list[Answer | Exception]:
        """The outcome of each member, cut from the answers of the batch."""
        ...


class Waiting:
    """One request in the queue of a model. Class attributes are defaults that most requests keep."""

    form: Form
    contents: object
    outputs: tuple[str, ...]
    rows: int
    level: int
    shape_key: Hashable
    elements: int
    """Number of elements in all inputs together; at least 1."""
    since_ns: int
    expires_ns: int | None = None
    """When the request expires, on the clock of ``time.perf_counter_ns``; it is not run after that."""
    is_deadline = True
    """Whether `expires_ns` is the caller's deadline; otherwise it is the timeout of the queue."""
    queue_ns = 0
    run: Timing | None = None
    """The timing of its run; None before the run."""
    thread_run: ThreadRun | None = None
    """The run in a thread that computes it now, if any."""

    @property
    def context(self) -> contextvars.Context:
        """The context in which the request runs alone, for the fields of log lines."""
        raise NotImplementedError

    def settle(self, outcome: Answer | Exception) -> None:
        """Take the answer or the exception; not called for a request that was withdrawn."""
        raise NotImplementedError

    @staticmethod
    def settle_all(batch: Sequence[Any], outcomes: Sequence[Answer | Exception]) -> None:
        """Settle requests of one class that ran together. Never raises: an error in one does not affect the others."""
        for waiting, outcome in zip(batch, outcomes, strict=True):
            try:
                waiting.settle(outcome)
            except Exception:  # noqa: BLE001 - a defect
                _log.exception("unexpected error while a request was answered")

    def timing(self) -> Timing:
        """Where the time of the request went, as a new object that the caller may change."""
        run = self.run
        if run is None:
            return Timing(self.queue_ns)
        return Timing(self.queue_ns, run.input_ns, run.infer_ns, run.output_ns)


class Question(Waiting):
    """A waiting request of any form, which calls a function with its outcome."""

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
        """Takes the outcome; None once it was called or the request was withdrawn."""
        self.since_ns = since_ns
        self.level = level
        self.shape_key = form.shape_key(contents, outputs)
        self.elements = form.elements(contents)
        self._context = contextvars.copy_context()

    @property
    def context(self) -> contextvars.Context:
        """The context of the caller who queued the request."""
        return self._context

    def settle(self, outcome: Answer | Exception) -> None:
        """Call `done` with the outcome; further calls do nothing."""
        done, self.done = self.done, None
        if done is not None:
            done(outcome, self.timing())


class ArraysForm:
    """The general form: contents are a mapping of arrays by input name."""

    def feeds(self, contents: object) -> Mapping[str, np.ndarray]:
        """The contents, which are the arrays by input name already."""
        return cast("Mapping[str, np.ndarray]", contents)

    def shape_key(self, contents: object, outputs: tuple[str, ...]) -> Hashable:
        """The outputs' names, the inputs' shapes without the batch axis, and the inputs' names."""
        feeds = self.feeds(contents)
        return (outputs, tuple(array.shape[1:] for array in feeds.values()), tuple(feeds))

    def elements(self, contents: object) -> int:
        """Number of elements in all inputs together."""
        return sum(array.size for array in self.feeds(contents).values()) or 1

    def gather(self, batch: Sequence[Waiting]) -> Mapping[str, np.ndarray]:
        """One array per input, with the rows of all members in order. Members may have any form."""
        feeds = [waiting.form.feeds(waiting.contents) for waiting in batch]
        if len(feeds) == 1:
            return feeds[0]
        return {name: np.concatenate([each[name] for each in feeds]) for name in feeds[0]}

    def scatter(self, batch: Sequence[Waiting], answers: list[np.ndarray]) -> list[Answer | Exception]:
        """The answers of each member as views of the arrays of the batch."""
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
    """Number of elements in an array of this shape; at least 1."""
    return math.prod(shape) or 1
