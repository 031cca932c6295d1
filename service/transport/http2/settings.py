"""The settings that the peer has sent in SETTINGS frames (RFC 9113, section 6.5)."""

from __future__ import annotations

from service.wire import frames
from service.wire.errors import ConnectionFailure, ErrorCode


class PeerSettings:
    """The peer's settings that matter to a server without dynamic HPACK entries, pushes and large header lists."""

    def __init__(self) -> None:
        self.initial_window = frames.DEFAULT_WINDOW
        """Send window of each stream that begins from now on, in bytes."""
        self.max_frame_bytes = frames.DEFAULT_MAX_FRAME_SIZE

    def apply(self, payload: bytes) -> int:
        """Apply one frame's values; return by how many bytes the windows of open streams change.

        Raises ConnectionFailure for values out of range. Unknown settings are ignored.
        """
        before = self.initial_window
        for key, value in frames.read_settings(payload):
            if key == frames.ENABLE_PUSH and value > 1:
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"SETTINGS_ENABLE_PUSH: expected 0 or 1, got {value}")
            if key == frames.INITIAL_WINDOW_SIZE:
                if value > frames.LARGEST_WINDOW:
                    raise ConnectionFailure(
                        ErrorCode.FLOW_CONTROL_ERROR,
                        f"SETTINGS_INITIAL_WINDOW_SIZE: at most {frames.LARGEST_WINDOW}, got {value}",
                    )
                self.initial_window = value
            elif key == frames.MAX_FRAME_SIZE:
                if not frames.DEFAULT_MAX_FRAME_SIZE <= value <= frames.LARGEST_MAX_FRAME_SIZE:
                    raise ConnectionFailure(
                        ErrorCode.PROTOCOL_ERROR,
                        f"SETTINGS_MAX_FRAME_SIZE: expected {frames.DEFAULT_MAX_FRAME_SIZE} to "
                        f"{frames.LARGEST_MAX_FRAME_SIZE}, got {value}",
                    )
                self.max_frame_bytes = value
        return self.initial_window - before
