"""Connection settings of a client: addresses, encryption, identity, retries.

They become a target string and channel options for grpcio, with which each client opens its kind of channel.
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
"""Default value of arguments that are mappings."""

_SCHEMES = ("dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds")
"""Schemes of targets that gRPC resolves itself."""
_SERVICES = ("inference.GRPCInferenceService", "grpc.health.v1.Health")
_MAX_ATTEMPTS = 5
"""Most attempts that gRPC accepts in a service config."""
_RECONNECT_MS = (("initial", 100), ("max", 2000), ("min", 5000))
"""A restarted server is back in a second, while grpcio's default pause goes up to two minutes. grpcio uses the minimum
as the connection timeout: a TLS handshake over a slow network must fit into it, and the default of 20 s would hide a
host that is back."""


@dataclass(frozen=True)
class RetryPolicy:
    """Which codes are retried, how often, and after which pauses. gRPC retries only calls without an answer yet."""

    attempts: int = 5
    """Number of attempts, including the first; 2 to 5."""
    initial_backoff_s: float = 0.05
    max_backoff_s: float = 1.0
    multiplier: float = 3.0
    codes: tuple[Code, ...] = (Code.UNAVAILABLE, Code.CANCELLED)
    """Codes to retry. UNAVAILABLE means "try again" in this protocol. CANCELLED, if not by the caller, is what grpcio's
    servers answer to a call that arrives while they close; it has reached no model."""

    def __post_init__(self) -> None:
        if not 2 <= self.attempts <= _MAX_ATTEMPTS:
            raise ValueError(f"attempts: got {self.attempts}, expected 2 to {_MAX_ATTEMPTS}")
        for name in ("initial_backoff_s", "max_backoff_s", "multiplier"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected more than 0")
        if not self.codes or Code.OK in self.codes:
            raise ValueError("codes: expected at least one, and not OK")

    def to_dict(self) -> dict[str, Any]:
        """The policy as a gRPC service config has it."""
        return {
            "maxAttempts": self.attempts,
            "initialBackoff": f"{self.initial_backoff_s:.3f}s",
            "maxBackoff": f"{self.max_backoff_s:.3f}s",
            "backoffMultiplier": self.multiplier,
            "retryableStatusCodes": [code.name for code in self.codes],
        }


RETRIES = RetryPolicy()
"""The preset: UNAVAILABLE, and CANCELLED by the server, are retried four times, after about 0.05, 0.15, 0.45 and 1 s.
With two servers or more no call fails because one of them restarts."""


@dataclass(frozen=True)
class Tls:
    """TLS settings, with certificates and keys as PEM bytes; `from_files` reads them."""

    root_certificates: bytes | None = None
    """Certificate authorities to trust; None for those that come with grpcio."""
    certificate: bytes | None = None
    """The client's certificate, if the server requires one."""
    private_key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None
    """The name that the server's certificate must have; None for that of the address."""

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
        """Channel credentials for grpcio."""
        return grpc.ssl_channel_credentials(self.root_certificates, self.private_key, self.certificate)


class ConnectionOptions(TypedDict, total=False):
    """Keyword arguments of every client."""

    timeout_s: float
    """Timeout of every call in seconds, including retries, unless the call sets one. Default: 30."""
    max_message_bytes: int
    """Largest request or response in bytes. Default: 64 MiB."""
    tls: Tls | None
    """TLS settings. Default: None, for plain text."""
    token: str | None
    """Token that is sent as a bearer token; without ``tls`` only to this machine."""
    token_in_plain_text: bool
    """Whether the network is trusted, so that the token may be sent without ``tls``."""
    metadata: Mapping[str, str | bytes]
    """Metadata that is sent with every call."""


@dataclass(frozen=True)
class Connection:
    """The settings of a channel, and the timeout and metadata of its calls."""

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
    """Make a connection from a client's arguments: its target, ``retry`` and `ConnectionOptions`.

    ``usual_port`` is used in the example of an error for an address without a port.

    Raises:
        ValueError: no address; several that cannot be used together; a token that no header can carry, or that
            would be sent in plain text.
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
        # grpcio cannot retry requests beyond this size, since it does not buffer them.
        ("grpc.per_rpc_retry_buffer_size", max_message_bytes),
        *((f"grpc.{name}_reconnect_backoff_ms", value) for name, value in _RECONNECT_MS),
    ]
    if all(_is_local(address) for address in addresses):
        options.append(("grpc.enable_http_proxy", 0))  # a proxy would look for the server on the proxy's machine
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
    """Check for ``host:port`` or a target with one of gRPC's schemes; raises ValueError as `split_address` does.

    gRPC itself accepts any text, and then every call fails as UNAVAILABLE.
    """
    if address.partition(":")[0] not in _SCHEMES:
        _split(address, usual_port)


def server_error(error: grpc.RpcError) -> ServerError:
    """Convert an error of grpcio to a ServerError."""
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
    """One static target for several addresses. gRPC has these only for IP addresses, so names are resolved here."""
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
    """Whether the address is on this machine, as far as the text shows."""
    scheme, colon, rest = address.partition(":")
    if colon and scheme in ("unix", "unix-abstract"):
        return True
    if colon and scheme in ("ipv4", "ipv6"):
        return all(_is_local(each) for each in rest.split(","))
    if colon and scheme == "dns" and rest.startswith("//") and not rest.startswith("///"):
        return False  # the name is resolved by another machine
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
