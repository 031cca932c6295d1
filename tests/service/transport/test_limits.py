"""What a connection may do, and how it ends."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time

import pytest

from service.config import ServerConfig
from service.transport.grpcio_engine import channel_options
from service.transport.limits import ConnectionLimits
from tests import http2
from tests.conftest import publish_affine
from tests.service.conftest import affine_request


def limits(**changed) -> ConnectionLimits:
    defaults = {field.name: field.default for field in dataclasses.fields(ServerConfig)}
    names = [field.name for field in dataclasses.fields(ConnectionLimits)]
    return ConnectionLimits(**{**{name: defaults[name] for name in names}, **changed})


def test_by_default_connections_live_for_ever_and_pings_every_ten_seconds_are_fine() -> None:
    options = dict(channel_options(limits()))
    # Well below ten seconds: a ping that the network held up comes soon before the next one.
    assert options["grpc.http2.min_ping_interval_without_data_ms"] == 5000
    assert options["grpc.keepalive_permit_without_calls"] == 1
    assert options["grpc.max_receive_message_length"] == 64 * 1024 * 1024
    assert options["grpc.so_reuseport"] == 0
    assert not any(name.startswith("grpc.max_connection") for name in options)


@pytest.mark.parametrize(
    ("limit", "value", "option", "says"),
    [
        ("max_metadata_bytes", 4096, "grpc.absolute_max_metadata_size", 4096),
        ("max_concurrent_streams", 7, "grpc.max_concurrent_streams", 7),
        ("keepalive_min_ping_s", 0.1, "grpc.http2.min_ping_interval_without_data_ms", 100),
        ("keepalive_time_s", 30, "grpc.keepalive_time_ms", 30_000),
        ("keepalive_timeout_s", 2.5, "grpc.keepalive_timeout_ms", 2500),
        ("max_connection_age_s", 0.0004, "grpc.max_connection_age_ms", 1),
        ("max_connection_age_grace_s", 86400 * 24, "grpc.max_connection_age_grace_ms", 2_073_600_000),
        ("max_connection_idle_s", 60, "grpc.max_connection_idle_ms", 60_000),
    ],
)
def test_each_limit_in_grpcs_words(limit, value, option, says) -> None:
    assert dict(channel_options(limits(**{limit: value})))[option] == says


async def test_a_client_that_pings_as_often_as_it_may_is_left_alone(repository, serving) -> None:
    async with serving(repository, keepalive_min_ping_s=0.1) as server, http2.connected(server.port) as connection:
        for answered in range(1, 11):
            connection.ping()
            await connection.wait_for(http2.PING, http2.ACK, count=answered)
            await asyncio.sleep(0.15)
        assert connection.of_kind(http2.GOAWAY) == []


async def test_one_that_pings_more_often_is_told_to_calm_down(repository, serving) -> None:
    async with serving(repository, keepalive_min_ping_s=60) as server, http2.connected(server.port) as connection:
        for _ in range(10):
            connection.ping()
            await asyncio.sleep(0.01)
        assert (await connection.wait_for(http2.GOAWAY)).error_code() == http2.ENHANCE_YOUR_CALM


async def test_a_silent_client_is_pinged(repository, serving) -> None:
    async with serving(repository, keepalive_time_s=1) as server, http2.connected(server.port) as connection:
        assert await connection.wait_for(http2.PING)
        assert connection.of_kind(http2.GOAWAY) == []


async def test_the_limit_of_calls_is_told_at_once(repository, serving) -> None:
    async with serving(repository, max_concurrent_streams=7) as server, http2.connected(server.port) as connection:
        settings = await connection.wait_for(http2.SETTINGS)
        assert settings.settings()[http2.MAX_CONCURRENT_STREAMS] == 7


async def test_more_calls_than_may_run_at_once_wait_and_are_answered(repository, serving, connect) -> None:
    publish_affine(repository)
    async with serving(repository, max_concurrent_streams=20) as server, connect(server) as stubs:
        for _ in range(3):
            answers = await asyncio.gather(*(stubs.inference.ModelInfer(affine_request()) for _ in range(400)))
            assert len(answers) == 400


async def test_an_idle_connection_is_closed_kindly(repository, serving) -> None:
    async with serving(repository, max_connection_idle_s=0.2) as server, http2.connected(server.port) as connection:
        assert (await connection.wait_for(http2.GOAWAY)).payload.endswith(b"connection idle")


async def test_a_connection_of_age_is_renewed_without_a_failed_call(repository, serving, connect, caplog) -> None:
    publish_affine(repository)
    settings = {"max_connection_age_s": 0.3, "max_connection_age_grace_s": 5}
    calls = 0
    with caplog.at_level(logging.DEBUG, "service.requests"):
        async with serving(repository, **settings) as server, connect(server) as stubs:
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                await asyncio.gather(*(stubs.inference.ModelInfer(affine_request()) for _ in range(4)))
                calls += 4
    answered = [record for record in caplog.records if record.name == "service.requests"]
    assert [record.code for record in answered] == ["OK"] * calls
    assert len({record.peer for record in answered}) >= 3


async def test_a_call_that_outlives_its_connection_ends_with_the_grace(repository, serving, connect) -> None:
    publish_affine(repository)
    settings = {"max_connection_age_s": 0.2, "max_connection_age_grace_s": 0.2}
    never = asyncio.Event()

    async def requests():
        yield affine_request()
        await never.wait()

    async with serving(repository, **settings) as server, connect(server) as stubs:
        call = stubs.inference.ModelStreamInfer(requests())
        assert (await call.read()).infer_response.model_name == "affine"
        async with asyncio.timeout(http2.HANG_S):
            assert (await call.code()).name == "UNAVAILABLE"
        assert (await stubs.inference.ModelInfer(affine_request())).model_version == "1"
