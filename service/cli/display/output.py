"""Standard output and error as every command finds them: what cannot be written ends in a message, not in a traceback.

`guarded` puts itself between a command and the two streams. A result that nobody can read is a failed command, so that
a full disk, a closed pipe and a closed descriptor raise `OutputFailed`. Standard error is different: when that is lost,
there is nobody left to tell, and the work goes on. What an encoding does not have becomes a question mark.
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
    """Standard output takes nothing more; exit code 1."""

    def __init__(self, error: OSError) -> None:
        why = "nobody reads it any more" if error.errno == errno.EPIPE else error.strerror or str(error)
        super().__init__(f"standard output: {why}")

    def show(self, file: object = None) -> None:  # noqa: ARG002 - click calls it so
        """Show the error as `service.cli.display.console.fail` shows every other one."""
        from service.cli.display.console import print_error

        print_error(self.message)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Guard ``sys.stdout`` and ``sys.stderr``; they come back afterwards."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Output(sys.stdout), _Errors(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def can_write(text: str) -> bool:
    """Whether standard output has every character of ``text``."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


class _Guard:
    """A text stream without a way around it: no ``buffer``, no ``reconfigure``."""

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
            raise TypeError(f"expected text, got {type(text).__name__}")  # what click asks a stream, to know its kind
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

    def _lose(self, error: OSError) -> None:  # noqa: ARG002 - for those who tell of it
        """The stream is lost: Python must not try again, on its way out, to write what is still in its buffer."""
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
    """Nobody can be told that nobody can be told."""
