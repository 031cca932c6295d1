"""The configuration of a server, as one frozen value that is validated when it is made.

Each setting is declared once, here: its type, default, bounds and meaning. The command line makes its options and
environment variables from this table (`service.cli.options`), and ``--print-config`` prints it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.repository.control_mode import Mode, start_names
from service.repository.version_policy import PolicyError, VersionPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping


_LONGEST_S = 86400.0 * 24
"""Longest duration in seconds, since gRPC counts milliseconds in 32 bits."""

MAIN_HINT = "choose another --host or --port"
"""Hint in the error for a main address that cannot be bound; `CONTROL_HINT` is the one for the control port."""
CONTROL_HINT = "choose another --control-port for control, or --no-control"


TRAINING_MODULES = ("torch", "onnxscript")
"""Modules that only the process of a training run imports."""


class ConfigError(ValueError):
    """A setting is invalid; the message names the field, the value and the bound."""


def setting(
    default: Any,  # noqa: ANN401 - the field's own annotation has the type
    help_text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    metavar: str | None = None,
) -> Any:  # noqa: ANN401 - as dataclasses.field
    """A dataclass field with its help text and bounds (both inclusive)."""
    metadata = {"help": help_text, "low": low, "high": high, "choices": choices, "metavar": metavar}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ServerConfig:
    """Every setting of a server."""

    repository: Path
    """Directory with one folder per model. Must exist, may be empty."""

    host: str = setting("127.0.0.1", "Address to listen on; 0.0.0.0 or :: for every interface.")
    transport: str = setting(
        "http2",
        "Engine that runs the connections: http2 (this project's own, fast) or grpcio (the reference).",
        choices=("http2", "grpcio"),
    )
    port: int = setting(8001, "TCP port; 0 takes a free one and says which.", low=0, high=65535)

    workers: int = setting(
        1,
        "Processes that share the ports, each a whole server with its own models; 0 is one for each CPU that may be "
        "used.",
        low=0,
        high=256,
    )

    version_policy: str = setting(
        "latest:1",
        "Versions to serve: latest:N (the newest N that prove themselves), all, or specific:N,N.",
        metavar="POLICY",
    )
    model_control_mode: str = setting(
        Mode.POLL.value,
        "Who decides what is loaded: none (what is there at the start), poll (the directory, looked at every few "
        "seconds) or explicit (requests).",
        choices=tuple(mode.value for mode in Mode),
    )
    repository_poll_s: float = setting(2.0, "In poll mode, seconds between two looks.", low=0.01, high=86400)
    load_model: str = setting(
        "", "In explicit mode, the models to begin with: NAME,NAME or * for all.", metavar="NAMES"
    )
    require_proof: bool = setting(False, "Refuse models that carry no goldens.")
    strict_readiness: bool = setting(True, "Ready when every model has a ready version; otherwise when one has.")

    max_batch_size: int = setting(
        4096, "Rows of one request, and of requests that run together.", low=1, high=2**31 - 1
    )
    max_queue_size: int = setting(1024, "Requests that may wait for one model.", low=1, high=2**20)
    max_queue_delay_us: int = setting(
        0, "How long to hold a request back, in microseconds, for others to join it.", low=0, high=10_000_000
    )

    allow_non_finite: bool = setting(False, "Accept NaN and Inf in inputs.")

    max_message_bytes: int = setting(64 * 1024 * 1024, "Largest request.", low=1024, high=2**31 - 1)
    max_metadata_bytes: int = setting(16 * 1024, "Largest set of request headers.", low=1024, high=2**24)
    max_concurrent_streams: int = setting(
        1024, "Calls that may run at the same time on one connection; more wait in the client.", low=1, high=2**31 - 1
    )
    keepalive_min_ping_s: float = setting(
        5.0, "How often a client may ping without being told to calm down.", low=0.1, high=7200
    )
    keepalive_time_s: float = setting(
        7200.0, "How long a connection may be silent before the server pings its client.", low=1, high=86400
    )
    keepalive_timeout_s: float = setting(
        20.0, "How long the answer to such a ping may take before the connection is closed.", low=0.1, high=86400
    )
    max_connection_age_s: float = setting(
        0.0,
        "Age at which a connection is renewed, so that clients spread over new servers; 0 is never.",
        low=0,
        high=_LONGEST_S,
    )
    max_connection_age_grace_s: float = setting(
        0.0, "How long its calls may go on after that; 0 is until they end.", low=0, high=_LONGEST_S
    )
    max_connection_idle_s: float = setting(
        0.0, "How long a connection may be without calls before it is closed; 0 is for ever.", low=0, high=_LONGEST_S
    )

    tls_cert: Path | None = setting(
        None, "PEM file with the server's certificate chain; turns TLS on, on the control port too.", metavar="FILE"
    )
    tls_key: Path | None = setting(None, "PEM file with its private key.", metavar="FILE")
    tls_client_ca: Path | None = setting(
        None, "PEM file with the roots of callers' certificates; callers without one are refused.", metavar="FILE"
    )
    inference_tokens: Path | None = setting(
        None, "File with the bearer tokens that inference needs, one a line: TOKEN or NAME:TOKEN.", metavar="FILE"
    )
    control_tokens: Path | None = setting(
        None,
        "The same for control: loading models, changing settings. They are good for inference too.",
        metavar="FILE",
    )

    control: bool = setting(True, "Let models be loaded and settings be changed by request.")
    control_on_main_port: bool = setting(False, "Do so on the main port, and have no control port.")
    control_host: str = setting("127.0.0.1", "Address of the control port.")
    control_port: int = setting(8003, "TCP port for control; 0 takes a free one and says which.", low=0, high=65535)

    training_slots: int = setting(
        0,
        "Training runs at a time, by request on the control port; 0 offers no training. Needs PyTorch.",
        low=0,
        high=64,
    )
    training_queue_size: int = setting(16, "Training runs that may wait for a slot.", low=1, high=10_000)
    training_memory_mb: int = setting(
        2048, "Memory that the process of a training run may take, in MiB; 0 is no limit.", low=0, high=2**20
    )
    training_dir: Path | None = setting(
        None,
        "Directory on a local disk for training runs and their checkpoints.  [default: .training in the repository]",
        metavar="DIRECTORY",
    )

    lame_duck_s: float = setting(
        0.0,
        "After SIGTERM, how long to serve on while saying NOT_SERVING, so that load balancers notice first; a "
        "second SIGTERM ends it.",
        low=0,
        high=3600,
    )
    grace_s: float = setting(10.0, "How long running calls may take to finish after that.", low=0, high=3600)

    metrics: bool = setting(True, "Serve Prometheus metrics at /metrics on a port of their own.")
    metrics_host: str = setting("127.0.0.1", "Address to serve metrics on.")
    metrics_port: int = setting(8002, "TCP port for metrics; 0 takes a free one and says which.", low=0, high=65535)

    otel: bool = setting(
        False, "Export a span a call with OpenTelemetry, which is set up by its own variables, OTEL_*."
    )

    log_level: str = setting("info", "At debug, one line a request.", choices=("debug", "info", "warning", "error"))
    log_format: str = setting("auto", "auto: text on a terminal, JSON elsewhere.", choices=("auto", "json", "text"))

    def __post_init__(self) -> None:
        if not self.repository.is_dir():
            raise ConfigError(
                f"repository: {str(self.repository)!r} is no directory; `mnist1d train` publishes a model and makes one"
            )
        for declared in fields(self):
            if declared.metadata:
                _check(declared.name, getattr(self, declared.name), declared.metadata)
        for name in ("host", "metrics_host", "control_host"):
            if not getattr(self, name):
                raise ConfigError(f"{name}: got '', expected an address")
        if self.otel and not _is_installed("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.grpc"):
            raise ConfigError("otel: OpenTelemetry is not installed: pip install -e '.[otel]' in the project's folder")
        self._check_tls()
        if self.control_on_main_port and not self.control:
            raise ConfigError("control_on_main_port: needs control, which is turned off")
        self._check_training()
        try:
            VersionPolicy.parse(self.version_policy)
        except PolicyError as error:
            raise ConfigError(f"version_policy: {error}") from error
        try:
            names = start_names(self.load_model)
        except ValueError as error:
            raise ConfigError(f"load_model: {error}") from error
        if names and self.model_control_mode != Mode.EXPLICIT.value:
            raise ConfigError(
                f"load_model: got {self.load_model!r}, which needs model_control_mode {Mode.EXPLICIT.value}; in mode "
                f"{self.model_control_mode} every model is loaded"
            )

    @property
    def address(self) -> str:
        """``host:port``, with the brackets that IPv6 needs."""
        return join_address(self.host, self.port)

    @property
    def control_address(self) -> str:
        """The control port's address as ``host:port``, with the brackets that IPv6 needs."""
        return join_address(self.control_host, self.control_port)

    def to_dict(self) -> Mapping[str, Any]:
        """The settings as plain values, for ``--print-config`` and logs."""
        values = {declared.name: getattr(self, declared.name) for declared in fields(self)}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ServerConfig:
        """Make a configuration from the result of `to_dict`."""
        paths = {declared.name for declared in fields(cls) if "Path" in str(declared.type)}
        given: dict[str, Any] = {
            name: Path(value) if name in paths and value is not None else value for name, value in values.items()
        }
        return cls(**given)

    def _check_training(self) -> None:
        if not self.training_slots:
            return
        if not self.control:
            raise ConfigError("training_slots: needs control, which is turned off")
        missing = [module for module in TRAINING_MODULES if not _is_installed(module)]
        if missing:
            raise ConfigError(
                f"training_slots: training needs {missing[0]}, which is not installed: "
                "pip install -e '.[train]' in the project's folder"
            )

    def _check_tls(self) -> None:
        for name, needed in (("tls_cert", "tls_key"), ("tls_key", "tls_cert"), ("tls_client_ca", "tls_cert")):
            if getattr(self, name) is not None and getattr(self, needed) is None:
                raise ConfigError(f"{name}: needs {needed}, which is not set")


def join_address(host: str, port: int) -> str:
    """``host:port``, with the brackets that IPv6 needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_installed(*modules: str) -> bool:
    try:
        return all(importlib.util.find_spec(module) is not None for module in modules)
    except ModuleNotFoundError:  # a package above it is missing
        return False


def _check(name: str, value: Any, metadata: Mapping[str, Any]) -> None:  # noqa: ANN401 - any field's value
    low, high, choices = metadata["low"], metadata["high"], metadata["choices"]
    if low is not None and not low <= value <= high:
        raise ConfigError(f"{name}: got {value!r}, expected {low} to {high}")
    if choices and value not in choices:
        raise ConfigError(f"{name}: got {value!r}, expected one of {', '.join(choices)}")
