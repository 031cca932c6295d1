from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import pytest

from service.errors import BindError
from service.observability import endpoint
from service.observability.endpoint import MetricsEndpoint
from service.observability.exposition import Family, Kind


def one_family():
    family = Family("answer", Kind.GAUGE, "To everything.")
    family.add(42)
    return [family]


@asynccontextmanager
async def served(families=one_family, host="127.0.0.1"):
    running = MetricsEndpoint(families, host, 0)
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


async def ask(running: MetricsEndpoint, data: bytes) -> bytes:
    address = urlsplit(running.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(data)
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("request_line", "headers", "status", "holds"),
    [
        ("GET /metrics HTTP/1.1", "", b"200 OK", b"\nanswer 42\n"),
        ("GET /metrics?name=x HTTP/1.0", "", b"200 OK", b"text/plain; version=0.0.4"),
        ("GET /metrics HTTP/1.1", "accept: application/openmetrics-text", b"200 OK", b"answer 42\n# EOF\n"),
        ("GET / HTTP/1.1", "", b"404 Not Found", b"/metrics"),
        ("GET /metricsx HTTP/1.1", "", b"404 Not Found", b""),
        ("POST /metrics HTTP/1.1", "", b"405 Method Not Allowed", b"Allow: GET, HEAD"),
        ("rubbish", "", b"404 Not Found", b""),
    ],
)
async def test_each_request_gets_its_status(request_line, headers, status, holds) -> None:
    async with served() as running:
        answer = await ask(running, f"{request_line}\r\nHost: x\r\n{headers}\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert holds in answer
    assert f"Content-Length: {len(body)}\r\n".encode() in head


async def test_head_has_the_length_and_no_body() -> None:
    async with served() as running:
        full = await ask(running, b"GET /metrics HTTP/1.1\r\n\r\n")
        answer = await ask(running, b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert answer == full.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


async def test_it_listens_on_ipv6_too() -> None:
    async with served(host="::1") as running:
        assert running.url.startswith("http://[::1]:")
        assert b"answer 42" in await ask(running, b"GET /metrics HTTP/1.1\r\n\r\n")


async def test_a_page_is_made_in_a_thread_while_the_loop_goes_on() -> None:
    made, go_on = threading.Event(), threading.Event()

    def slow():
        made.set()
        assert go_on.wait(30)
        return one_family()

    async with served(slow) as running:
        asked = asyncio.create_task(ask(running, b"GET /metrics HTTP/1.1\r\n\r\n"))
        # Only a loop that is free comes to set what the page waits for.
        assert await asyncio.to_thread(made.wait, 30)
        go_on.set()
        assert b"200 OK" in await asked


async def test_a_defect_is_a_failed_scrape_and_a_traceback_in_the_log(caplog) -> None:
    async with served(lambda: [1 / 0]) as running, asyncio.timeout(30):
        assert b"500 Internal Server Error" in await ask(running, b"GET /metrics HTTP/1.1\r\n\r\n")
    assert "division" in caplog.text


@pytest.mark.parametrize(
    "data", [b"GET /metrics HTTP/1.1\r\n" + b"x: " + b"y" * 100_000 + b"\r\n\r\n", b"\x16\x03\x01"]
)
async def test_what_is_no_request_is_cut_off(data, monkeypatch) -> None:
    monkeypatch.setattr(endpoint, "_TIMEOUT_S", 0.05)
    async with served() as running:
        with suppress(ConnectionError):  # The end may come as a reset, since what was sent is not read.
            assert await ask(running, data) == b""
        assert b"200 OK" in await ask(running, b"GET /metrics HTTP/1.1\r\n\r\n")


async def test_the_number_of_connections_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(endpoint, "_MAX_CONNECTIONS", 2)
    async with served() as running:
        address = urlsplit(running.url)
        idle = [await asyncio.open_connection(address.hostname, address.port) for _ in range(2)]
        await asyncio.sleep(0.05)
        with suppress(ConnectionError):
            assert await ask(running, b"GET /metrics HTTP/1.1\r\n\r\n") == b""
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()


async def test_a_stop_closes_connections_that_idle(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        async with served() as running:
            address = urlsplit(running.url)
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            await asyncio.sleep(0.05)
        async with asyncio.timeout(30):
            with suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
    assert not caplog.records


async def test_a_port_in_use_is_said_with_the_way_out() -> None:
    async with served() as running:
        port = urlsplit(running.url).port
        with pytest.raises(BindError, match=rf"cannot listen on 127.0.0.1:{port} for metrics.*--no-metrics"):
            await MetricsEndpoint(one_family, "127.0.0.1", port).start()
