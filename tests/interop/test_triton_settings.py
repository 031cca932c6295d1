"""tritonclient changes what a server logs and traces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import publish_affine
from tests.interop.clients import Failure
from tests.interop.conftest import triton_client
from tests.processes import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.interop.clients import ClientProcess
    from tests.processes import ServerProcess

OFF = {
    "trace_level": ["OFF"],
    "trace_rate": ["1"],
    "trace_count": ["-1"],
    "trace_mode": ["opentelemetry"],
    "trace_file": [""],
    "log_frequency": ["0"],
}


@pytest.fixture(scope="module")
def own_server(tmp_path_factory) -> Iterator[ServerProcess]:
    repository = tmp_path_factory.mktemp("settings")
    publish_affine(repository)
    with serve(repository, tmp_path_factory.mktemp("settings_log") / "log") as running:
        yield running


@pytest.fixture(params=["sync", "aio"])
def client(request, own_server) -> Iterator[ClientProcess]:
    with triton_client(request.param, own_server.port) as running:
        yield running


def told(answer) -> dict:
    assert not isinstance(answer, Failure), answer
    return {name: next(iter(value.values()), None) for name, value in answer["settings"].items()}


def test_log_settings(client, own_server) -> None:
    before = told(client.ask("get_log_settings"))
    assert before == {
        "log_file": "",
        "log_info": True,
        "log_warning": True,
        "log_error": True,
        "log_verbose_level": 0,
        "log_format": "default",
    }
    seen = len(own_server.lines())
    assert told(client.ask("update_log_settings", settings={"log_verbose_level": 1})) == {
        **before,
        "log_verbose_level": 1,
    }
    assert client.ask("is_server_live") is True
    assert told(client.ask("update_log_settings", settings={"log_verbose_level": 0})) == before
    assert client.ask("is_server_live") is True
    methods = [str(line.get("method")).rpartition("/")[2] for line in own_server.lines()[seen:]]
    assert methods.count("ServerLive") == 1
    assert client.ask("update_log_settings", settings={"log_file": "elsewhere"}) == Failure(
        "UNIMPLEMENTED",
        "log file location can not be updated through network protocol: this server logs to its standard error",
    )


@pytest.mark.parametrize("model", [None, "affine"])
def test_trace_settings_without_otel(client, model) -> None:
    assert told(client.ask("get_trace_settings", model_name=model)) == OFF
    assert told(client.ask("update_trace_settings", model_name=model, settings={"trace_level": "OFF"})) == OFF
    assert told(client.ask("update_trace_settings", model_name=model, settings={"trace_rate": None})) == OFF
    assert client.ask("update_trace_settings", model_name=model, settings={"trace_level": ["TIMESTAMPS"]}) == Failure(
        "UNIMPLEMENTED", "tracing is off: this server was started without --otel"
    )


def test_trace_settings_of_an_unknown_model(client) -> None:
    unknown = client.ask("get_trace_settings", model_name="nope")
    assert unknown == Failure("NOT_FOUND", "Request for unknown model: 'nope' is not found")
