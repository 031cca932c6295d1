"""The streams of a connection that the server reset: frames that the peer sent before it knew are no errors."""

from __future__ import annotations

from typing import Final

_MOST: Final = 1000


class ResetStreams:
    """The numbers of the streams that were reset last, up to 1000 of them."""

    def __init__(self) -> None:
        self._numbers: dict[int, None] = {}

    def add(self, stream_id: int) -> None:
        """Add a stream, and forget the oldest one if there are too many."""
        self._numbers[stream_id] = None
        if len(self._numbers) > _MOST:
            del self._numbers[next(iter(self._numbers))]

    def discard(self, stream_id: int) -> None:
        """Forget a stream that the peer has reset too: no more frames will come."""
        self._numbers.pop(stream_id, None)

    def __contains__(self, stream_id: int) -> bool:
        return stream_id in self._numbers
