"""How a client gets to its servers: addresses, encryption, identity, retries.

Everything becomes a target string and channel options for grpcio, which both clients hand to their own kind of channel.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypedDict

import grpc

from ..address import MAIN_PORT, split_address
from ..errors import Code
from .errors import DETAILS_KEY, ServerError, read_details

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Metadata = tuple[tuple[str, str | bytes], ...]

NONE: Mapping[str, Any] = MappingProxyType({})
"""The default of arguments that are mappings."""

_SCHEMES = ("dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds")
"""Prefixes of targets that gRPC resolves by itself."""
_SERVICES = ("inference.GRPCInferenceService", "grpc.health.v1.Health")
_MAX_ATTEMPTS = 5
"""What gRPC allows a service config to ask for."""
_RECONNECT_MS = (("initial", 100), ("max", 2000), ("min", 5000))
"""A server that is restarted is back in a second; grpcio's own pause goes up to two minutes. What grpcio calls the
least pause is how long it waits for a connection to be made: TLS over a long way must fit into it, and the 20 s of its
own would hide a host that is back."""


@dataclass(frozen=True)
class RetryPolicy:
    """What is tried again, how often, and after which pauses. gRPC retries only calls that brought no answer yet."""

    attempts: int = 5
    """The first one included; 2 to 5."""
    initial_backoff_s: float = 0.05
    max_backoff_s: float = 1.0
    multiplier: float = 3.0
    codes: tuple[Code, ...] = (Code.UNAVAILABLE, Code.CANCELLED)
    """UNAVAILABLE is the code by which servers of this protocol say "try again". CANCELLED by somebody else than the
    caller is what grpc's servers say to a call that arrives in the moment they close; it has reached no model."""

    def __post_init__(self) -> None:
        if not 2 <= self.attempts <= _MAX_ATTEMPTS:
            raise ValueError(f"attempts: got {self.attempts}, expected 2 to {_MAX_ATTEMPTS}")
        for name in ("initial_backoff_s", "max_backoff_s", "multiplier"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected more than 0")
        if not self.codes or Code.OK in self.codes:
            raise ValueError("codes: expected at least one, and not OK")

    def to_dict(self) -> dict[str, Any]:
        """The form of a gRPC service config."""
        return {
            "maxAttempts": self.attempts,
            "initialBackoff": f"{self.initial_backoff_s:.3f}s",
            "maxBackoff": f"{self.max_backoff_s:.3f}s",
            "backoffMultiplier": self.multiplier,
            "retryableStatusCodes": [code.name for code in self.codes],
        }


RETRIES = RetryPolicy()
"""The preset: UNAVAILABLE, and CANCELLED by the server, are tried four times more, after about 0.05, 0.15, 0.45 and
1 s. With two servers or more a restart of one of them costs no call."""


@dataclass(frozen=True)
class Tls:
    """Encryption. PEM, as bytes; `from_files` reads them."""

    root_certificates: bytes | None = None
    """Who may have signed the server's certificate; None: those that grpcio brings along."""
    certificate: bytes | None = None
    """The client's own certificate, where the server asks for one."""
    private_key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None
    """The name the server's certificate must have; None: that of the address."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key: give both or neither")

    @classmethod
    def from_files(
        cls,
        root_certificates: Path | None = None,
        certificate: Path | None = None,
        private_key: Path | None = None,
        server_name: str | None = None,
    ) -> Tls:
        """Read PEM files; raises OSError."""
        read = [
            path.read_bytes() if path is not None else None for path in (root_certificates, certificate, private_key)
        ]
        return cls(read[0], read[1], read[2], server_name)

    def credentials(self) -> grpc.ChannelCredentials:
        """For grpcio."""
        return grpc.ssl_channel_credentials(self.root_certificates, self.private_key, self.certificate)


class ConnectionOptions(TypedDict, total=False):
    """What every client takes by name besides its target."""

    timeout_s: float
    """Seconds for every call, its retries included, unless the call has its own timeout. Default: 30."""
    max_message_bytes: int
    """Largest request or response. Default: 64 MiB."""
    tls: Tls | None
    """Default: none, plain text."""
    token: str | None
    """Sent as a bearer token; without ``tls`` only to this machine itself."""
    token_in_plain_text: bool
    """Nobody on the way to the server reads along, so that the token may go there without ``tls``."""
    metadata: Mapping[str, str | bytes]
    """Goes with every call."""


@dataclass(frozen=True)
class Connection:
    """What a channel is opened with, and what every call carries."""

    target: str
    options: tuple[tuple[str, Any], ...]
    credentials: grpc.ChannelCredentials | None
    metadata: Metadata = field(repr=False)
    timeout_s: float


def connection(
    target: str | Sequence[str],
    usual_port: int = MAIN_PORT,
    *,
    retry: RetryPolicy | None = None,
    timeout_s: float = 30.0,
    max_message_bytes: int = 64 * 1024 * 1024,
    tls: Tls | None = None,
    token: str | None = None,
    token_in_plain_text: bool = False,
    metadata: Mapping[str, str | bytes] = NONE,
) -> Connection:
    """The connection for a client's arguments: its target, ``retry`` and `ConnectionOptions`.

    ``usual_port`` is for the example of an address, where one has none.

    Raises:
        ValueError: no address; several that cannot be used together; a token that no header can carry, or that
            anyone on the way could read.
    """
    addresses = [target] if isinstance(target, str) else list(target)
    if not addresses:
        raise ValueError("target: expected at least one address")
    for address in addresses:
        check_address(address, usual_port)
    config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if retry is not None:
        config["methodConfig"] = [{"name": [{"service": name} for name in _SERVICES], "retryPolicy": retry.to_dict()}]
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.service_config", json.dumps(config)),
        # Beyond this size grpcio forgets the request and cannot send it again.
        ("grpc.per_rpc_retry_buffer_size", max_message_bytes),
        *((f"grpc.{name}_reconnect_backoff_ms", value) for name, value in _RECONNECT_MS),
    ]
    if all(_is_local(address) for address in addresses):
        options.append(("grpc.enable_http_proxy", 0))  # which would look for the server on its own machine
    name = _server_name(addresses, tls)
    if name is not None:
        options += [("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)]
    headers: list[tuple[str, str | bytes]] = [(key.lower(), value) for key, value in metadata.items()]
    if token is not None:
        if not token or not token.isascii() or not token.isprintable():
            raise ValueError("token: expected printable ASCII")
        exposed = [address for address in addresses if tls is None and not _is_local(address)]
        if exposed and not token_in_plain_text:
            raise ValueError(
                f"token: without tls anyone on the way to {', '.join(exposed)} can read it; "
                "give tls, or token_in_plain_text=True where the way is safe"
            )
        headers.append(("authorization", f"Bearer {token}"))
    return Connection(
        addresses[0] if len(addresses) == 1 else _joined(addresses),
        tuple(options),
        tls.credentials() if tls is not None else None,
        tuple(headers),
        timeout_s,
    )


def check_address(address: str, usual_port: int = MAIN_PORT) -> None:
    """Whether it is ``host:port``, or a target with one of gRPC's schemes; raises ValueError as `split_address` does.

    gRPC itself takes anything and says of each call that nobody answers.
    """
    if address.partition(":")[0] not in _SCHEMES:
        _split(address, usual_port)


def server_error(error: grpc.RpcError) -> ServerError:
    """What grpcio raised, as ours."""
    details = None
    for entry in error.trailing_metadata() or ():
        # grpcio's types do not say that an entry is a pair.
        key, value = tuple(entry)  # type: ignore[var-annotated,arg-type]
        if key == DETAILS_KEY:
            details = read_details(value if isinstance(value, bytes) else value.encode())
    return ServerError(Code(error.code().value[0]), error.details() or "", details)


def _server_name(addresses: Sequence[str], tls: Tls | None) -> str | None:
    if tls is None or tls.server_name is not None:
        return tls.server_name if tls is not None else None
    hosts = {_split(address)[0] for address in addresses} if len(addresses) > 1 else set()
    if len(hosts) > 1:
        raise ValueError(
            f"target: {', '.join(sorted(hosts))} are different hosts; with TLS give the server_name that their "
            "certificates share"
        )
    return hosts.pop() if hosts else None


def _joined(addresses: Sequence[str]) -> str:
    """One static target. gRPC has such targets for numbers only, so that names are resolved here, once."""
    resolved = [_resolve(address) for address in addresses]
    for scheme, version in (("ipv4", 4), ("ipv6", 6)):
        if all(version in found for found in resolved):
            return f"{scheme}:{','.join(found[version] for found in resolved)}"
    raise ValueError(f"target: {', '.join(addresses)} have neither IPv4 nor IPv6 addresses in common")


def _resolve(address: str) -> dict[int, str]:
    host, port = _split(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"target: {address!r}: {error}") from error
    numbers: dict[int, str] = {}
    for family, _, _, _, where in found:
        if family in (socket.AF_INET, socket.AF_INET6):
            number = ipaddress.ip_address(str(where[0]).partition("%")[0])
            numbers.setdefault(number.version, f"[{number}]:{port}" if number.version == 6 else f"{number}:{port}")
    return numbers


def _is_local(address: str) -> bool:
    """Whether what is sent there stays on this machine, as far as the address itself says."""
    scheme, colon, rest = address.partition(":")
    if colon and scheme in ("unix", "unix-abstract"):
        return True
    if colon and scheme in ("ipv4", "ipv6"):
        return all(_is_local(each) for each in rest.split(","))
    if colon and scheme == "dns" and rest.startswith("//") and not rest.startswith("///"):
        return False  # another machine is asked what the name means
    host = rest.rpartition("/")[2] if colon and scheme == "dns" else address
    # A port is what follows the last colon, unless the host is an IPv6 address without one.
    host = (host if host.count(":") != 1 and not host.startswith("[") else host.rpartition(":")[0]).strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split(address: str, usual_port: int = MAIN_PORT) -> tuple[str, int]:
    try:
        return split_address(address, usual_port)
    except ValueError as error:
        raise ValueError(f"target: {error}") from None
