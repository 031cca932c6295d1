from __future__ import annotations

import asyncio
import socket
import urllib.request

import grpc
import pytest

from service.config import ServerConfig
from service.errors import BindError
from service.pb import open_inference_pb2 as pb
from service.server.server import Server
from tests.conftest import publish_affine
from tests.service.conftest import affine_request
from tests.stubs.open_inference_pb2_grpc import GRPCInferenceServiceStub

APART = {"control_on_main_port": False, "control_port": 0, "model_control_mode": "explicit"}


async def load(port: int, model: str = "affine") -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=model))


async def test_control_is_on_a_port_of_its_own_which_serves_everything_else_too(repository, serving) -> None:
    publish_affine(repository)
    async with serving(repository, **APART) as server:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await load(server.port)
        assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert f"it is served on 127.0.0.1:{server.control_port} only" in failure.value.details()
        await load(server.control_port)
        for port in (server.port, server.control_port):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                assert (await GRPCInferenceServiceStub(channel).ModelInfer(affine_request())).model_version == "1"


async def test_control_on_the_main_port_needs_no_other(repository, serving) -> None:
    publish_affine(repository)
    async with serving(repository, model_control_mode="explicit", control_on_main_port=True) as server:
        assert server.control_port is None
        await load(server.port)


async def test_every_interface_is_one_of_either_family(repository, serving) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no sockets of both families")
    publish_affine(repository)
    async with serving(repository, host="::", metrics=True, metrics_host="::") as server:
        metrics_port = int(server.metrics_url.rpartition(":")[2].partition("/")[0])
        for host in ("127.0.0.1", "[::1]"):
            async with grpc.aio.insecure_channel(f"{host}:{server.port}") as channel:
                assert (await GRPCInferenceServiceStub(channel).ModelInfer(affine_request())).model_version == "1"
            url = f"http://{host}:{metrics_port}/metrics"
            assert b"mnist1d_server_ready 1" in await asyncio.to_thread(fetched, url)


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url) as response:  # noqa: S310 - our own server
        page: bytes = response.read()
    return page


async def test_control_can_be_turned_off(repository, serving) -> None:
    publish_affine(repository)
    async with serving(repository, **APART, control=False) as server:
        assert server.control_port is None
        with pytest.raises(grpc.aio.AioRpcError, match="control is turned off") as failure:
            await load(server.port)
        assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("settings", "warnings"),
    [
        ({}, []),
        ({"host": "0.0.0.0"}, []),  # noqa: S104 - an address that everybody reaches is the point, here and below
        ({"control_host": "0.0.0.0"}, ["control without tokens"]),  # noqa: S104
        ({"control_host": "0.0.0.0", "control": False}, []),  # noqa: S104
        ({"host": "0.0.0.0", "control_on_main_port": True}, ["control without tokens"]),  # noqa: S104
        ({"control_host": "0.0.0.0", "tokens": True}, ["tokens without TLS"]),  # noqa: S104
        ({"host": "0.0.0.0", "tokens": True}, ["tokens without TLS"]),  # noqa: S104
        ({"tokens": True}, []),
    ],
)
async def test_what_an_operator_may_not_have_meant_is_said(
    repository, serving, tmp_path, caplog, settings, warnings
) -> None:
    settings = {**APART, **settings}
    if settings.pop("tokens", False):
        settings["control_tokens"] = tmp_path / "tokens"
        settings["control_tokens"].write_text("token\n")
    async with serving(repository, **settings):
        pass
    said = [record.message for record in caplog.records if record.name == "service.server.listeners"]
    assert [message.split(":")[0] for message in said] == warnings


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("port", "choose another --host or --port"),
        ("control_port", "choose another --control-port for control, or --no-control"),
        ("metrics_port", "choose another --metrics-port, or --no-metrics"),
    ],
)
async def test_an_address_in_use_is_said_with_its_setting_and_leaves_nothing_running(repository, setting, says) -> None:
    ports = dict.fromkeys(("port", "control_port", "metrics_port"), 0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        free_port = free.getsockname()[1]
    # The listener that comes before the one that fails must be free again afterwards.
    first = "port" if setting != "port" else "metrics_port"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports |= {setting: taken.getsockname()[1], first: free_port}
        with pytest.raises(BindError, match=f"cannot listen on 127.0.0.1:{ports[setting]}.*{says}"):
            async with Server(ServerConfig(repository=repository, **ports)):
                pytest.fail("it started")
        await assert_free(free_port)
    async with Server(ServerConfig(repository=repository, **ports)):
        pass


async def test_a_failure_while_loading_leaves_nothing_running(repository, monkeypatch) -> None:
    server = Server(ServerConfig(repository=repository, port=0, control_port=0, metrics_port=0))

    async def fail() -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(server.control, "start", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        async with server:
            pytest.fail("it started")
    assert server.port
    for port in (server.port, server.control_port):
        await assert_free(port)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def assert_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
