"""What happens around each call: its duration is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.errors import Status
    from service.observability.calls import CallDurations
    from service.transport.methods import Call


class CallObserver:
    """A `service.transport.methods.Observer`."""

    def __init__(self, durations: CallDurations) -> None:
        self._durations = durations

    def __call__(self, call: Call) -> Callable[[Status], None]:
        """The call begins."""
        self._durations.began()

        def ended(status: Status) -> None:
            self._durations.ended(call.method.path, status.code, call.took_s)

        return ended
