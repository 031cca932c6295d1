"""What other servers need: virtual environments of their own, and a compiled echo.

Made on the first call and kept under ``.venv-bench-*`` and ``build/comparison``; made again when what they are made
from has changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "comparison"
_INSTALL_S = 600.0
_COMPILE_S = 300.0


class Absent(Exception):
    """Something cannot be had on this machine; the message says why."""


def python_with(name: str, *, install: bool) -> Path:
    """The Python of the environment with what ``NAME-requirements.txt`` lists; raises Absent."""
    requirements = HERE / f"{name}-requirements.txt"
    folder = ROOT / f".venv-bench-{name}"
    stamp = folder / f"installed-{_hash(requirements)}"
    python = folder / "bin" / "python"
    if stamp.exists():
        return python
    if not install:
        raise Absent(f"{folder.name} is not installed; leave out --no-install")
    print(f"installing {folder.name}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)], _INSTALL_S)
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "install", "--requirement", str(requirements)], _INSTALL_S)
    stamp.touch()
    return python


def echo(*, install: bool) -> Path:
    """The C++ echo, compiled against Debian's gRPC; raises Absent."""
    source = HERE / "echo.cpp"
    binary = BUILD / f"echo-{_hash(source)}"
    if binary.exists():
        return binary
    if not install:
        raise Absent("it is not built; leave out --no-install")
    for tool in ("g++", "pkg-config"):
        if shutil.which(tool) is None:
            raise Absent(f"there is no {tool} here")
    try:
        flags = _run(["pkg-config", "--cflags", "--libs", "grpc++"], _COMPILE_S).split()
    except Absent as error:
        raise Absent("libgrpc++-dev is not installed") from error
    print("compiling the echo", flush=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    unfinished = binary.with_suffix(f".{os.getpid()}")
    _run(["g++", "-O2", "-std=c++17", str(source), "-o", str(unfinished), *flags], _COMPILE_S)
    unfinished.rename(binary)
    return binary


def grpc_version() -> str:
    """Of the C++ library that the echo is compiled against."""
    return _run(["pkg-config", "--modversion", "grpc++"], _COMPILE_S).strip()


def package_version(python: Path, package: str) -> str:
    """Of a package in an environment."""
    code = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    return _run([str(python), "-c", code, package], _COMPILE_S).strip()


def h2load() -> Path:
    """nghttp2's load generator; raises Absent."""
    found = shutil.which("h2load")
    if found is None:
        raise Absent("h2load (Debian: nghttp2-client) is not installed")
    return Path(found)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _run(command: list[str], timeout_s: float) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Absent(f"{command[0]}: {error}") from error
    if result.returncode:
        said = (result.stderr or result.stdout).strip().splitlines()
        raise Absent(said[-1] if said else f"{Path(command[0]).name} left with {result.returncode}")
    return result.stdout
