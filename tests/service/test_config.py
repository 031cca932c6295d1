from __future__ import annotations

import json

import pytest

from service.config import ConfigError, ServerConfig


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("port", -1, "port: got -1, expected 0 to 65535"),
        ("port", 65536, "port: got 65536, expected 0 to 65535"),
        ("max_message_bytes", 10, "max_message_bytes: got 10, expected 1024 to 2147483647"),
        ("max_metadata_bytes", 0, "max_metadata_bytes: got 0"),
        ("keepalive_min_ping_s", 0, "keepalive_min_ping_s: got 0"),
        ("grace_s", -1.0, "grace_s: got -1.0, expected 0 to 3600"),
        ("grace_s", float("nan"), "grace_s: got nan"),
        ("host", "", "host: got ''"),
        ("metrics_host", "", "metrics_host: got ''"),
        ("repository_poll_s", 0, "repository_poll_s: got 0, expected 0.01 to 86400"),
        ("model_control_mode", "manual", "model_control_mode: got 'manual', expected one of none, poll, explicit"),
        ("load_model", "a", "load_model: got 'a', which needs model_control_mode explicit; in mode poll every model"),
        ("load_model", "*,a", "load_model: got '*,a', expected '*' alone"),
        ("metrics_port", 65536, "metrics_port: got 65536, expected 0 to 65535"),
    ],
)
def test_an_unusable_setting_is_named_with_its_bound(tmp_path, setting, value, says) -> None:
    with pytest.raises(ConfigError) as failure:
        ServerConfig(repository=tmp_path, **{setting: value})
    assert says in str(failure.value)


def test_a_repository_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match="is no directory; `mnist1d train`"):
        ServerConfig(repository=tmp_path / "nowhere")


@pytest.mark.parametrize("missing", ["opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.grpc"])
def test_otel_without_its_packages_says_what_to_install_and_leaves_with_two(tmp_path, monkeypatch, missing) -> None:
    from click.testing import CliRunner

    from service.cli import main

    def find_spec(name: str):
        if name == missing:
            return None
        if name.startswith(missing):
            raise ModuleNotFoundError(name)
        return name

    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    done = CliRunner().invoke(main, ["serve", str(tmp_path), "--otel", "--print-config"])
    assert done.exit_code == 2
    assert "otel: OpenTelemetry is not installed: pip install -e '.[otel]' in the project's folder" in done.output
    assert ServerConfig(repository=tmp_path).otel is False


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", "127.0.0.1:8001"), ("::1", "[::1]:8001"), ("localhost", "localhost:8001")]
)
def test_the_address_takes_ipv6(tmp_path, host, address) -> None:
    assert ServerConfig(repository=tmp_path, host=host).address == address


def test_a_config_can_be_logged_as_json(tmp_path) -> None:
    text = json.dumps(ServerConfig(repository=tmp_path).to_dict())
    assert json.loads(text)["version_policy"] == "latest:1"


def test_on_a_narrow_terminal_the_settings_are_a_table_without_their_variables(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from service.cli import main
    from service.cli.display import console

    monkeypatch.setattr(console, "_PIPE_COLUMNS", 80)
    printed = CliRunner().invoke(main, ["serve", str(tmp_path), "--print-config", "--grace-s", "3"]).output
    (row,) = (line.split() for line in printed.splitlines() if line.startswith(" grace_s "))
    assert row == ["grace_s", "3.0", "flag"]
    assert "MNIST1D_SERVE" not in printed


def test_every_setting_is_an_option_an_environment_variable_and_in_print_config(tmp_path, monkeypatch) -> None:
    from dataclasses import fields

    from click.testing import CliRunner

    from service.cli import main

    names = [declared.name for declared in fields(ServerConfig) if declared.name != "repository"]
    helped = CliRunner().invoke(main, ["serve", "--help"]).output
    for name in names:
        assert f"--{name.replace('_', '-')}" in helped
    line = ["serve", str(tmp_path), "--print-config", "--grace-s", "3"]
    variables = {"MNIST1D_SERVE_LAME_DUCK_S": "1.5"}
    rows = json.loads(CliRunner(env=variables).invoke(main, [*line, "--json"], auto_envvar_prefix="MNIST1D").output)[
        "settings"
    ]
    told = {row["setting"]: (row["value"], row["from"]) for row in rows}
    assert list(told) == names
    assert told["grace_s"] == (3.0, "flag")
    assert told["lame_duck_s"] == (1.5, "environment")
    assert told["port"] == (8001, "default")
    table = CliRunner(env=variables).invoke(main, line, auto_envvar_prefix="MNIST1D").output
    assert "MNIST1D_SERVE_LAME_DUCK_S" in table
