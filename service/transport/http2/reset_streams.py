"""The streams of a connection that were reset from our side: what the peer sent before it knew is no fault of its."""

from __future__ import annotations

from typing import Final

_MOST: Final = 1000


class ResetStreams:
    """The latest of them, by number."""

    def __init__(self) -> None:
        self._numbers: dict[int, None] = {}

    def add(self, stream_id: int) -> None:
        """One more."""
        self._numbers[stream_id] = None
        if len(self._numbers) > _MOST:
            del self._numbers[next(iter(self._numbers))]

    def discard(self, stream_id: int) -> None:
        """The peer has reset it, too: nothing more will come."""
        self._numbers.pop(stream_id, None)

    def __contains__(self, stream_id: int) -> bool:
        return stream_id in self._numbers
