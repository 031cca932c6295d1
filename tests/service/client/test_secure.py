"""The client and the load generator against our own server's certificates, tokens, error details and control."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from click.testing import CliRunner

from service.cli.bench import command
from service.client import AsyncInferenceClient, InferenceClient, ServerError, Tls
from service.errors import Code
from tests.conftest import publish_affine

certificates = pytest.importorskip("tests.certificates")

ONES = {"x": np.ones((1, 3), np.float32)}


@pytest.fixture
def root(tmp_path):
    return certificates.Root(tmp_path)


@pytest.fixture
async def secure(repository, serving, root, tmp_path):
    """A server that asks for a certificate and a token."""
    publish_affine(repository)
    (tmp_path / "tokens").write_text("right\n")
    pair = root.sign("server")
    files = {"tls_cert": pair.cert, "tls_key": pair.key, "tls_client_ca": root.cert}
    async with serving(repository, host="localhost", inference_tokens=tmp_path / "tokens", **files) as server:
        yield server


async def test_both_clients_know_certificates_and_tokens(secure, root) -> None:
    mine = root.sign("client")
    tls = Tls.from_files(root.cert, mine.cert, mine.key)
    address = f"localhost:{secure.port}"

    def ask() -> list[list[float]]:
        with InferenceClient(address, tls=tls, token="right") as client:  # noqa: S106 - made up
            return client.infer("affine", ONES).outputs["y"].tolist()

    assert await asyncio.to_thread(ask) == [[3, 3, 3]]
    for target in (address, [address, address]):
        async with AsyncInferenceClient(target, tls=tls, token="right") as client:  # noqa: S106 - made up
            assert (await client.infer("affine", ONES)).outputs["y"].tolist() == [[3, 3, 3]]
    async with AsyncInferenceClient(address, tls=tls, token="wrong") as client:  # noqa: S106 - made up
        with pytest.raises(ServerError) as failure:
            await client.infer("affine", ONES)
        assert failure.value.code is Code.UNAUTHENTICATED
    async with AsyncInferenceClient(address, tls=Tls.from_files(root.cert), timeout_s=20) as client:
        assert not await client.is_live()


async def test_the_load_generator_knows_them_too(secure, root) -> None:
    mine = root.sign("client")
    files = {"--tls-ca": root.cert, "--tls-cert": mine.cert, "--tls-key": mine.key}
    line = [
        "--server",
        f"localhost:{secure.port}",
        "--model",
        "affine",
        "--requests",
        "50",
        "--warm-up-s",
        "0",
        "--json",
    ]
    line += [str(word) for option in files.items() for word in option]
    result = await asyncio.to_thread(CliRunner().invoke, command, [*line, "--token", "right"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["done"] == 50
    result = await asyncio.to_thread(CliRunner().invoke, command, [*line, "--token", "wrong"])
    assert result.exit_code == 1
    assert "UNAUTHENTICATED" in result.output
    result = await asyncio.to_thread(CliRunner().invoke, command, line[:-6])
    assert result.exit_code == 4


async def test_errors_come_with_what_programs_need(repository, serving) -> None:
    publish_affine(repository)
    async with serving(repository) as server, AsyncInferenceClient(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(ServerError) as failure:
            await client.infer("nope", ONES)
        assert failure.value.details.reason == "MODEL_NOT_FOUND"
        assert failure.value.details.metadata["model"] == "nope"
        with pytest.raises(ServerError) as failure:
            await client.infer("affine", {"x": np.ones((1, 4), np.float32)})
        assert failure.value.details.violations


async def test_models_are_listed_loaded_and_unloaded(repository, serving) -> None:
    publish_affine(repository)
    control = {"model_control_mode": "explicit", "control_on_main_port": True}
    async with serving(repository, **control) as server, AsyncInferenceClient(f"127.0.0.1:{server.port}") as client:
        assert await client.repository_index(ready=True) == ()
        await client.load("affine")
        (state,) = await client.repository_index(ready=True)
        assert (state.name, state.version, state.state) == ("affine", "1", "READY")
        assert (await client.infer("affine", ONES)).version == "1"
        await client.unload("affine")
        assert await client.repository_index(ready=True) == ()
        with pytest.raises(ServerError):
            await client.load("nope")
