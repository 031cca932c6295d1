"""Map the end of a training process to the failure of its run."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from service.errors import Code
from service.training.run import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

_FAILURES = {
    "InvalidRecipe": (Code.INVALID_ARGUMENT, "INVALID_RECIPE"),
    "EngineUnavailable": (Code.FAILED_PRECONDITION, "ENGINE_UNAVAILABLE"),
    "TrainingDiverged": (Code.INVALID_ARGUMENT, "TRAINING_DIVERGED"),
    "GateNotMet": (Code.FAILED_PRECONDITION, "GATE_NOT_MET"),
    "ProofFailed": (Code.INTERNAL, "PROOF_FAILED"),
    "PublicationError": (Code.FAILED_PRECONDITION, "PUBLICATION_FAILED"),
    "CheckpointError": (Code.FAILED_PRECONDITION, "CHECKPOINT_FAILED"),
}
"""Code and reason by the error's class in `models.errors`; any other class is INTERNAL."""
_OTHER, _DISK_FULL, _OUT_OF_MEMORY, _DIED = "TRAINING_FAILED", "DISK_FULL", "OUT_OF_MEMORY", "TRAINING_DIED"
INTERNAL = "INTERNAL"
"""Reason for a defect of the server itself."""
CANCELLED = "CANCELLED"
REASONS = (*(reason for _, reason in _FAILURES.values()), _OTHER, _DISK_FULL, _OUT_OF_MEMORY, _DIED, INTERNAL)
"""All reasons with which a run can fail."""


def failure_of(body: Mapping[str, Any]) -> Failure:
    """The failure in an event with which a process reports that its run has failed."""
    code, reason = _FAILURES.get(body["error"], (Code.INTERNAL, _OTHER))
    if body.get("disk_full"):
        code, reason = Code.RESOURCE_EXHAUSTED, _DISK_FULL
    decision = body.get("decision") or {}
    metadata = {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in decision.items()}
    return Failure(int(code), body["message"], reason, metadata, body.get("report"))


def died(code: int, last_words: str, memory_bytes: int) -> str:
    """Explain why a process ended without reporting a failure. ``memory_bytes`` is its memory limit; 0 for none."""
    last = last_words.splitlines()[-1].strip() if last_words else ""
    how = f"exit code {code}" if code >= 0 else _signal_name(-code)
    if "MemoryError" in last or "allocate memory" in last_words or "bad_alloc" in last_words:
        limit = f"limited to {memory_bytes // 2**20:,} MiB" if memory_bytes else "not limited"
        how = f"out of memory, {limit} by --training-memory-mb ({how})"
    return f"the training process died: {how}" + (f": {last}" if last else "")


def gave_up(tries: int, reason: str) -> Failure:
    """The failure of a run whose processes died ``tries`` times in a row."""
    is_memory = "out of memory" in reason
    code, name = (Code.RESOURCE_EXHAUSTED, _OUT_OF_MEMORY) if is_memory else (Code.INTERNAL, _DIED)
    return Failure(int(code), f"given up after {tries} tries without progress; {reason}", name)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
