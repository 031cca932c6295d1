"""The configuration of deploy/envoy in a real Envoy, before two servers."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import struct
import subprocess
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from service.client import AsyncInferenceClient, ServerError, request
from service.pb import open_inference_pb2 as pb
from tests.conftest import publish_affine
from tests.containers.conftest import ROOT

yaml = pytest.importorskip("yaml", reason="make test-containers installs it")
envoy = pytest.importorskip("envoy", reason="make test-containers installs it")

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from service.server.server import Server

CONFIG = ROOT / "deploy/envoy/envoy.yaml"
START_S = 30.0
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def program() -> str:
    from importlib.resources import files

    return str(files("envoy") / "_bin" / "envoy")


def here(ports: list[int], listen: int) -> dict[str, Any]:
    """The configuration with the addresses of this machine in place of those of the compose project."""
    text = CONFIG.read_text().replace("/etc/envoy/open_inference.binpb", str(ROOT / "service/pb/open_inference.binpb"))
    config: dict[str, Any] = yaml.safe_load(text)
    del config["admin"]
    (listener,) = config["static_resources"]["listeners"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": listen}
    (cluster,) = config["static_resources"]["clusters"]
    (locality,) = cluster["load_assignment"]["endpoints"]
    (endpoint,) = locality["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"] == {"address": "server", "port_value": 8001}
    locality["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}} for port in ports
    ]
    return config


@pytest.fixture
async def balanced(repository, serving, tmp_path: Path) -> AsyncIterator[tuple[str, list[Server]]]:
    """The address of an Envoy, and the two servers behind it."""
    publish_affine(repository)
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = free.getsockname()[1]
    async with serving(repository) as first, serving(repository) as second:
        path = tmp_path / "envoy.json"
        path.write_text(json.dumps(here([first.port, second.port], listen)))
        log = (tmp_path / "log").open("wb")
        line = [
            program(),
            "--config-path",
            path,
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "warning",
        ]
        process = await asyncio.create_subprocess_exec(*map(str, line), stdout=log, stderr=subprocess.STDOUT)
        try:
            async with AsyncInferenceClient(f"127.0.0.1:{listen}") as client, asyncio.timeout(START_S):
                while not await client.is_ready():
                    assert process.returncode is None, (tmp_path / "log").read_text()
                    await asyncio.sleep(0.05)
            yield f"127.0.0.1:{listen}", [first, second]
        finally:
            process.terminate()
            await process.wait()
            log.close()


def test_the_configuration_is_one(tmp_path: Path) -> None:
    path = tmp_path / "envoy.json"
    for fault, code in ((None, 0), ("lb_polizy", 1)):
        config = here([1, 2], 3)
        if fault:
            config["static_resources"]["clusters"][0][fault] = "ROUND_ROBIN"
        path.write_text(json.dumps(config))
        done = subprocess.run(
            [program(), "--mode", "validate", "--config-path", str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert "Deprecated" not in done.stderr


async def successes(server: Server) -> int:
    async with AsyncInferenceClient(f"127.0.0.1:{server.port}") as client:
        (statistics,) = await client.statistics("affine")
        return statistics.inferences


async def test_the_calls_of_one_connection_go_to_both_servers_in_turn(balanced) -> None:
    address, servers = balanced
    async with AsyncInferenceClient(address) as client:
        for _ in range(10):
            answer = await client.infer("affine", {"x": X[:1]})
            np.testing.assert_array_equal(answer.outputs["y"], 2 * X[:1] + 1)
        assert [await successes(server) for server in servers] == [5, 5]
        with pytest.raises(ServerError, match="NOT_FOUND"):
            await client.infer("nobody", {"x": X})
        streamed = [answer async for answer in client.stream(request("affine", {"x": X}) for _ in range(4))]
        assert [np.array_equal(answer.outputs["y"], 2 * X + 1) for answer in streamed] == 4 * [True]


async def test_a_server_that_drains_gets_nothing_more_and_no_call_fails(balanced) -> None:
    address, (first, second) = balanced
    async with AsyncInferenceClient(address) as client:
        first.readiness.start_draining()
        for _ in range(30):
            await client.infer("affine", {"x": X})
        async with asyncio.timeout(START_S):
            while True:
                before = await successes(first)
                for _ in range(4):
                    await client.infer("affine", {"x": X})
                if await successes(first) == before:
                    break
                await asyncio.sleep(0.2)
        assert await successes(second) > 0


def post(address: str, path: str, body: bytes, content_type: str) -> tuple[int, bytes]:
    """The HTTP status, and the body; of an error what gRPC says of it."""
    headers = {"content-type": content_type, "accept": content_type}
    asked = urllib.request.Request(f"http://{address}{path}", body, headers)
    try:
        with urllib.request.urlopen(asked, timeout=START_S) as response:  # noqa: S310 - our own Envoy
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get("grpc-message", "").encode()


async def test_json(balanced) -> None:
    address, _ = balanced
    path = "/inference.GRPCInferenceService/ModelInfer"
    message = {
        "model_name": "affine",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [2, 3], "contents": {"fp32_contents": X.ravel().tolist()}}
        ],
    }
    status, body = await asyncio.to_thread(post, address, path, json.dumps(message).encode(), "application/json")
    assert status == 200, body
    answer = json.loads(body)
    assert answer["outputs"][0]["contents"]["fp32_contents"] == (2 * X + 1).ravel().tolist()
    message["model_name"] = "nobody"
    status, body = await asyncio.to_thread(post, address, path, json.dumps(message).encode(), "application/json")
    assert (status, body[:8]) == (404, b"Request ")


async def test_the_example_of_the_documentation(balanced) -> None:
    address, _ = balanced
    text = (ROOT / "docs/operations.md").read_text()
    examples = re.findall(r"^curl --json '(.*)' 127\.0\.0\.1:8080(/\S+)$", text, re.MULTILINE)
    assert examples
    for message, path in examples:
        here = message.replace("mnist1d-conv", "affine").encode()
        status, body = await asyncio.to_thread(post, address, path, here, "application/json")
        assert (status, json.loads(body)) == (200, {"ready": True})


async def test_grpc_web(balanced) -> None:
    address, _ = balanced
    asked = pb.ModelInferRequest(model_name="affine")
    asked.inputs.add(name="x", datatype="FP32", shape=X.shape)
    asked.raw_input_contents.append(X.tobytes())
    message = asked.SerializeToString()
    framed = b"\0" + struct.pack(">I", len(message)) + message
    path = "/inference.GRPCInferenceService/ModelInfer"
    for kind, encode in (("application/grpc-web+proto", bytes), ("application/grpc-web-text", base64.b64encode)):
        status, body = await asyncio.to_thread(post, address, path, encode(framed), kind)
        assert status == 200
        frames = body if encode is bytes else b"".join(base64.b64decode(part) for part in _padded(body))
        size = struct.unpack(">I", frames[1:5])[0]
        answer = pb.ModelInferResponse.FromString(frames[5 : 5 + size])
        np.testing.assert_array_equal(np.frombuffer(answer.raw_output_contents[0], np.float32), (2 * X + 1).ravel())
        assert b"grpc-status:0" in frames[5 + size :]


def _padded(text: bytes) -> list[bytes]:
    """Pieces of base64, each of which may end in padding of its own."""
    return [text[at : at + 4] for at in range(0, len(text), 4)]


async def test_nothing_but_the_services_is_behind_it(balanced) -> None:
    address, _ = balanced
    assert (await asyncio.to_thread(post, address, "/metrics", b"", "text/plain"))[0] == 404
