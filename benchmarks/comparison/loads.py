"""The loads that every server gets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """A closed loop: so many calls under way at any time."""

    key: str
    title: str
    batch: int
    """Examples in one request."""
    connections: int
    in_flight: int
    """Calls at a time on each connection, or on each stream."""
    streaming: bool = False
    vary_timeouts: bool = False
    by_h2load: bool = False
    """Offered by nghttp2's h2load, which costs less than our generator and reads no answer."""

    @property
    def shape(self) -> str:
        """Connections and calls, in a few words."""
        noun = "stream" if self.streaming else "connection"
        return f"{self.connections} {noun}{'s' * (self.connections != 1)} x {self.in_flight}"


LOADS = {
    load.key: load
    for load in (
        Load("A", "one at a time", 1, 1, 1),
        Load("B", "many at a time", 1, 8, 4),
        Load("T", "B with another grpc-timeout on every request", 1, 8, 4, vary_timeouts=True),
        Load("S", "B on streams of ModelStreamInfer", 1, 8, 4, streaming=True),
        Load("C", "64 examples a request", 64, 2, 2),
        Load("D", "1,000 examples a request", 1000, 2, 1),
        Load("H", "B offered by h2load", 1, 8, 4, by_h2load=True),
    )
}
"""By key, in the order in which they are put on a server."""
