"""Bearer tokens, read from a file and read again when it changes, so that they can be rotated without a restart.

The file has one token per line, as sent in ``authorization: Bearer TOKEN``; ``NAME:TOKEN`` gives it a name for the log.
Empty lines and lines that begin with ``#`` are skipped. Tokens are kept as hashes and appear in no message.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from typing import TYPE_CHECKING

from service.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""Least interval between checks of the file; a removed token can stay valid for this long."""
_MAX_BYTES = 1 << 20
_LINE = re.compile(r"(?:(?P<name>[A-Za-z0-9._@-]{1,64}):)?(?P<token>[A-Za-z0-9._~+/-]+=*)")
"""A bearer token (RFC 6750, section 2.1), which has no colon, with an optional name before it."""


class TokenFile:
    """The tokens of one file, for one setting."""

    def __init__(self, setting: str, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the file; raises ConfigError if it cannot be read or has no token."""
        self._setting = setting
        self._path = path
        self._clock = clock
        self._complaint = ""
        try:
            self._signature = self._look()
            self._names = _parse(self._read())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{setting}: {str(path)!r} {_said(error)}") from error
        if not self._names:
            raise ConfigError(f"{setting}: {str(path)!r} has no token; one a line is expected")
        self._looked_at = clock()

    def name_of(self, token: str) -> str | None:
        """The name of a token (``token 2`` for the second one, if it has no name); None for an unknown one."""
        self._refresh()
        digest = _digest(token)
        found: str | None = None
        # Compare with all tokens, each in constant time, so that the duration reveals nothing about them.
        for known, name in self._names.items():
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def _refresh(self) -> None:
        """Read the file again if it changed. If that fails, the tokens stay as they were; an empty file removes all."""
        now = self._clock()
        if now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        try:
            signature = self._look()
            if signature == self._signature:
                return
            names = _parse(self._read())
        except (OSError, ValueError) as error:
            complaint = _said(error)
            if complaint != self._complaint:
                _log.error(
                    "tokens cannot be read again, those read before stay valid",
                    extra={"setting": self._setting, "file": str(self._path), "reason": complaint},
                )
            self._complaint = complaint
            return
        self._signature, self._names, self._complaint = signature, names, ""
        _log.log(
            logging.INFO if names else logging.WARNING,
            "tokens read again",
            extra={"setting": self._setting, "file": str(self._path), "tokens": len(names)},
        )

    def _look(self) -> tuple[int, int, int]:
        # `stat` follows symbolic links: Kubernetes rotates a mounted secret by replacing one.
        stat = self._path.stat()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _read(self) -> str:
        with self._path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ValueError(f"has more than {_MAX_BYTES} bytes")
        try:
            return data.decode("ascii")
        except UnicodeDecodeError:
            # `from None`: the cause holds the bytes.
            raise ValueError("has characters that are not ASCII") from None


def _parse(text: str) -> dict[bytes, str]:
    names: dict[bytes, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            raise ValueError(
                f"line {number}: expected TOKEN or NAME:TOKEN, the token of letters, digits and '-._~+/', perhaps with "
                "'=' at its end"
            )
        names.setdefault(_digest(match["token"]), match["name"] or f"token {len(names) + 1}")
    return names


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def _said(error: OSError | ValueError) -> str:
    return f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
