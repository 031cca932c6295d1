"""The same tests on either transport: with ``--transport grpcio``, those that talk to a server use the reference."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

TRANSPORTS = ("http2", "grpcio")
_WITH_SERVERS = tuple(Path(__file__).parent / folder for folder in ("integration", "interop"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option."""
    parser.addoption("--transport", choices=TRANSPORTS, default=TRANSPORTS[0], help="engine of the servers under test")


def pytest_configure(config: pytest.Config) -> None:
    """Servers that are processes of their own are told like this."""
    os.environ["MNIST1D_SERVE_TRANSPORT"] = config.getoption("--transport")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On the reference, leave out what does not depend on the transport."""
    if config.getoption("--transport") == TRANSPORTS[0]:
        return
    chosen = [item for item in items if _talks_to_a_server(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
    items[:] = chosen


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> str:
    """The one that servers run."""
    chosen: str = request.config.getoption("--transport")
    return chosen


def _talks_to_a_server(item: pytest.Item) -> bool:
    return "serving" in getattr(item, "fixturenames", ()) or any(item.path.is_relative_to(f) for f in _WITH_SERVERS)
