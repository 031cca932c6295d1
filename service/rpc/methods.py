"""The method table: the methods that the server offers, independent of the transport.

A servicer contributes `Method` rows; a transport engine runs them. A handler gets a message and a `CallContext`,
returns a message (or yields messages) and raises `service.errors.ServiceError` for expected errors.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from service.security.access import Access


class CallContext(Protocol):
    """Information about a call for its handler, apart from the message."""

    @property
    def peer(self) -> str:
        """Address of the caller, for logs."""
        ...

    @property
    def metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """The caller's metadata."""
        ...

    def time_remaining_s(self) -> float | None:
        """Seconds until the caller's deadline; None without one."""
        ...


class Responder(Protocol):
    """Receives the answer of an express call."""

    def answer_all(self, answers: Sequence[tuple[Any, bytes]]) -> Sequence[Any]:
        """Send the serialised responses of one model run, each paired with its responder. Called once, on any of the
        responders, which must be of one class, so that common work is done once.

        Never raises. Returns the responders whose calls failed; they are over too.
        """
        ...

    def retry(self) -> None:
        """Run the call in the general way: the express lane cannot answer it."""
        ...


class Entered(Protocol):
    """A call on the express lane."""

    def cancel(self) -> None:
        """Cancel the call: the caller does not want the answer any more. The responder is not called."""
        ...


# One alias for each shape of handler. The message types differ from row to row of the method table, and only the row's
# parse and serialise functions know them.
UnaryHandler = Callable[[Any, CallContext], Awaitable[Any]]
ServerStreamHandler = Callable[[Any, CallContext], AsyncIterator[Any]]
Done = Callable[[Any], bool]
"""Called once with the response of a call or the exception that failed it; returns whether the response is sent."""
Begin = Callable[[Any, CallContext, Done], Callable[[], None]]
"""Starts a call ``(request, context, done)`` and returns a function that cancels it. ``done`` is called now or later,
unless the call is cancelled before. An exception that `Begin` itself raises fails the call too.
"""
Express = Callable[[bytes, float | None, Responder], Entered | None]
"""Takes a call ``(message, seconds until the deadline, responder)`` that can be answered from its bytes alone; returns
None for a call that it does not take. Never raises. The responder is called once, later.
"""


class Replies(Protocol):
    """The engine's side of an opened stream: it sends the responses."""

    @property
    def is_full(self) -> bool:
        """Whether the client does not read what was sent: nothing more is to be sent before `OpenStream.resume`."""
        ...

    def send(self, messages: Sequence[bytes]) -> None:
        """Send serialised responses."""
        ...

    def flush(self) -> None:
        """Flush the responses: no more follow for now."""
        ...

    def more(self) -> None:
        """Ask for more requests: `OpenStream.has_room` is true again."""
        ...

    def end(self, error: Exception | None = None) -> None:
        """End the call: after the last response, or with the error that failed it."""
        ...


class OpenStream(Protocol):
    """The servicer's side of an opened stream: it takes the requests."""

    @property
    def has_room(self) -> bool:
        """Whether it takes another request; otherwise requests wait, and flow control stops the client."""
        ...

    def take(self, message: bytes) -> None:
        """Take the next serialised request."""
        ...

    def end(self, error: Exception | None = None) -> None:
        """Handle the end of the requests; ``error`` is the reason if the client has not sent all."""
        ...

    def resume(self) -> None:
        """Send responses again: the client has read enough."""
        ...

    def cancel(self) -> None:
        """Cancel the call: the caller does not want the responses any more."""
        ...


Open = Callable[[CallContext, Replies], OpenStream]
"""Starts a stream; an exception that it raises fails the call."""
BidiHandler = Callable[[AsyncIterator[Any], CallContext], AsyncIterator[Any]]


@dataclass(frozen=True)
class Method:
    """One row of the method table: its path, how its messages are parsed and serialised, and the right it needs."""

    path: str
    """Path of the method, ``/package.Service/Method``."""
    parse: Callable[[bytes], Any]
    serialize: Callable[[Any], bytes]
    access: Access = field(default=Access.INFERENCE, kw_only=True)
    """The right a caller needs; checked before the request is parsed."""
    describe: Callable[[Any], dict[str, str]] = field(default=lambda _: {}, kw_only=True)
    """Returns the log fields of a request."""
    describe_answer: Callable[[Any], dict[str, str]] = field(default=lambda _: {}, kw_only=True)
    """Returns the log fields of a response; they take precedence over those of ``describe``."""
    changes: Callable[[Any], bool] = field(default=lambda _: False, kw_only=True)
    """Whether a request changes the server, for methods that can both read and change; a change needs CONTROL."""


@dataclass(frozen=True)
class Unary(Method):
    """One request, one response; a coroutine answers, in a task for each call."""

    handler: UnaryHandler


@dataclass(frozen=True)
class Begun(Method):
    """One request, one response; callbacks answer, without a task and a future for each call."""

    begin: Begin
    express: Express | None = field(default=None, kw_only=True)
    """A shortcut for common calls, used while neither logs nor traces need each call."""


@dataclass(frozen=True)
class ServerStream(Method):
    """One request, many responses."""

    handler: ServerStreamHandler


@dataclass(frozen=True)
class Bidi(Method):
    """Many requests and many responses, independently; with a task and a generator for each call."""

    handler: BidiHandler


@dataclass(frozen=True)
class Opened(Method):
    """Many requests and many responses; callbacks take and send their bytes, without a task for each call."""

    open: Open
