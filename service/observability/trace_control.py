"""Decides which calls are traced, by those of Triton's trace settings that have a meaning for exported spans.

There is one set of settings for the server, and one for each model with other settings, which inherits the rest from
the server. Belongs to one event loop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """The trace settings of the server or a model."""

    is_on: bool = False
    rate: int = 1
    """One of ``rate`` calls without a caller's trace begins a trace."""
    count: int = -1
    """How many more calls may begin a trace; -1 for no limit."""


class _Gate:
    """Samples calls by its settings."""

    def __init__(self, settings: TraceSettings) -> None:
        self._settings = settings
        self._seen = 0
        self._left = settings.count

    @property
    def settings(self) -> TraceSettings:
        """The settings, with the rest of the count."""
        return replace(self._settings, count=self._left)

    def opens(self, *, has_parent: bool) -> bool:
        if has_parent or not self._settings.is_on:
            return self._settings.is_on
        if self._left == 0:
            return False
        self._seen += 1
        if self._seen % self._settings.rate:
            return False
        self._left -= self._left > 0
        return True


class TraceControl:
    """The settings, and the decision for each call."""

    def __init__(self, *, is_available: bool) -> None:
        """``is_available``: whether spans can be exported. If so, tracing is on at the start."""
        self.is_available = is_available
        self._initial = TraceSettings(is_on=is_available)
        self._server = _Gate(self._initial)
        self._changes: dict[str, dict[str, Any]] = {}
        self._models: dict[str, _Gate] = {}

    def settings(self, model: str = "") -> TraceSettings:
        """The settings of a model, or of the server for an empty name."""
        return self._models.get(model, self._server).settings

    def wants(self, model: str, *, has_parent: bool) -> bool:
        """Whether a call is traced. Rate and count do not apply to calls that belong to a caller's trace."""
        gate = self._models.get(model, self._server) if self._models else self._server
        return gate.opens(has_parent=has_parent)

    def update(self, model: str, changes: Mapping[str, Any]) -> None:
        """Set fields of `TraceSettings` by name. None resets one to the server's, or the server's to the first."""
        if model:
            kept = {**self._changes.get(model, {}), **changes}
            self._changes[model] = {name: value for name, value in kept.items() if value is not None}
        else:
            given = {name: getattr(self._initial, name) if value is None else value for name, value in changes.items()}
            self._server = _Gate(replace(self._server.settings, **given))
        # Any change that concerns a model restarts its count.
        for name in [model] if model else list(self._changes):
            self._renew(name)

    def _renew(self, model: str) -> None:
        changes = self._changes[model]
        if changes:
            self._models[model] = _Gate(replace(self._server.settings, **changes))
        else:
            del self._changes[model]
            self._models.pop(model, None)
