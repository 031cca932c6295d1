"""The server's metrics, gathered at each scrape from state that it keeps anyway, at no cost for requests.

Metrics that Triton has get Triton's names and labels, so that its dashboards work; the others begin with ``mnist1d_``.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from functools import cache
from typing import TYPE_CHECKING

import models
from service.observability.exposition import Across, Family, Kind
from service.repository.model_version import State
from service.runtime.statistics import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from service.observability.calls import CallDurations
    from service.observability.machine import Machine
    from service.repository.model_version import ModelVersion, ServedModel
    from service.repository.repository import Repository
    from service.runtime.statistics import Snapshot

_BATCH_BOUNDS = tuple(2**power for power in range(13))
"""Batch sizes 1, 2, 4, ... 4096."""

_TRITON: tuple[tuple[str, Kind, str, Callable[[Snapshot], int]], ...] = (
    ("nv_inference_request_success", Kind.COUNTER, "Requests that were answered.", lambda s: s.success.count),
    ("nv_inference_count", Kind.COUNTER, "Rows that were answered: a batch of 64 adds 64.",
     lambda s: s.inference_count),
    ("nv_inference_exec_count", Kind.COUNTER, "Runs of the model: a batch adds 1.", lambda s: s.execution_count),
    ("nv_inference_request_duration_us", Kind.COUNTER, "Time of answered requests, all in all, in microseconds.",
     lambda s: s.success.ns // 1000),
    ("nv_inference_queue_duration_us", Kind.COUNTER, "Time that requests waited for a run, in microseconds.",
     lambda s: s.queue.ns // 1000),
    ("nv_inference_compute_input_duration_us", Kind.COUNTER,
     "Time to read requests and put them into batches, in microseconds.", lambda s: s.compute_input.ns // 1000),
    ("nv_inference_compute_infer_duration_us", Kind.COUNTER,
     "Time of the runs that answered requests, in microseconds.", lambda s: s.compute_infer.ns // 1000),
    ("nv_inference_compute_output_duration_us", Kind.COUNTER,
     "Time to take answers out of batches and write responses, in microseconds.",
     lambda s: s.compute_output.ns // 1000),
    ("nv_inference_pending_request_count", Kind.GAUGE, "Requests that wait for a run now.", lambda s: s.pending),
    ("mnist1d_queue_depth", Kind.GAUGE, "The same: requests that wait for a run now.", lambda s: s.pending),
)  # fmt: skip

_PROOF_STATES = ("proven", "unproven", "refused")


class Metrics:
    """The families of one server. `families` may be called from any thread."""

    def __init__(
        self,
        repository: Repository,
        server_is_ready: Callable[[], bool],
        calls: CallDurations,
        machine: Machine,
        training: Callable[[], Iterable[Family]] = tuple,
    ) -> None:
        """``training`` returns the families of training runs, if training is enabled."""
        self._repository = repository
        self._server_is_ready = server_is_ready
        self._calls = calls
        self._machine = machine
        self._training = training

    def families(self) -> Iterator[Family]:
        """All families with their present values."""
        ready = Family(
            "mnist1d_server_ready",
            Kind.GAUGE,
            "1 if the server says that it is ready, 0 otherwise.",
            across=Across.LEAST,
        )
        ready.add(int(self._server_is_ready()))
        yield ready
        found = [model for _, model in sorted(self._repository.models.items())]
        versions = [version for model in found for _, version in sorted(model.versions.items())]
        yield _problems(found)
        yield from _lifecycle(versions)
        yield from _work(versions)
        yield from self._calls.families()
        yield from self._training()
        yield from self._machine.families()
        yield _build()


def _problems(found: Iterable[ServedModel]) -> Family:
    family = Family(
        "mnist1d_model_problem",
        Kind.GAUGE,
        "1 if a model's own settings were refused, 0 otherwise.",
        across=Across.MOST,
    )
    for model in found:
        family.add(int(bool(model.problem)), model=model.name)
    return family


def _lifecycle(versions: list[ModelVersion]) -> Iterator[Family]:
    ready = Family(
        "mnist1d_model_ready", Kind.GAUGE, "1 if this version answers requests, 0 otherwise.", across=Across.LEAST
    )
    state = Family(
        "mnist1d_model_state",
        Kind.GAUGE,
        "1 for the state a version is in, with the kind of reason that the repository index tells in words.",
        across=Across.WORST,
        worst_first=tuple(state.value for state in (State.UNAVAILABLE, State.LOADING, State.UNLOADING, State.READY)),
    )
    proof = Family(
        "mnist1d_model_proof",
        Kind.GAUGE,
        "1 for what became of a version's proof on this machine: proven, unproven (it carries none) or refused.",
        across=Across.WORST,
        worst_first=_PROOF_STATES[::-1],
    )
    difference = Family(
        "mnist1d_proof_max_difference",
        Kind.GAUGE,
        "Largest difference from its recorded answers that a version showed on this machine.",
        across=Across.MOST,
    )
    for version in versions:
        labels = _labels(version)
        ready.add(int(version.state is State.READY), **labels)
        state.add(1, **labels, state=version.state.value, reason=version.cause.value)
        found = _proof_state(version)
        for each in _PROOF_STATES:
            proof.add(int(each == found), **labels, state=each)
        if version.max_difference is not None:
            difference.add(version.max_difference, **labels)
    yield from (ready, state, proof, difference)


def _proof_state(version: ModelVersion) -> str | None:
    if version.state is State.READY:
        return "proven" if version.is_proven else "unproven"
    return "refused" if version.cause.is_refusal else None


def _work(versions: list[ModelVersion]) -> Iterator[Family]:
    snapshots = [
        (_labels(version), version.runner.statistics.snapshot()) for version in versions if version.runner is not None
    ]
    for name, kind, help_text, value in _TRITON:
        family = Family(name, kind, help_text)
        for labels, snapshot in snapshots:
            family.add(value(snapshot), **labels)
        yield family
    failures = Family("nv_inference_request_failure", Kind.COUNTER, "Requests that were not answered, by reason.")
    batches = Family("mnist1d_batch_size", Kind.HISTOGRAM, "Rows of each run of the model.")
    for labels, snapshot in snapshots:
        for reason in Failure:
            counted = snapshot.failures.get(reason)
            failures.add(counted.count if counted is not None else 0, **labels, reason=reason.value)
        counts = [0] * (len(_BATCH_BOUNDS) + 1)
        total = 0
        for rows, batch in snapshot.batches.items():
            counts[bisect_left(_BATCH_BOUNDS, rows)] += batch.compute_infer.count
            total += rows * batch.compute_infer.count
        batches.add_histogram(_BATCH_BOUNDS, counts, total, **labels)
    yield from (failures, batches)


def _labels(version: ModelVersion) -> dict[str, str]:
    return {"model": version.name, "version": str(version.version)}


@cache
def _build() -> Family:
    family = Family("mnist1d_build_info", Kind.GAUGE, "Always 1; its labels say what runs here.", across=Across.SAME)
    family.add(
        1,
        version=models.__version__,
        python=platform.python_version(),
        onnxruntime=_installed("onnxruntime"),
        grpcio=_installed("grpcio"),
    )
    return family


def _installed(distribution: str) -> str:
    from importlib import metadata  # slow to import, and not needed before the first scrape

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"
