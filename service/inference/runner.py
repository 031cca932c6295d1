"""One ready model: an onnxruntime session with its declaration, and where a run takes place.

A run of a few microseconds stays on the event loop, since handing it to a thread costs more than the run itself. A
run that would keep the loop busy for longer than `LOOP_BUDGET_S` goes to a thread, so that health checks and other
callers are answered meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from models.onnx_session import open_model
from service.errors import InferenceFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Executor

    import numpy as np

    from models.tensor_spec import TensorSpec

_log = logging.getLogger(__name__)

LOOP_BUDGET_S = 0.001
"""Longest run, in seconds, that may happen on the event loop."""


class Runner:
    """Runs one version of one model. Safe to call from several threads: onnxruntime sessions are."""

    def __init__(self, name: str, version: int, model_bytes: bytes, executor: Executor | None = None) -> None:
        self.name = name
        self.version = str(version)
        self._model = open_model(model_bytes)
        self._executor = executor
        self.inputs: Mapping[str, TensorSpec] = {spec.name: spec for spec in self._model.inputs}
        self.outputs: Mapping[str, TensorSpec] = {spec.name: spec for spec in self._model.outputs}
        # Unknown until the first run, which therefore does not happen on the loop.
        self._s_per_row = float("inf")

    async def infer(self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        """Run the model once without holding up the event loop; see `run`."""
        if self._s_per_row * _rows(feeds) <= LOOP_BUDGET_S:
            return self.run(feeds, outputs)
        return await asyncio.get_running_loop().run_in_executor(self._executor, self.run, feeds, outputs)

    def run(self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        """Run the model once, here and now; the answers come in the order of ``outputs``.

        Raises:
            InferenceFailed: onnxruntime refused or failed. Its own message goes to the log.
        """
        began = time.perf_counter()
        try:
            answers = self._model.run(outputs, feeds)
        except Exception as error:  # onnxruntime's exceptions have no common base below Exception
            shapes = ", ".join(f"{name}{list(array.shape)}" for name, array in feeds.items())
            _log.warning(
                "model failed", extra={"model": self.name, "version": self.version, "inputs": shapes}, exc_info=True
            )
            raise InferenceFailed(
                f"model {self.name!r} version {self.version} failed on inputs {shapes}; the server's log has the reason"
            ) from error
        # The dearest row seen lately: forgets one slow run, but not at once.
        self._s_per_row = max(
            (time.perf_counter() - began) / _rows(feeds), 0.9 * self._s_per_row if self._s_per_row < float("inf") else 0
        )
        return answers


def _rows(feeds: Mapping[str, np.ndarray]) -> int:
    return max((array.shape[0] for array in feeds.values() if array.ndim), default=1) or 1
