"""One ready model: an onnxruntime session with its declaration, its queue and its counters.

A run of a few microseconds stays on the event loop, since handing it to a thread costs more than the run itself. A
run that would keep the loop busy for longer than `LOOP_BUDGET_S` goes to a thread, so that health checks and other
callers are answered meanwhile.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from typing import TYPE_CHECKING

import numpy as np

from models.artifact.batch_identity import CannotRun, batchable, bit_identity, run
from models.artifact.datatypes import DATATYPES
from models.artifact.onnx_session import open_model
from service.errors import InferenceFailed, InvalidRequest
from service.runtime.active_runs import ActiveRuns
from service.runtime.batch import ARRAYS
from service.runtime.batcher import PATIENT, Batcher, Batching, Patience, RunEnded
from service.runtime.row_independence import UNKNOWN
from service.runtime.statistics import Statistics, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor

    from models.artifact.goldens import Arrays
    from models.artifact.onnx_session import Model, RunOptions
    from models.artifact.tensor_spec import TensorSpec
    from service.runtime.batch import Answer, Form, Question
    from service.runtime.row_independence import RowIndependence

_log = logging.getLogger(__name__)

LOOP_BUDGET_S = 0.001
"""Longest run, in seconds, that may happen on the event loop."""
_TRIAL_BATCHES = (2, 3, 7)
_TRIAL_ROWS = 16
_TRIAL_TIMINGS = 4
_TRIAL_RUNS = 80
"""About how many runs the trial makes on `_TRIAL_ROWS` rows."""
_TRIAL_BUDGET_S = 2.0
"""There is no trial if it would take longer than this, in seconds."""


class _NotTried(Exception):
    """Whether rows are independent could not be tried; the message says why."""


class Execution:
    """An open model and its measured time per element. It has no reference to the `Runner`: running requests must not
    keep the runner alive, since the memory of a replaced version is freed with the last reference to it.
    """

    def __init__(self, name: str, version: str, model: Model) -> None:
        self._name = name
        self._version = version
        self._model = model
        # Unknown until the first run, which therefore goes to a thread.
        self._s_per_element = float("inf")
        self._most_elements = 0

    def is_short(self, elements: int) -> bool:
        """Whether a run on inputs of this many elements may happen on the event loop.

        Never for a model whose input values decide how long a run takes (a Loop, a Range up to the input), and never
        for more elements than any run had before, since the time may grow faster than their number.
        """
        return (
            self._model.time_follows_from_shapes
            and elements <= self._most_elements
            and self._s_per_element * elements <= LOOP_BUDGET_S
        )

    def run(
        self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], options: RunOptions | None
    ) -> list[np.ndarray]:
        """Run the model as `Runner.run` describes it."""
        # CPU time: a run that was preempted is not a long one.
        began = time.thread_time()
        try:
            answers = self._model.run(outputs, feeds, options)
        except Exception as error:  # onnxruntime's exceptions have no common base below Exception
            if options is not None and options.terminate:
                _log.info("run ended early", extra={"model": self._name, "version": self._version})
                raise RunEnded from error
            shapes = ", ".join(f"{name}{list(array.shape)}" for name, array in feeds.items())
            _log.warning(
                "model failed", extra={"model": self._name, "version": self._version, "inputs": shapes}, exc_info=True
            )
            raise InferenceFailed(
                f"model {self._name!r} version {self._version} failed on inputs {shapes}; the server's log has the "
                "reason"
            ) from error
        # The maximum time per element with decay: one slow run is forgotten, but not at once.
        was = self._s_per_element if self._s_per_element < float("inf") else 0.0
        elements = ARRAYS.elements(feeds)
        self._s_per_element = max((time.thread_time() - began) / elements, 0.9 * was)
        self._most_elements = max(elements, self._most_elements)
        return answers


class Runner:
    """Runs one version of one model. `run` is thread-safe, as onnxruntime sessions are."""

    def __init__(
        self,
        name: str,
        version: int,
        model_bytes: bytes,
        executor: Executor | None = None,
        *,
        batching: Batching | None = None,
        rows: RowIndependence = UNKNOWN,
        examples: Sequence[Arrays] = (),
        active_runs: ActiveRuns | None = None,
        trial_options: RunOptions | None = None,
    ) -> None:
        """Open the model; raises ArtifactError as `models.artifact.onnx_session.open_model` does.

        Requests are put into one batch only if ``rows`` says that the model's rows are known to be independent, and a
        trial does not show the contrary. The trial uses ``examples`` (such as the inputs of the goldens), or random
        inputs where there are none, and runs with ``trial_options``. ``active_runs`` tracks runs in threads.

        Raises RunEnded if the trial was ended through its options.
        """
        self.name = name
        self.version = str(version)
        self.statistics = Statistics()
        self.batching = batching if batching is not None else Batching()
        self._model = open_model(model_bytes)
        self.inputs: Mapping[str, TensorSpec] = {spec.name: spec for spec in self._model.inputs}
        self.outputs: Mapping[str, TensorSpec] = {spec.name: spec for spec in self._model.outputs}
        self.rows = rows
        """Whether the model's rows are known to be independent, and the source of that."""
        why_not_batched = batchable(self._model) or (None if rows.is_known else rows.reason)
        if why_not_batched is None:
            try:
                why_not_batched = self._trial(examples, trial_options)
            except _NotTried as reason:
                self.rows = rows._replace(reason=f"{rows.reason}; not tried here: {reason}")
        if trial_options is not None and trial_options.terminate:
            raise RunEnded
        self._execution = Execution(name, self.version, self._model)
        self.batcher = Batcher(
            self._execution.run,
            self.statistics,
            self.batching,
            why_not_batched=why_not_batched,
            stays_on_loop=self._execution.is_short,
            executor=executor,
            active_runs=active_runs if active_runs is not None else ActiveRuns(),
            about={"model": name, "version": self.version},
        )

    @property
    def why_not_batched(self) -> str | None:
        """None if requests are batched, otherwise the reason why not."""
        return self.batcher.why_not_batched

    @property
    def max_batch_size(self) -> int:
        """Most rows of one request; 0 if requests are not batched, where only the declared shapes limit them."""
        return 0 if self.why_not_batched is not None else self.batching.max_batch_size

    def rows_of(self, feeds: Mapping[str, np.ndarray]) -> int:
        """The amount that a request adds to ``inference_count``: its rows, or 1 if requests are not batched."""
        return _rows(feeds) if self.max_batch_size else 1

    async def infer(
        self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], patience: Patience | None = None
    ) -> tuple[list[np.ndarray], Timing]:
        """Queue for a run and wait for the answers, in the order of ``outputs``; see `Batcher.submit`.

        Raises InvalidRequest for more rows than `max_batch_size`.
        """
        rows = self.rows_of(feeds)
        self._check_rows(rows)
        return await self.batcher.submit(feeds, tuple(outputs), rows, patience if patience is not None else PATIENT)

    def enqueue(
        self,
        form: Form,
        contents: object,
        outputs: tuple[str, ...],
        rows: int,
        patience: Patience,
        done: Callable[[Answer | Exception, Timing], None],
    ) -> Question:
        """Queue a request without waiting, as `Batcher.enqueue` does. Raises as `infer` does."""
        self._check_rows(rows)
        return self.batcher.enqueue(asyncio.get_running_loop(), form, contents, outputs, rows, patience, done)

    def run(
        self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], options: RunOptions | None = None
    ) -> list[np.ndarray]:
        """Run the model once in this thread; the answers come in the order of ``outputs``.

        Raises:
            InferenceFailed: onnxruntime refused or failed. Its message goes to the log.
            RunEnded: another thread ended the run through ``options``.
        """
        return self._execution.run(feeds, outputs, options)

    def _check_rows(self, rows: int) -> None:
        if 0 < self.max_batch_size < rows:
            raise InvalidRequest(
                f"model {self.name!r}: expected a batch of at most {self.max_batch_size} (--max-batch-size), got {rows}"
            )

    def _trial(self, examples: Sequence[Arrays], options: RunOptions | None) -> str | None:
        """Why requests must run alone although the rows are said to be independent; None if nothing contradicts that.

        Raises _NotTried where a trial is impossible or could take long.
        """
        if not self._model.time_follows_from_shapes:
            raise _NotTried("the time of a run depends on the values of its input")
        feeds = _most_rows(examples) if examples else _made_up(self._model.inputs)
        if feeds is None:
            raise _NotTried("there are no goldens, and the inputs have further free axes")
        feeds = {name: array[:_TRIAL_ROWS] for name, array in feeds.items()}
        model = self._model if options is None else dataclasses.replace(self._model, run_options=options)
        try:
            # The minimum of a few: the first run includes setup, and a busy machine must not decide this.
            took_s = min(_time(model, feeds) for _ in range(_TRIAL_TIMINGS))
        except CannotRun as error:
            raise _NotTried(f"the model cannot run on the inputs of the trial: {error}") from error
        if took_s * _TRIAL_RUNS > _TRIAL_BUDGET_S:
            raise _NotTried(f"a run of {_rows(feeds)} rows took {1e3 * took_s:.0f} ms")
        checked = bit_identity(model, feeds, _TRIAL_BATCHES)
        return None if checked.passed else checked.detail


def _time(model: Model, feeds: Arrays) -> float:
    began = time.perf_counter()
    run(model, feeds)
    return time.perf_counter() - began


def _most_rows(examples: Sequence[Arrays]) -> Arrays:
    """The example with the most rows; a single row is repeated, since the trial needs at least two."""
    largest = max(examples, key=_rows)
    return largest if _rows(largest) > 1 else {name: np.repeat(array, 2, axis=0) for name, array in largest.items()}


def _made_up(inputs: Sequence[TensorSpec]) -> Arrays | None:
    if any(isinstance(axis, str) for spec in inputs for axis in spec.shape[1:]):
        return None
    random = np.random.default_rng(0)
    feeds: Arrays = {}
    for spec in inputs:
        shape = (_TRIAL_ROWS, *(int(axis) for axis in spec.shape[1:]))
        if spec.datatype == "BYTES":
            feeds[spec.name] = random.integers(0, 10, shape).astype(str).astype(np.object_)
        elif spec.datatype == "BOOL":
            feeds[spec.name] = random.integers(0, 2, shape).astype(np.bool_)
        elif DATATYPES[spec.datatype].is_float:
            feeds[spec.name] = random.standard_normal(shape).astype(DATATYPES[spec.datatype].numpy)
        else:
            # Only 0 and 1, since the input may be an index.
            feeds[spec.name] = random.integers(0, 2, shape).astype(DATATYPES[spec.datatype].numpy)
    return feeds


def _rows(feeds: Mapping[str, np.ndarray]) -> int:
    return max((array.shape[0] for array in feeds.values() if array.ndim), default=1) or 1
