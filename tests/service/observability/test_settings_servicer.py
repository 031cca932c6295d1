"""Triton's own client changes what is logged and traced; what cannot be changed is refused, and says why."""

from __future__ import annotations

import io
import json
import logging

import grpc
import pytest

from service import logs
from service.observability.settings_servicer import SettingsServicer
from service.observability.trace_control import TraceControl
from service.pb import open_inference_pb2 as pb
from tests.conftest import publish_affine
from tests.service.conftest import affine_request

LogValue = pb.LogSettingsRequest.SettingValue
DEFAULT_LOGS = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}
DEFAULT_TRACES = {
    "trace_level": "TIMESTAMPS",
    "trace_rate": "1",
    "trace_count": "-1",
    "trace_mode": "opentelemetry",
    "trace_file": "",
    "log_frequency": "0",
}


@pytest.fixture
def lines():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.set_up("info", as_json=True, stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:] = handlers
    root.setLevel(level)


def log_request(**settings) -> pb.LogSettingsRequest:
    kinds = {bool: "bool_param", int: "uint32_param", str: "string_param"}
    return pb.LogSettingsRequest(
        settings={
            name: LogValue(**{kinds[type(value)]: value}) if value is not None else LogValue()
            for name, value in settings.items()
        }
    )


def trace_request(model: str = "", **settings) -> pb.TraceSettingRequest:
    value = pb.TraceSettingRequest.SettingValue
    given = {name: [text] if isinstance(text, str) else text for name, text in settings.items()}
    return pb.TraceSettingRequest(
        model_name=model, settings={name: value(value=texts or []) for name, texts in given.items()}
    )


def told(response) -> dict:
    return {
        name: next(iter(value.value))
        if hasattr(value, "value")
        else getattr(value, value.WhichOneof("parameter_choice"))
        for name, value in response.settings.items()
    }


async def refused(call) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return failure.value.code().name, failure.value.details()


async def test_log_settings_are_read_changed_and_obeyed(repository, serving, connect, lines) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        ask = stubs.inference.LogSettings
        assert told(await ask(pb.LogSettingsRequest())) == DEFAULT_LOGS
        await stubs.inference.ModelInfer(affine_request())
        changed = await ask(log_request(log_verbose_level=1, log_info=False, log_format="ISO8601"))
        assert told(changed) == {**DEFAULT_LOGS, "log_verbose_level": 1, "log_info": False, "log_format": "ISO8601"}
        await stubs.inference.ModelInfer(affine_request())
        logging.getLogger("test").info("not written")
        assert told(await ask(log_request(log_verbose_level=0, log_info=True, log_file=""))) == {
            **DEFAULT_LOGS,
            "log_format": "ISO8601",
        }
        await stubs.inference.ModelInfer(affine_request())
    written = [line["message"] for line in lines() if line.get("method", "ModelInfer").endswith("ModelInfer")]
    assert written.count("request") == 1
    assert written.count("log settings changed") == 2
    assert "not written" not in written


@pytest.mark.parametrize(
    ("settings", "code", "says"),
    [
        ({"log_file": "/etc/passwd"}, "UNIMPLEMENTED", "log file location can not be updated through network protocol"),
        ({"log_info": 1}, "INVALID_ARGUMENT", "expect boolean for 'log_info'"),
        ({"log_warning": None}, "INVALID_ARGUMENT", "expect boolean for 'log_warning'"),
        ({"log_verbose_level": True}, "INVALID_ARGUMENT", "expect uint32 for 'log_verbose_level'"),
        ({"log_format": "xml"}, "INVALID_ARGUMENT", "log_format: got 'xml', expected 'default' or 'ISO8601'"),
        ({"log_format": 1}, "INVALID_ARGUMENT", "expect string for 'log_format'"),
        ({"log_everything": True}, "INVALID_ARGUMENT", "setting 'log_everything' is unknown, expected one of log_file"),
    ],
)
async def test_a_log_setting_that_cannot_be_is_refused_with_all_others(
    repository, serving, connect, lines, settings, code, says
) -> None:
    async with serving(repository) as server, connect(server) as stubs:
        got = await refused(stubs.inference.LogSettings(log_request(log_error=False, **settings)))
        assert got[0] == code
        assert says in got[1]
        assert told(await stubs.inference.LogSettings(pb.LogSettingsRequest())) == DEFAULT_LOGS


async def test_a_program_with_logs_of_its_own_keeps_them(repository, serving, connect) -> None:
    async with serving(repository) as server, connect(server) as stubs:
        code, says = await refused(stubs.inference.LogSettings(log_request(log_info=False)))
        assert (code, says) == ("UNIMPLEMENTED", "the program around this server does its own logging")
        assert set(told(await stubs.inference.LogSettings(pb.LogSettingsRequest()))) == set(DEFAULT_LOGS)


async def test_without_otel_tracing_is_off_and_says_how_to_have_it(repository, serving, connect) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        ask = stubs.inference.TraceSetting
        off = {**DEFAULT_TRACES, "trace_level": "OFF"}
        assert told(await ask(pb.TraceSettingRequest())) == off
        assert told(await ask(trace_request("affine", trace_level="OFF", trace_rate="1", trace_count=None))) == off
        for change in ({"trace_level": "TIMESTAMPS"}, {"trace_rate": "5"}, {"trace_count": "5"}):
            assert await refused(ask(trace_request(**change))) == (
                "UNIMPLEMENTED",
                "tracing is off: this server was started without --otel",
            )
        about = await stubs.inference.ServerMetadata(pb.ServerMetadataRequest())
        assert "logging" in about.extensions
        assert "trace" not in about.extensions


class Nowhere:
    peer = "test"
    metadata = ()


def servicer() -> SettingsServicer:
    def check(name: str) -> None:
        if name != "m":
            raise KeyError(name)

    return SettingsServicer(TraceControl(is_available=True), check)


async def test_trace_settings_of_the_server_and_of_a_model() -> None:
    settings = servicer()

    async def ask(*args, **kwargs):
        return told(await settings.trace_setting(trace_request(*args, **kwargs), Nowhere()))

    assert await ask() == DEFAULT_TRACES
    assert await ask("m", trace_rate="10") == {**DEFAULT_TRACES, "trace_rate": "10"}
    assert await ask() == DEFAULT_TRACES
    changed = {**DEFAULT_TRACES, "trace_level": "OFF", "trace_count": "7"}
    assert await ask(trace_level="OFF", trace_count="7", trace_file="", log_frequency="0") == changed
    assert await ask("m") == {**changed, "trace_rate": "10"}
    assert await ask("m", trace_rate=None, trace_level="TIMESTAMPS") == {**changed, "trace_level": "TIMESTAMPS"}
    assert await ask(trace_level=None, trace_count=None) == DEFAULT_TRACES


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"trace_level": "TENSORS"}, "Unsupported", "contents of requests"),
        ({"trace_level": ["TIMESTAMPS", "TENSORS"]}, "Unsupported", "contents of requests"),
        ({"trace_level": ["TIMESTAMPS", "OFF"]}, "InvalidRequest", "expected OFF or TIMESTAMPS"),
        ({"trace_level": "MAX"}, "InvalidRequest", "trace_level: got 'MAX', expected OFF or TIMESTAMPS"),
        ({"trace_rate": "0"}, "InvalidRequest", "trace_rate: got '0', expected a whole number from 1 to 2147483647"),
        ({"trace_rate": "often"}, "InvalidRequest", "trace_rate: got 'often'"),
        ({"trace_rate": ["1", "2"]}, "InvalidRequest", "trace_rate: got '1, 2'"),
        ({"trace_rate": "9" * 5000}, "InvalidRequest", "trace_rate: got"),
        ({"trace_rate": "\u0661"}, "InvalidRequest", "trace_rate: got"),
        ({"trace_count": "-2"}, "InvalidRequest", "expected a whole number from -1"),
        ({"trace_count": "--1"}, "InvalidRequest", "trace_count: got '--1'"),
        ({"trace_file": "/tmp/x"}, "Unsupported", "trace_file: spans are exported with OpenTelemetry"),  # noqa: S108 - refused
        ({"log_frequency": "50"}, "Unsupported", "log_frequency: spans are exported with OpenTelemetry"),
        ({"trace_mode": "triton"}, "InvalidRequest", "setting 'trace_mode' is unknown"),
    ],
)
async def test_a_trace_setting_that_cannot_be_is_refused_with_all_others(changes, error, says) -> None:
    settings = servicer()
    with pytest.raises(Exception, match=r".") as failure:
        await settings.trace_setting(trace_request(**{"trace_count": "3", **changes}), Nowhere())
    assert type(failure.value).__name__ == error
    assert says in str(failure.value)
    assert told(await settings.trace_setting(trace_request(), Nowhere())) == DEFAULT_TRACES


async def test_an_unknown_model_is_not_found(repository, serving, connect) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        code, says = await refused(stubs.inference.TraceSetting(trace_request("nope")))
        assert (code, says) == ("NOT_FOUND", "Request for unknown model: 'nope' is not found")


def test_a_row_tells_which_requests_change_something() -> None:
    rows = {row.path.rpartition("/")[2]: row for row in servicer().methods()}
    assert [rows["LogSettings"].changes(request) for request in (log_request(), log_request(log_info=True))] == [
        False,
        True,
    ]
    assert [rows["TraceSetting"].changes(r) for r in (trace_request("m"), trace_request(trace_rate="2"))] == [
        False,
        True,
    ]
