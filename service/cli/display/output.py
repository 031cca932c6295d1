"""Guarded standard output and error: a failed write ends in a message, not in a traceback.

`guarded` wraps the two streams of a command. A command whose result cannot be written has failed, so that a full disk,
a closed pipe and a closed descriptor raise `OutputFailed`. Errors on standard error are ignored, since they cannot be
reported, and the work goes on. Characters that an encoding lacks become question marks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from collections.abc import Iterator


class OutputFailed(click.ClickException):
    """Standard output cannot be written; exit code 1."""

    def __init__(self, error: OSError) -> None:
        why = "nobody reads it any more" if error.errno == errno.EPIPE else error.strerror or str(error)
        super().__init__(f"standard output: {why}")

    def show(self, file: object = None) -> None:  # noqa: ARG002 - click calls it so
        """Print the error as `service.cli.display.console.fail` does."""
        from service.cli.display.console import print_error

        print_error(self.message)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Guard ``sys.stdout`` and ``sys.stderr`` inside the block."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Output(sys.stdout), _Errors(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def can_write(text: str) -> bool:
    """Whether the encoding of standard output has every character of ``text``."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


class _Guard:
    """A text stream that cannot be bypassed: it has no ``buffer`` and no ``reconfigure``."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # None where the descriptor was closed before the program began
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self.errors = "replace"

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        if self._stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._stream.fileno()

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"expected text, got {type(text).__name__}")  # click tests the kind of a stream with this
        try:
            if text:
                self._writable().write(text.encode(self.encoding, self.errors).decode(self.encoding))
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        try:
            if self._stream is not None:
                self._stream.flush()
        except OSError as error:
            self._lose(error)

    def _writable(self) -> TextIO:
        if self._stream is None:
            raise OSError(errno.EBADF, "it is closed")
        return self._stream

    def _lose(self, error: OSError) -> None:  # noqa: ARG002 - used by a subclass
        """Redirect a failed stream to /dev/null, so that Python does not try to flush its buffer again at exit."""
        with contextlib.suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(null, self.fileno())
            finally:
                os.close(null)


class _Output(_Guard):
    def _lose(self, error: OSError) -> None:
        super()._lose(error)
        raise OutputFailed(error) from error


class _Errors(_Guard):
    """Standard error, whose failures are ignored since they cannot be reported."""
