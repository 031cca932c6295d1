"""Who is compared, and how each is started."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

from benchmarks.comparison import environments
from benchmarks.comparison.environments import HERE, ROOT, Absent
from benchmarks.comparison.servers import Command, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from benchmarks.comparison.questions import Questions

    Start = Callable[[Questions, Path, int], Command]

TITLES = {
    "http2": "ours, http2",
    "http2-2": "ours, http2, 2 workers",
    "grpcio": "ours, grpcio",
    "plain": "plain grpcio server",
    "plain-typed": "plain grpcio server, typed contents",
    "mlserver": "MLServer",
    "kserve": "KServe",
    "echo": "C++ gRPC, no-op echo",
    "null": "null server",
}
"""By key, in the order of the report."""

_HERE = {"PYTHONPATH": str(ROOT)}


@dataclass(frozen=True)
class Contender:
    """A server that can be started here."""

    key: str
    version: str
    start: Start
    """Of the model, a folder of its own, and its port on loopback."""
    loads: str = "ABTSCDH"
    """The keys of those that it gets."""
    answers: Literal["model", "request", "zeros"] = "model"
    typed: bool = False
    exact: bool = False
    """Whether its numbers must be onnxruntime's, bit for bit."""

    @property
    def title(self) -> str:
        """For people."""
        return TITLES[self.key]


def contenders(keys: Iterable[str], *, install: bool) -> tuple[list[Contender], dict[str, str]]:
    """Those that can be started here, and for the others why not, by key.

    ``install``: make what is missing (virtual environments, the compiled echo).
    """
    found, absent = [], {}
    for key in keys:
        try:
            found.append(_MAKERS[key](install))
        except Absent as error:
            absent[key] = str(error)
    return found, absent


def _ours(key: str, *options: str, loads: str = "ABTSCDH") -> Contender:
    for option in options:
        if option.startswith("--") and option not in _serve_help():
            raise Absent(f"`mnist1d serve` has no {option}")

    def start(asked: Questions, folder: Path, port: int) -> Command:
        del folder
        arguments = [sys.executable, "-m", "service.cli", "serve", str(asked.repository), "--port", str(port)]
        arguments += ["--metrics-port", "0", "--control-port", "0", "--log-level", "warning", *options]
        return Command(arguments, _HERE)

    return Contender(key, version("mnist1d-service"), start, loads, exact=True)


def _plain(key: str, *, typed: bool, loads: str) -> Contender:
    def start(asked: Questions, folder: Path, port: int) -> Command:
        del folder
        arguments = [sys.executable, "-m", "benchmarks.comparison.plain_grpcio_server", str(asked.path)]
        return Command([*arguments, "--port", str(port), "--model", asked.name], _HERE)

    return Contender(key, f"grpcio {version('grpcio')}", start, loads, typed=typed)


def _mlserver(install: bool) -> Contender:
    python = environments.python_with("mlserver", install=install)

    def start(asked: Questions, folder: Path, port: int) -> Command:
        shutil.copy(HERE / "mlserver_runtime.py", folder)
        model = {
            "name": asked.name,
            "implementation": "mlserver_runtime.OnnxRuntime",
            "parameters": {"uri": str(asked.path.resolve()), "version": asked.version},
        }
        # No pool of inference processes: a model of microseconds is faster without the way to one.
        settings = {
            "host": "127.0.0.1",
            "grpc_port": port,
            "http_port": free_port(),
            "metrics_port": free_port(),
            "parallel_workers": 0,
        }
        (folder / "model-settings.json").write_text(json.dumps(model))
        (folder / "settings.json").write_text(json.dumps(settings))
        return Command([str(python.with_name("mlserver")), "start", str(folder)], {"PYTHONPATH": ""})

    # Its ModelStreamInfer answers with another message than the protocol's.
    return Contender("mlserver", environments.package_version(python, "mlserver"), start, "ABTCD")


def _kserve(install: bool) -> Contender:
    python = environments.python_with("kserve", install=install)

    def start(asked: Questions, folder: Path, port: int) -> Command:
        del folder
        arguments = [str(python), str(HERE / "kserve_server.py"), "--model_name", asked.name]
        arguments += ["--onnx", str(asked.path.resolve()), "--grpc_port", str(port), "--http_port", str(free_port())]
        return Command(arguments, {"PYTHONPATH": ""})

    # It has no ModelStreamInfer.
    return Contender("kserve", environments.package_version(python, "kserve"), start, "ABTCD")


def _echo(install: bool) -> Contender:
    binary = environments.echo(install=install)

    def start(asked: Questions, folder: Path, port: int) -> Command:
        del asked, folder
        return Command([str(binary), str(port)])

    # What doing nothing costs says nothing of loads that are mostly inference.
    return Contender("echo", f"gRPC {environments.grpc_version()}", start, "ABTSH", answers="request")


def _null(install: bool) -> Contender:
    del install

    def start(asked: Questions, folder: Path, port: int) -> Command:
        del asked, folder
        return Command([sys.executable, str(ROOT / "benchmarks" / "null_server.py"), "--port", str(port)], _HERE)

    return Contender("null", "", start, "ABTSH", answers="zeros")


@cache
def _serve_help() -> str:
    command = [sys.executable, "-m", "service.cli", "serve", "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | _HERE).stdout


def _grpcio() -> Contender:
    return _ours("grpcio", *(["--transport", "grpcio"] if "--transport" in _serve_help() else []))


_MAKERS: dict[str, Callable[[bool], Contender]] = {
    "http2": lambda _: _ours("http2", "--transport", "http2"),
    "http2-2": lambda _: _ours("http2-2", "--transport", "http2", "--workers", "2", loads="D"),
    "grpcio": lambda _: _grpcio(),
    "plain": lambda _: _plain("plain", typed=False, loads="ABTSCDH"),
    "plain-typed": lambda _: _plain("plain-typed", typed=True, loads="ABTSCD"),
    "mlserver": _mlserver,
    "kserve": _kserve,
    "echo": _echo,
    "null": _null,
}
