"""The documentation is executed: links lead somewhere, commands exist, and the README's calls work as printed."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import grpc
import pytest
from click.testing import CliRunner

from service.cli import COMMANDS, main
from service.cli.commands.up import NETWORKS
from service.client import InferenceClient
from service.client.connection import ConnectionOptions
from service.config import ServerConfig
from service.training import failures
from service.transport.http2 import abuse, connection, request_heads, stream
from tests.reflected import Reflected

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text()
TRANSPORT = (ROOT / "docs" / "transport.md").read_text()
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_links_within_the_project_lead_somewhere(document) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)", text):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_every_file_that_is_named_exists(document) -> None:
    for path in re.findall(
        r"`((?:models|service|tests|benchmarks|protos|docs|examples)/[\w./]+\.\w+)`", document.read_text()
    ):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_every_test_that_is_named_exists(document) -> None:
    for name, test, case in re.findall(r"`([\w/]+\.py)::(\w+)(?:\[([^`]+)\])?`", document.read_text()):
        (found,) = [path for path in (ROOT / "tests").rglob(name.rpartition("/")[2]) if str(path).endswith(name)]
        text = found.read_text()
        assert f"def {test}(" in text, f"{name}::{test}"
        assert not case or f'"{case}": (' in text, f"{name}::{test}[{case}]"


def test_every_method_of_the_contracts_is_in_the_protocols_tables() -> None:
    methods = [
        name
        for proto in sorted((ROOT / "protos").glob("*.proto"))
        for name in re.findall(r"^  rpc (\w+)\(", proto.read_text(), re.MULTILINE)
    ]
    assert len(methods) == 25
    named = " ".join(row.split("|")[1] for row in PROTOCOL.splitlines() if row.startswith("| "))
    assert [name for name in methods if not re.search(rf"\b{name}\b", named)] == []


def test_every_row_of_the_protocols_tables_names_the_test_that_shows_it() -> None:
    rows = [line for line in PROTOCOL.splitlines() if re.match(r"\| (?!.*shown by \|$)", line)]
    assert len(rows) > 60
    for row in rows:
        assert re.search(r"`[\w/]+\.py::\w+[^`]*` \|$", row), row


@pytest.mark.parametrize("document", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_every_make_target_and_command_line_that_is_shown_exists(document) -> None:
    text = document.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE):
        assert target in targets, target
    for line in re.findall(r"(?:^|`|/)mnist1d ([a-z]+[^`\n]*)", text, re.MULTILINE):
        words = shlex.split(line.split("  ")[0].partition("#")[0])
        assert words[0] in COMMANDS, line
        is_group = isinstance(main.get_command(None, words[0]), click.Group)
        described = CliRunner().invoke(main, [*words[: 2 if is_group and len(words) > 1 else 1], "--help"]).output
        assert "No such command" not in described, line
        for option in (word for word in words if word.startswith("--")):
            assert option in described, f"{line}: no {option}"


def test_the_examples_of_a_gate_publish_under_a_name_that_up_does_not_serve() -> None:
    """What `mnist1d up` trains holds nothing out, so that no run could be compared with it."""
    texts = [*(path.read_text() for path in DOCUMENTS), CliRunner().invoke(main, ["runs", "--help"]).output]
    names = []
    for text in texts:
        for line in re.findall(r"mnist1d runs create (.*--gate serving.*)", text):
            names += re.findall(r"--name (\S+)", line) or [""]
        for call in re.findall(r"client\.create\(([^)]*gate=\"serving\"[^)]*)\)", text):
            names += re.findall(r"publish_name=\"([^\"]+)\"", call) or [""]
    assert len(names) == 3
    assert set(names).isdisjoint(("", *(f"mnist1d-{network}" for network in NETWORKS)))


def test_the_limits_of_a_connection_are_as_they_are_described() -> None:
    rows = [line.split(" | ") for line in TRANSPORT.partition("## Limits")[2].splitlines() if line.startswith("| ")]
    settings = {each.name: each.default for each in dataclasses.fields(ServerConfig)}
    modules = {"abuse": abuse, "connection": connection, "request_heads": request_heads, "stream": stream}
    named = set()
    for _, default, where, _ in rows[1:]:
        if option := re.fullmatch(r"`--([a-z-]+)`", where):
            name = option[1].replace("-", "_")
            value = settings[name]
        else:
            module, _, name = where.strip("`").partition(".")
            value = getattr(modules[module], name)
        assert default == limit_in_words(name, value), where
        named.add(where.strip("`"))
    constants = {f"abuse.{name}" for name in vars(abuse) if name.isupper()}
    assert constants <= named


def limit_in_words(name: str, value: object) -> str:
    if isinstance(value, abuse.Allowance):
        return f"{value.burst:,} at once, {value.per_s:g} a second"
    if name.lower().endswith("_s"):
        return f"{value:,g} s" if value else "none"
    if name.lower().endswith(("_bytes", "_window", "_ahead")):
        return f"{value // 2**20} MiB" if value % 2**20 == 0 else f"{value // 2**10} KiB"
    return f"{value:,}"


def test_every_reason_for_which_a_run_ends_is_described() -> None:
    text = (ROOT / "docs" / "training-service.md").read_text().partition("## How runs end")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    described = [reason for row in rows for reason in row[1].split(", ")]
    assert sorted(described) == sorted((failures.CANCELLED, *failures.REASONS))


def test_what_is_said_to_be_installed_can_be_from_a_checkout() -> None:
    """The project is in no package index: an extra is installed from its folder."""
    sources = [path for package in ("models", "service", "docs") for path in (ROOT / package).rglob("*")]
    texts = [path.read_text() for path in (*sources, *ROOT.glob("*.md")) if path.suffix in (".py", ".md")]
    hints = [hint for text in texts for hint in re.findall(r"pip install (?:-e )?'([^'\n]*\[[^'\n]+\])'", text)]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    of_ours = [names.removesuffix("]") for folder, _, names in (hint.partition("[") for hint in hints) if folder == "."]
    assert len(of_ours) == len(hints) - hints.count("tritonclient[grpc]") >= 7
    assert {name for names in of_ours for name in names.split(",")} <= set(extras)


def test_every_command_is_described() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    for name in COMMANDS:
        assert f"`mnist1d {name}" in text


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 120


def test_the_python_examples_run_as_printed(server) -> None:
    examples = blocks(README, "python")
    assert len(examples) == 2
    printed = []
    for example in examples:
        program = example.replace("127.0.0.1:8001", f"127.0.0.1:{server.port}")
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert re.fullmatch(r"1 \[(\d) \1\]\n", printed[0])
    assert len(re.findall(r"-?\d+\.\d+", printed[1])) == 20


def test_every_call_of_the_client_is_described_with_arguments_that_exist() -> None:
    text = (ROOT / "docs" / "client.md").read_text()
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `")]
    described = set()
    for name, arguments in re.findall(r"`(\w+)\(([^`]*)\)`", "".join(rows)):
        described.add(name)
        known = inspect.signature(getattr(InferenceClient, name)).parameters
        assert set(re.findall(r"(\w+)=", arguments)) <= set(known), name
    calls = {name for name, value in vars(InferenceClient).items() if callable(value) and not name.startswith("_")}
    assert described == calls - {"close"}
    (example,) = blocks(text, "python")
    settings = set(re.findall(r"^    (\w+)=", example, re.MULTILINE))
    assert settings <= {*inspect.signature(InferenceClient).parameters, *ConnectionOptions.__annotations__}
    assert len(settings) >= 5


def test_the_example_for_asyncio_runs(server) -> None:
    command = [sys.executable, str(ROOT / "examples" / "async_client.py"), f"127.0.0.1:{server.port}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "100 answers from version 1"
    assert re.fullmatch(r"row 0: class \d \(\d\.\d\d\) before \d \(\d\.\d\d\)", lines[1])
    assert re.fullmatch(r"too short: .*axis 1 must be 40", lines[2])
    assert lines[3].startswith("row 1: class ")
    assert lines[4].startswith("NOT_FOUND (MODEL_NOT_FOUND): ")
    assert re.fullmatch(r"\d+ rows in \d+ runs, \d+ us each", lines[5])


def test_the_grpcurl_examples_do_what_grpcurl_would_do(server) -> None:
    lines = [shlex.split(line) for line in "".join(blocks(README, "sh")).splitlines() if line.startswith("grpcurl")]
    assert len(lines) == 3
    answers = []
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        reflected = Reflected(channel)
        for words in lines:
            assert words[1] == "-plaintext"
            if words[-1] == "list":
                answers.append(reflected.list())
                continue
            text = (ROOT / words[-1]).read_text() if words[-2] == "<" else words[words.index("-d") + 1]
            path = words[words.index("127.0.0.1:8001") + 1]
            answers.append(reflected.call(path, text))
    assert "inference.GRPCInferenceService" in answers[0]
    assert answers[1] == {"status": "SERVING"}
    assert answers[2]["id"] == "example-1"
    assert len(answers[2]["outputs"]) == 1
    assert sum(answers[2]["outputs"][0]["contents"]["fp32Contents"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("path", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_no_line_of_the_documentation_is_left_unfinished(path) -> None:
    assert not re.search(r"\b(TODO|FIXME|XXX|TBD)\b", path.read_text())
