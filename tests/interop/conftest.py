"""Servers over the zoo and clients in front of them, each a process, once a session."""

from __future__ import annotations

import importlib.util
import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.interop.clients import DRIVERS, client_process
from tests.interop.zoo import fill_zoo
from tests.processes import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.interop.clients import ClientProcess
    from tests.processes import ServerProcess


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one model of each kind."""
    repository = tmp_path_factory.mktemp("zoo")
    fill_zoo(repository)
    return repository


@pytest.fixture(scope="session")
def zoo_server(zoo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server over `zoo`, every version of every model; takes messages of up to 4 MB."""
    options = ("--version-policy", "all", "--no-strict-readiness", "--max-message-bytes", "4000000")
    with serve(zoo, tmp_path_factory.mktemp("zoo_server") / "log", *options) as running:
        yield running


def triton_client(kind: str, port: int, **options: object) -> AbstractContextManager[ClientProcess]:
    """A process with tritonclient in it; ``kind`` is ``sync`` or ``aio``. Skips the test where it is not installed."""
    if importlib.util.find_spec("tritonclient") is None:
        pytest.skip("tritonclient is not installed (dependency group `test`)")
    return client_process(sys.executable, DRIVERS / "triton.py", kind, f"127.0.0.1:{port}", json.dumps(options))


@pytest.fixture(scope="session", params=["sync", "aio"])
def triton(request, zoo_server) -> Iterator[ClientProcess]:
    """tritonclient's ordinary client, then its asyncio client, in front of `zoo_server`."""
    with triton_client(request.param, zoo_server.port) as client:
        yield client


@pytest.fixture(scope="session")
def triton_sync(zoo_server) -> Iterator[ClientProcess]:
    """tritonclient's ordinary client in front of `zoo_server`."""
    with triton_client("sync", zoo_server.port) as client:
        yield client


@pytest.fixture
def new_triton() -> Callable[..., AbstractContextManager[ClientProcess]]:
    """Start a tritonclient process for one test; see `triton_client`."""
    return triton_client
