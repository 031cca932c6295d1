"""Who may call what: the rights that methods ask for, and the guard of a listener.

Rights come from two places: from a bearer token, where token files are set, and from the port that was called, since
control (loading models, changing settings) is on a port of its own unless the operator says otherwise.
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
    """What a call needs. Whoever has a right has the smaller ones, too."""

    OPEN = 0
    """Nothing: probes and descriptions of the interface."""
    INFERENCE = 1
    """To use the models and to look at them."""
    CONTROL = 2
    """To change what is served and how."""


@dataclass(frozen=True)
class Tokens:
    """The token files of a server; a right without a file needs no token."""

    inference: TokenFile | None = None
    control: TokenFile | None = None

    def are_needed(self, access: Access) -> bool:
        """Whether a call that needs this right has to bring a token."""
        return {Access.OPEN: None, Access.INFERENCE: self.inference, Access.CONTROL: self.control}[access] is not None

    def rights(self, token: str) -> tuple[Access, str]:
        """What a token gives, and whose it is; OPEN for one that is not known."""
        for access, file in ((Access.CONTROL, self.control), (Access.INFERENCE, self.inference)):
            name = file.name_of(token) if file is not None else None
            if name is not None:
                return access, name
        return Access.OPEN, ""


class Guard:
    """Decides about the calls that come to one listener."""

    def __init__(self, tokens: Tokens, *, control_refusal: Callable[[], str] = lambda: "") -> None:
        """``control_refusal()`` says why this listener serves no control calls; empty if it does."""
        self._tokens = tokens
        self._control_refusal = control_refusal
        # By right: whether such calls pass without a further look. Asked for every call.
        self._is_free = [access is not Access.CONTROL and not tokens.are_needed(access) for access in Access]

    def check(self, method: Method, access: Access, context: CallContext) -> None:
        """Let the call pass, or raise: a `service.rpc.methods.CheckAccess`.

        Raises:
            PermissionDenied: control on a port without it, or a known token without the right.
            Unauthenticated: no token, or one that is not known.
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
        # Rare, and what an operator wants to find afterwards.
        _log.info("control call", extra={"method": method.path, "peer": context.peer, "by": caller or None})

    def _caller(self, access: Access, context: CallContext) -> str:
        """Whose token came, if it gives the right."""
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
    """The token of the caller's metadata. None without one, and with several: which one is meant nobody knows."""
    values = [value for key, value in metadata if key == AUTHORIZATION]
    if len(values) != 1 or not isinstance(values[0], str) or not values[0].lower().startswith(_SCHEME):
        return None
    return values[0][len(_SCHEME) :].strip() or None
