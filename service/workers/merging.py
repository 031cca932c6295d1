"""Merges the answers of all workers into one: counts are summed, and the worst state of a version is reported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.pb import open_inference_pb2 as pb
from service.repository.model_version import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WORST_FIRST = tuple(state.value for state in (State.UNAVAILABLE, State.LOADING, State.UNLOADING, State.READY))
_DURATIONS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
_BATCH_DURATIONS = ("compute_input", "compute_infer", "compute_output")


def statistics(answers: Sequence[tuple[int, pb.ModelStatisticsResponse]]) -> pb.ModelStatisticsResponse:
    """Sum counts and nanoseconds by version; the last inference is the latest one of any worker."""
    totals: dict[tuple[str, str], pb.ModelStatistics] = {}
    batches: dict[tuple[str, str], dict[int, pb.InferBatchStatistics]] = {}
    for _, answer in answers:
        for one in answer.model_stats:
            key = one.name, one.version
            total = totals.setdefault(key, pb.ModelStatistics(name=one.name, version=one.version))
            total.last_inference = max(total.last_inference, one.last_inference)
            total.inference_count += one.inference_count
            total.execution_count += one.execution_count
            for name in _DURATIONS:
                _add(getattr(total.inference_stats, name), getattr(one.inference_stats, name))
            for batch in one.batch_stats:
                sized = batches.setdefault(key, {}).setdefault(
                    batch.batch_size, pb.InferBatchStatistics(batch_size=batch.batch_size)
                )
                for name in _BATCH_DURATIONS:
                    _add(getattr(sized, name), getattr(batch, name))
    for key, sizes in batches.items():
        totals[key].batch_stats.extend(sized for _, sized in sorted(sizes.items()))
    return pb.ModelStatisticsResponse(model_stats=totals.values())


def _add(total: pb.StatisticDuration, one: pb.StatisticDuration) -> None:
    total.count += one.count
    total.ns += one.ns


def index(answers: Sequence[tuple[int, pb.RepositoryIndexResponse]], *, ready_only: bool) -> pb.RepositoryIndexResponse:
    """Every version that some worker knows. A version is READY only if it is READY in all workers; if they differ, the
    reason names each worker's state.
    """
    found: dict[tuple[str, str], dict[int, pb.RepositoryIndexResponse.ModelIndex]] = {}
    for worker, answer in answers:
        for entry in answer.models:
            found.setdefault((entry.name, entry.version), {})[worker] = entry
    with_versions = {name for name, version in found if version}
    merged = pb.RepositoryIndexResponse()
    for (name, version), entries in sorted(found.items(), key=lambda item: (item[0][0], _number(item[0][1]))):
        if not version:
            # A model without versions in one worker; skip it if another worker has versions of it.
            if name not in with_versions:
                merged.models.add(name=name, reason="; ".join(_distinct(e.reason for e in entries.values())))
            continue
        entry = _merged_entry([(worker, entries.get(worker)) for worker, _ in answers])
        if not ready_only or entry.state == State.READY.value:
            merged.models.append(entry)
    return merged


def _merged_entry(
    entries: Sequence[tuple[int, pb.RepositoryIndexResponse.ModelIndex | None]],
) -> pb.RepositoryIndexResponse.ModelIndex:
    known = [entry for _, entry in entries if entry is not None]
    state = min((entry.state for entry in known), key=_rank)
    if state == State.READY.value and len(known) < len(entries):
        state = State.UNAVAILABLE.value
    said = [(entry.state, entry.reason) if entry is not None else None for _, entry in entries]
    if len(set(said)) == 1:
        reason = known[0].reason
    else:
        reason = "; ".join(f"worker {worker}: {_words(entry)}" for worker, entry in entries)
    return pb.RepositoryIndexResponse.ModelIndex(
        name=known[0].name, version=known[0].version, state=state, reason=reason
    )


def _words(entry: pb.RepositoryIndexResponse.ModelIndex | None) -> str:
    if entry is None:
        return "does not have it"
    return f"{entry.state} ({entry.reason})" if entry.reason else entry.state


def _rank(state: str) -> int:
    return _WORST_FIRST.index(state) if state in _WORST_FIRST else -1


def _number(version: str) -> int:
    return int(version) if version.isdecimal() else 0


def _distinct(reasons: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, reasons)))
