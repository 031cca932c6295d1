"""How a server is set up: one frozen value, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.inference.version_policy import VersionPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping


class ConfigError(ValueError):
    """A setting that cannot be used; names the field, the value and the bound."""


@dataclass(frozen=True)
class ServerConfig:
    """Every setting of a server."""

    repository: Path
    """Directory with one folder a model. Must exist, may be empty."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 or :: for every interface."""
    port: int = 8001
    """TCP port; 0 takes a free one and says which."""
    version_policy: VersionPolicy = field(default_factory=VersionPolicy)
    """Which versions of each model are served."""
    require_proof: bool = False
    """Refuse models that carry no goldens."""
    strict_readiness: bool = True
    """The server is ready only when every model has a ready version; otherwise when one has."""
    allow_non_finite: bool = False
    """Accept NaN and Inf in inputs."""
    max_message_bytes: int = 64 * 1024 * 1024
    """Largest request."""
    max_metadata_bytes: int = 16 * 1024
    """Largest set of request headers."""
    keepalive_min_ping_s: float = 10.0
    """How often a client may ping without being told to calm down."""
    lame_duck_s: float = 0.0
    """After SIGTERM: how long to go on serving while saying NOT_SERVING, so that load balancers notice first."""
    grace_s: float = 10.0
    """How long running calls may take to finish after that."""

    def __post_init__(self) -> None:
        if not self.repository.is_dir():
            raise ConfigError(
                f"repository: {str(self.repository)!r} is no directory; `mnist1d train` publishes a model and makes one"
            )
        if not self.host:
            raise ConfigError("host: got '', expected an address")
        _check("port", self.port, 0, 65535)
        _check("max_message_bytes", self.max_message_bytes, 1024, 2**31 - 1)
        _check("max_metadata_bytes", self.max_metadata_bytes, 1024, 2**24)
        _check("keepalive_min_ping_s", self.keepalive_min_ping_s, 0.1, 7200)
        _check("lame_duck_s", self.lame_duck_s, 0, 3600)
        _check("grace_s", self.grace_s, 0, 3600)

    @property
    def address(self) -> str:
        """``host:port``, with the brackets that IPv6 needs."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def to_dict(self) -> Mapping[str, Any]:
        """For the log: plain values only."""
        values = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        return {
            name: str(value) if isinstance(value, Path | VersionPolicy) else value for name, value in values.items()
        }


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name}: got {value!r}, expected {low} to {high}")
