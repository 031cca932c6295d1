"""Triton's LogSettings and TraceSetting: read and change what is logged and traced while the server runs.

Settings without a meaning here are refused with a reason; none is accepted and then ignored. A request changes all
settings that it names, or nothing.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from service import logs
from service.errors import InvalidRequest, Unsupported
from service.pb import open_inference_pb2 as pb
from service.rpc.methods import Unary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.message import Message

    from service.observability.trace_control import TraceControl
    from service.rpc.methods import CallContext

_log = logging.getLogger(__name__)

_SWITCHES = {"log_info": "info", "log_warning": "warning", "log_error": "error"}
_LOG_SETTINGS = ("log_file", "log_info", "log_warning", "log_error", "log_verbose_level", "log_format")
_LOG_FORMATS = ("default", "ISO8601")
_TRACE_LEVELS = {"OFF": False, "TIMESTAMPS": True}
_FILE_SETTINGS = ("trace_file", "log_frequency")
_TRACE_SETTINGS = (*_FILE_SETTINGS, "trace_level", "trace_rate", "trace_count")
_MOST = 2**31 - 1


class SettingsServicer:
    """Reads and changes the settings of the process's log output and the server's trace control."""

    def __init__(self, traces: TraceControl, check_model: Callable[[str], object]) -> None:
        """``check_model(name)`` raises ModelNotFound for an unknown model."""
        self._traces = traces
        self._check_model = check_model
        self._log_format = _LOG_FORMATS[0]

    async def log_settings(self, request: pb.LogSettingsRequest, context: CallContext) -> pb.LogSettingsResponse:
        """Change the settings that the request names; answer with the resulting values of all settings."""
        output = logs.current_output()
        if request.settings:
            _check_names(request.settings, _LOG_SETTINGS)
            if output is None:
                raise Unsupported("the program around this server does its own logging")
            self._change_logs(output, request, context)
        switches = output.switches if output is not None else logs.Switches.of_level(logging.getLogger().level)
        value = pb.LogSettingsResponse.SettingValue
        return pb.LogSettingsResponse(
            settings={
                "log_file": value(string_param=""),
                **{name: value(bool_param=getattr(switches, switch)) for name, switch in _SWITCHES.items()},
                "log_verbose_level": value(uint32_param=switches.verbose_level),
                "log_format": value(string_param=self._log_format),
            }
        )

    async def trace_setting(self, request: pb.TraceSettingRequest, context: CallContext) -> pb.TraceSettingResponse:
        """Change the settings that the request names, of a model or the server; answer with all settings."""
        if request.model_name:
            self._check_model(request.model_name)
        if request.settings:
            _check_names(request.settings, _TRACE_SETTINGS)
            changes = self._trace_changes(request)
            self._traces.update(request.model_name, changes)
            _log.info(
                "trace settings changed", extra={"model": request.model_name or None, **changes, "peer": context.peer}
            )
        settings = self._traces.settings(request.model_name)
        values = {
            "trace_level": "TIMESTAMPS" if settings.is_on else "OFF",
            "trace_rate": str(settings.rate),
            "trace_count": str(settings.count),
            "trace_mode": "opentelemetry",
            "trace_file": "",
            "log_frequency": "0",
        }
        value = pb.TraceSettingResponse.SettingValue
        return pb.TraceSettingResponse(settings={name: value(value=[text]) for name, text in values.items()})

    def methods(self) -> tuple[Unary, ...]:
        """This servicer's rows of the method table."""
        path = "/inference.GRPCInferenceService/"
        return (
            Unary(
                f"{path}LogSettings", pb.LogSettingsRequest.FromString, _serialize, self.log_settings, changes=_changes
            ),
            Unary(
                f"{path}TraceSetting",
                pb.TraceSettingRequest.FromString,
                _serialize,
                self.trace_setting,
                changes=_changes,
            ),
        )

    def _change_logs(self, output: logs.LogOutput, request: pb.LogSettingsRequest, context: CallContext) -> None:
        changes: dict[str, Any] = {}
        log_format = self._log_format
        for name, value in request.settings.items():
            if name in _SWITCHES:
                changes[_SWITCHES[name]] = _param(name, value, "bool_param", "boolean")
            elif name == "log_verbose_level":
                changes["verbose_level"] = _param(name, value, "uint32_param", "uint32")
            elif name == "log_file":
                if _param(name, value, "string_param", "string"):
                    raise Unsupported(
                        "log file location can not be updated through network protocol: this server logs to its "
                        "standard error"
                    )
            else:
                log_format = _param(name, value, "string_param", "string")
                if log_format not in _LOG_FORMATS:
                    raise InvalidRequest(
                        f"log_format: got {log_format!r}, expected 'default' or 'ISO8601', which are the same here; "
                        "--log-format chooses between JSON and text"
                    )
        before, after = output.switches, replace(output.switches, **changes)
        # Log the change under those settings, old or new, with which info lines are written.
        if not before.info:
            output.switches = after
        _log.info("log settings changed", extra={**changes, "log_format": log_format, "peer": context.peer})
        output.switches = after
        self._log_format = log_format

    def _trace_changes(self, request: pb.TraceSettingRequest) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        for name, value in request.settings.items():
            values = list(value.value)
            if name in _FILE_SETTINGS:
                if values and values != ["0" if name == "log_frequency" else ""]:
                    raise Unsupported(f"{name}: spans are exported with OpenTelemetry, never written to a file")
            elif name == "trace_level":
                changes["is_on"] = _level(values) if values else None
            else:
                low = 1 if name == "trace_rate" else -1
                changes[name.removeprefix("trace_")] = _whole(name, values, low) if values else None
        current = self._traces.settings()
        is_change = any(value not in (None, getattr(current, name)) for name, value in changes.items())
        if is_change and not self._traces.is_available:
            raise Unsupported("tracing is off: this server was started without --otel")
        return changes


def _changes(request: pb.LogSettingsRequest | pb.TraceSettingRequest) -> bool:
    return bool(request.settings)


def _check_names(given: Iterable[str], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise InvalidRequest(f"setting {name!r} is unknown, expected one of {', '.join(known)}")


def _param(name: str, value: pb.LogSettingsRequest.SettingValue, field: str, expected: str) -> Any:  # noqa: ANN401 - the field's type
    if value.WhichOneof("parameter_choice") != field:
        raise InvalidRequest(f"expect {expected} for '{name}'")
    return getattr(value, field)


def _level(values: list[str]) -> bool:
    if "TENSORS" in values:
        raise Unsupported("trace_level: TENSORS would put the contents of requests into traces; this server never does")
    found = {_TRACE_LEVELS.get(value) for value in values}
    if len(found) != 1 or None in found:
        raise InvalidRequest(f"trace_level: got {', '.join(values)!r}, expected OFF or TIMESTAMPS")
    return found == {True}


def _whole(name: str, values: list[str], low: int) -> int:
    text = values[0].strip() if len(values) == 1 else ""
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdecimal() and len(digits) < 12 and low <= int(text) <= _MOST:
        return int(text)
    raise InvalidRequest(f"{name}: got {', '.join(values)!r}, expected a whole number from {low} to {_MOST}")


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
