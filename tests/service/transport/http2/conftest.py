"""The engines under test, one of each for all rows of a file."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.service.transport.http2 import wire
from tests.service.transport.http2.host import hosted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.service.transport.http2.host import Host


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Host]]:
    """Both, with the default limits."""
    with hosted("http2") as ours, hosted("grpcio") as theirs:
        yield {"http2": ours, "grpcio": theirs}


@pytest.fixture(params=["Chat", "Opened"])
def chat(request) -> list[tuple[bytes, bytes]]:
    """The header fields of a stream that says what it hears: run by a task, and opened."""
    return wire.request(b"/wire.Test/" + request.param.encode())


@pytest.fixture(autouse=True)
def nothing_unexpected_is_logged(caplog) -> Iterator[None]:
    """Whatever a client sends, it is no defect of the server: no traceback, no word from the event loop."""
    yield
    said = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    ours = [record for record in said if not record.name.startswith("grpc.")]
    assert [record for record in ours if "/wire.Test/Crash" not in str(record.__dict__)] == []
