"""Access control: the rights that methods need, and the guard of a listener that checks them.

Rights depend on the bearer token, if token files are set, and on the port that was called: control (loading models,
changing settings) is on a separate port unless the operator chooses otherwise.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from service.errors import PermissionDenied, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.rpc.methods import CallContext, Method
    from service.security.tokens import TokenFile

_log = logging.getLogger(__name__)

AUTHORIZATION = "authorization"
_SCHEME = "bearer "


class Access(IntEnum):
    """The right that a call needs; a right includes the smaller ones."""

    OPEN = 0
    """No right: probes and descriptions of the interface."""
    INFERENCE = 1
    """The right to use and inspect the models."""
    CONTROL = 2
    """The right to change what is served and how."""


@dataclass(frozen=True)
class Tokens:
    """The token files of a server; a right without a file needs no token."""

    inference: TokenFile | None = None
    control: TokenFile | None = None

    def are_needed(self, access: Access) -> bool:
        """Whether a call that needs this right must have a token."""
        return {Access.OPEN: None, Access.INFERENCE: self.inference, Access.CONTROL: self.control}[access] is not None

    def rights(self, token: str) -> tuple[Access, str]:
        """The right and the name that belong to a token; OPEN for an unknown one."""
        for access, file in ((Access.CONTROL, self.control), (Access.INFERENCE, self.inference)):
            name = file.name_of(token) if file is not None else None
            if name is not None:
                return access, name
        return Access.OPEN, ""


class Guard:
    """Decides which calls of one listener are allowed."""

    def __init__(self, tokens: Tokens, *, control_refusal: Callable[[], str] = lambda: "") -> None:
        """``control_refusal()`` says why this listener serves no control calls; empty if it does."""
        self._tokens = tokens
        self._control_refusal = control_refusal
        # By right: whether such calls are allowed without a check. Looked up for every call.
        self._is_free = [access is not Access.CONTROL and not tokens.are_needed(access) for access in Access]

    def check(self, method: Method, access: Access, context: CallContext) -> None:
        """Return if the call is allowed, else raise: a `service.rpc.calls.CheckAccess`.

        Raises:
            PermissionDenied: control on a port without it, or a known token without the right.
            Unauthenticated: no token, or an unknown one.
        """
        if self._is_free[access]:
            return
        is_control = access is Access.CONTROL
        refusal = self._control_refusal() if is_control else ""
        if refusal:
            raise PermissionDenied(
                f"{method.path} is a control call: {refusal}",
                reason="CONTROL_NOT_ON_THIS_PORT",
                method=method.path,
            )
        caller = self._caller(access, context) if self._tokens.are_needed(access) else ""
        if not is_control:
            return
        # Control calls are rare, and an operator wants to find them in the log.
        _log.info("control call", extra={"method": method.path, "peer": context.peer, "by": caller or None})

    def _caller(self, access: Access, context: CallContext) -> str:
        """The name of the caller's token; raises if the token does not give the right."""
        what = f"an {access.name.lower()} token" if access is Access.INFERENCE else "a control token"
        token = _bearer(context.metadata)
        if token is None:
            raise Unauthenticated(
                f"this call needs {what}: send the metadata 'authorization: Bearer TOKEN'", reason="TOKEN_MISSING"
            )
        given, name = self._tokens.rights(token)
        if given is Access.OPEN:
            raise Unauthenticated(f"this call needs {what}; the one that came is not known", reason="TOKEN_UNKNOWN")
        if given < access:
            raise PermissionDenied(
                f"this call needs {what}; the one that came is for {given.name.lower()} only", reason="TOKEN_TOO_WEAK"
            )
        return name


def _bearer(metadata: Sequence[tuple[str, str | bytes]]) -> str | None:
    """The token in the caller's metadata; None without one, and if there are several, which is ambiguous."""
    values = [value for key, value in metadata if key == AUTHORIZATION]
    if len(values) != 1 or not isinstance(values[0], str) or not values[0].lower().startswith(_SCHEME):
        return None
    return values[0][len(_SCHEME) :].strip() or None
