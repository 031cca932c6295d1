"""The progress of a run: its events folded into a few current numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIGURES = ("step", "total_steps", "loss", "accuracy", "steps_per_s", "remaining_s")


def folded(snapshot: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the snapshot after one more event.

    Keys are ``stage``, ``step``, ``total_steps``, ``loss``, ``accuracy``, ``steps_per_s``, ``remaining_s``, and
    ``evaluations`` with the latest one of each split. Unknown values are missing.
    """
    after = dict(snapshot)
    match body["event"]:
        case "stage_started":
            after["stage"] = body["stage"]
        case "started":
            # The engine was prepared during the train stage, which goes on.
            after |= {"stage": "train", "step": body["start_step"], "total_steps": body["total_steps"]}
        case "progress":
            after |= {name: body[name] for name in _FIGURES}
        case "evaluated":
            figures = {name: body[name] for name in ("step", "split", "loss", "accuracy")}
            after["evaluations"] = {**after.get("evaluations", {}), body["split"]: figures}
        case "finished":
            after |= {"step": body["step"], "remaining_s": 0.0}
        case "attempt_ended" | "done":
            after |= {"stage": "", "steps_per_s": 0.0, "remaining_s": 0.0}
    return after
