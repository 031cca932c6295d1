"""Everything that only containers need. Files are checked wherever the tools are; engines are asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def tool() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``tool(name, *arguments)`` runs a program of the group `containers`; skips where it is not installed."""

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        path = shutil.which(name, path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
        if path is None:
            pytest.skip(f"{name} is not installed; make test-containers installs it")
        return subprocess.run(
            [path, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
        )

    return run


@pytest.fixture(scope="session")
def engine() -> None:
    """An engine that answers, with compose; skips, with the reason, where there is none."""
    if "MNIST1D_TEST_CONTAINERS" not in os.environ:
        pytest.skip("needs an engine for containers, and minutes; make test-containers runs it")
    if reason := os.environ.get("MNIST1D_NO_ENGINE"):
        pytest.skip(f"no engine for containers: {reason}")
    if shutil.which("docker") is None:
        pytest.skip("no engine for containers: docker is not installed")
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            pytest.skip(f"no engine for containers: {' '.join(command)}: {done.stderr.strip().splitlines()[-1]}")
