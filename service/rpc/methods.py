"""The method table: what the server can be called for, without a word of how bytes arrive.

A servicer contributes `Method` rows; a transport engine runs them. A handler gets a message and a `CallContext`,
answers with a message (or yields messages) and raises `service.errors.ServiceError` for what it expects to go wrong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from service.security.access import Access


class CallContext(Protocol):
    """What a handler may know of the call around its message."""

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
    """Where the answer of an express call goes."""

    def answer_all(self, answers: Sequence[tuple[Any, bytes]]) -> Sequence[Any]:
        """The responses of one run as they travel, each with its responder, which are of one class; called on one of
        them for all: what is the same for every answer is done once.

        Never raises. Returns the responders whose calls failed after all; they are over, too.
        """
        ...

    def retry(self) -> None:
        """It cannot be answered this way after all: run it as other calls are run."""
        ...


class Entered(Protocol):
    """A call on the express lane."""

    def cancel(self) -> None:
        """The caller does not want the answer any more; the responder is not called."""
        ...


# One alias for each shape of handler. A method table is heterogeneous: the message types differ from row to row and
# only the row's own parse and serialise functions know them.
UnaryHandler = Callable[[Any, CallContext], Awaitable[Any]]
ServerStreamHandler = Callable[[Any, CallContext], AsyncIterator[Any]]
Done = Callable[[Any], bool]
"""Takes the response of a call or the exception that failed it, once; returns whether the response is on its way."""
Begin = Callable[[Any, CallContext, Done], Callable[[], None]]
"""Starts a call and returns at once: ``(request, context, done)``. ``done`` is called now or later, unless what is
returned is called before: that cancels the call. What `Begin` itself raises has failed the call, too.
"""
Express = Callable[[bytes, float | None, Responder], Entered | None]
"""Takes a call that can be answered from its bytes alone, ``(message, seconds until the deadline, responder)``; or does
not take it and returns None. Never raises. The responder hears later, once.
"""


class Replies(Protocol):
    """Where the responses of an opened stream go; the engine's side of it."""

    @property
    def is_full(self) -> bool:
        """Whether the client does not read what was sent: nothing more is to be sent before `OpenStream.resume`."""
        ...

    def send(self, messages: Sequence[bytes]) -> None:
        """Responses as they travel."""
        ...

    def flush(self) -> None:
        """For now that was all: there is nothing to wait for."""
        ...

    def more(self) -> None:
        """`OpenStream.has_room` again."""
        ...

    def end(self, error: Exception | None = None) -> None:
        """The last response was sent; or the stream has failed."""
        ...


class OpenStream(Protocol):
    """A call with a stream of requests under way; the servicer's side of it."""

    @property
    def has_room(self) -> bool:
        """Whether it takes another request; what comes meanwhile waits, and so does the client."""
        ...

    def take(self, message: bytes) -> None:
        """The next request as it came."""
        ...

    def end(self, error: Exception | None = None) -> None:
        """No more requests come; with the reason, if it is not that the client has sent all."""
        ...

    def resume(self) -> None:
        """The client reads again."""
        ...

    def cancel(self) -> None:
        """Nobody wants the responses any more."""
        ...


Open = Callable[[CallContext, Replies], OpenStream]
"""Starts a stream; what it raises has failed the call."""
BidiHandler = Callable[[AsyncIterator[Any], CallContext], AsyncIterator[Any]]


@dataclass(frozen=True)
class Method:
    """One row: where it is reached and how its messages are read and written."""

    path: str
    """``/package.Service/Method``."""
    parse: Callable[[bytes], Any]
    serialize: Callable[[Any], bytes]
    access: Access = field(default=Access.INFERENCE, kw_only=True)
    """The right a caller needs; asked for before the request is read."""
    describe: Callable[[Any], dict[str, str]] = field(default=lambda _: {}, kw_only=True)
    """What a request says of itself in the log, at debug level only."""
    describe_answer: Callable[[Any], dict[str, str]] = field(default=lambda _: {}, kw_only=True)
    """What a response says of itself in the log; takes precedence over ``describe``."""
    changes: Callable[[Any], bool] = field(default=lambda _: False, kw_only=True)
    """Whether a request changes the server rather than asks it, where one method can do both: it then needs CONTROL."""


@dataclass(frozen=True)
class Unary(Method):
    """One request, one response; a coroutine answers it, in a task for each call."""

    handler: UnaryHandler


@dataclass(frozen=True)
class Begun(Method):
    """One request, one response; callbacks answer it, without a task and a future for each call."""

    begin: Begin
    express: Express | None = field(default=None, kw_only=True)
    """A shortcut for common calls, used while neither logs nor traces need to see whole calls."""


@dataclass(frozen=True)
class ServerStream(Method):
    """One request, many responses."""

    handler: ServerStreamHandler


@dataclass(frozen=True)
class Bidi(Method):
    """Many requests and many responses, independently; a task and a generator for each call."""

    handler: BidiHandler


@dataclass(frozen=True)
class Opened(Method):
    """Many requests and many responses; callbacks take and send them, as bytes, without a task for each call."""

    open: Open
