"""Structured logs: one JSON object per line, or the same fields as text for a terminal.

Every line that is logged during a call carries the call's ids. Values may come from callers and are escaped, so that
they cannot break lines or move a terminal's cursor.
"""

from __future__ import annotations

import contextvars
import fcntl
import json
import logging
import math
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LONGEST = 4096
"""Longest value in characters: a caller may send megabytes as the name of a model."""
_LONGEST_TRACEBACK = 64 * 1024

call_fields: contextvars.ContextVar[Callable[[], Mapping[str, object]] | None] = contextvars.ContextVar(
    "call_fields", default=None
)
"""The log fields of the current call, as a function that is called only when a line is really written."""


def context_with(**fields: object) -> contextvars.Context:
    """A copy of the current context that adds ``fields`` to its log lines; empty ones are left out."""
    outer = call_fields.get()
    given = {name: value for name, value in fields.items() if value}
    context = contextvars.copy_context()
    context.run(call_fields.set, lambda: {**(outer() if outer is not None else {}), **given})
    return context


@dataclass(frozen=True)
class Switches:
    """Which lines are written, in the form of Triton's log settings."""

    info: bool = True
    warning: bool = True
    error: bool = True
    verbose_level: int = 0
    """A line for each request is written if this is 1 or more."""

    @classmethod
    def of_level(cls, level: int) -> Switches:
        """Switches that write lines from a level of `logging` up."""
        return cls(
            info=level <= logging.INFO,
            warning=level <= logging.WARNING,
            error=level <= logging.ERROR,
            verbose_level=int(level <= logging.DEBUG),
        )

    def allow(self, level: int) -> bool:
        """Whether a line of a level is written."""
        if level >= logging.ERROR:
            return self.error
        if level >= logging.WARNING:
            return self.warning
        return self.info if level >= logging.INFO else self.verbose_level > 0

    @property
    def lowest_level(self) -> int:
        """The lowest level of `logging` that is written."""
        levels = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
        return next((level for level in levels if self.allow(level)), logging.CRITICAL + 1)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """The fields that were passed as ``extra``, and those of the call."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


class JsonFormatter(logging.Formatter):
    """One JSON object per record, in ASCII: time, level, logger, message, then the record's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        line: dict[str, object] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _cut(record.getMessage()),
            **{key: _plain(value) for key, value in fields_of(record).items()},
        }
        if record.exc_info:
            line["traceback"] = _cut(self.formatException(record.exc_info), _LONGEST_TRACEBACK)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """Lines for people: message first, fields as ``key=value``, a traceback indented below."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of text, with the traceback below it if there is one."""
        fields = " ".join(f"{key}={_word(value)}" for key, value in fields_of(record).items() if value is not None)
        message = _printable(_cut(record.getMessage()))
        text = f"{_timestamp(record)} {record.levelname:<7} {message}{'  ' if fields else ''}{fields}"
        if not record.exc_info:
            return text
        traceback = _cut(self.formatException(record.exc_info), _LONGEST_TRACEBACK)
        return "\n".join([text, *(f"    {_printable(line)}" for line in traceback.split("\n"))])


class LogOutput(logging.StreamHandler[TextIO]):
    """The handler of all log lines of the process; its switches can be changed while it runs."""

    def __init__(self, stream: TextIO, switches: Switches) -> None:
        super().__init__(stream)
        self._switches = switches
        self.fields: Mapping[str, object] = {}
        """Fields that are added to every line."""
        self.lock_fd: int | None = None
        """A file that is locked while a line is written, for processes that share one output."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line under the lock: a pipe may interleave the writes of several processes."""
        if self.lock_fd is None:
            super().emit(record)
            return
        fcntl.lockf(self.lock_fd, fcntl.LOCK_EX)
        try:
            super().emit(record)
        finally:
            fcntl.lockf(self.lock_fd, fcntl.LOCK_UN)

    @property
    def switches(self) -> Switches:
        """Which lines are written."""
        return self._switches

    @switches.setter
    def switches(self, switches: Switches) -> None:
        self._switches = switches
        # So that lines that are not written are not formatted.
        logging.getLogger().setLevel(switches.lowest_level)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written; if so, the fields of the current call are added to it."""
        if not (self._switches.allow(record.levelno) and super().filter(record)):
            return False
        for name, value in self.fields.items():
            vars(record).setdefault(name, value)
        fields_of_call = call_fields.get()
        if fields_of_call is not None:
            try:
                fields = fields_of_call()
            except Exception:  # noqa: BLE001 - logging must never fail the caller
                fields = {}
            for name, value in fields.items():
                vars(record).setdefault(name, value)
        return True


def set_up(level: str, *, as_json: bool, stream: TextIO | None = None) -> LogOutput:
    """Send every log line of the process to ``stream`` (default: standard error)."""
    number = logging.getLevelNamesMapping()[level.upper()]
    output = LogOutput(stream if stream is not None else sys.stderr, Switches.of_level(number))
    output.setFormatter(JsonFormatter() if as_json else TextFormatter())
    logging.basicConfig(level=number, handlers=[output], force=True)
    # At debug level these two log a line about themselves for each call.
    for library in ("asyncio", "grpc"):
        logging.getLogger(library).setLevel(max(logging.INFO, logging.getLogger().level))
    return output


def current_output() -> LogOutput | None:
    """The handler that `set_up` made; None in a program that does its own logging."""
    return next((handler for handler in logging.getLogger().handlers if isinstance(handler, LogOutput)), None)


def _timestamp(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _cut(text: str, longest: int = _LONGEST) -> str:
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text)} characters)"


def _plain(value: object) -> object:
    if isinstance(value, str):
        return _cut(value)
    # JSON has no NaN or infinity, and most parsers reject what Python writes for them.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _word(value: object) -> str:
    """Format a value so that it cannot be confused with the next ``key=``."""
    text = _cut(str(value))
    if isinstance(value, str) and (not text or any(character in ' "=' for character in text)):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return _printable(text)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
