"""What the connection's TLS and token settings do against the real server."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from service.client import AsyncInferenceClient, InferenceClient, ServerError, Tls
from service.errors import Code
from tests.certificates import Root
from tests.conftest import publish_affine

ONES = {"x": np.ones((1, 3), np.float32)}
READER, OPERATOR = "reader-token", "operator-token"


@pytest.fixture
def root(tmp_path) -> Root:
    return Root(tmp_path)


@pytest.fixture
def encrypted(tmp_path, root):
    """Settings of a server with TLS."""
    pair = root.sign("server")
    return {"tls_cert": pair.cert, "tls_key": pair.key}


@pytest.fixture(params=["sync", "async"])
def ask(request):
    """``await ask(target, **settings)``: one answer over a connection of its own."""

    async def asynchronously(target, **settings):
        async with AsyncInferenceClient(target, **settings) as client:
            return await client.infer("affine", ONES)

    def blocking(target, **settings):
        with InferenceClient(target, **settings) as client:
            return client.infer("affine", ONES)

    async def asked(target, **settings):
        if request.param == "async":
            answer = await asynchronously(target, **settings)
        else:
            answer = await asyncio.to_thread(blocking, target, **settings)
        return answer.outputs["y"].tolist() == [[3, 3, 3]]

    return asked


async def refusal(asked) -> Code:
    with pytest.raises(ServerError) as failure:
        await asked
    return failure.value.code


async def test_only_who_trusts_the_servers_root_talks_to_it(tmp_path, repository, serving, root, encrypted, ask):
    publish_affine(repository)
    stranger = Root(tmp_path, "stranger")
    async with serving(repository, **encrypted) as server:
        target = f"127.0.0.1:{server.port}"
        assert await ask(target, tls=Tls.from_files(root.cert))
        assert await ask(f"localhost:{server.port}", tls=Tls.from_files(root.cert))
        assert await refusal(ask(target, tls=Tls.from_files(stranger.cert))) is Code.UNAVAILABLE
        assert await refusal(ask(target)) is Code.UNAVAILABLE


async def test_the_certificate_must_have_the_name_that_is_asked_for(repository, serving, root, encrypted, ask):
    publish_affine(repository)
    async with serving(repository, **encrypted) as server:
        target = f"127.0.0.1:{server.port}"
        assert await ask(target, tls=Tls.from_files(root.cert, server_name="localhost"))
        elsewhere = Tls.from_files(root.cert, server_name="models.example")
        assert await refusal(ask(target, tls=elsewhere)) is Code.UNAVAILABLE


async def test_a_server_that_asks_for_a_certificate_gets_the_clients(
    tmp_path, repository, serving, root, encrypted, ask
):
    publish_affine(repository)
    known, unknown = root.sign("client"), Root(tmp_path, "stranger").sign("unknown")
    async with serving(repository, **encrypted, tls_client_ca=root.cert) as server:
        target = f"127.0.0.1:{server.port}"
        assert await ask(target, tls=Tls.from_files(root.cert, known.cert, known.key))
        assert await refusal(ask(target, tls=Tls.from_files(root.cert, unknown.cert, unknown.key))) is Code.UNAVAILABLE
        assert await refusal(ask(target, tls=Tls.from_files(root.cert))) is Code.UNAVAILABLE


async def test_several_servers_with_tls(tmp_path, repository, serving, root, encrypted, ask):
    publish_affine(repository)
    async with serving(repository, **encrypted) as one, serving(repository, **encrypted) as other:
        targets = [f"127.0.0.1:{server.port}" for server in (one, other)]
        assert await ask(targets, tls=Tls.from_files(root.cert))
        assert await ask([f"localhost:{one.port}", targets[1]], tls=Tls.from_files(root.cert, server_name="localhost"))


async def test_a_token_gives_the_right_it_stands_for(tmp_path, repository, serving, root, encrypted, ask):
    publish_affine(repository)
    tokens = {"inference_tokens": tmp_path / "inference", "control_tokens": tmp_path / "control"}
    for path, token in zip(tokens.values(), (READER, OPERATOR), strict=True):
        path.write_text(f"{token}\n")
    settings = {**encrypted, **tokens, "model_control_mode": "explicit", "load_model": "*"}
    async with serving(repository, **settings, control_on_main_port=True) as server:
        target, tls = f"127.0.0.1:{server.port}", Tls.from_files(root.cert)
        assert await ask(target, tls=tls, token=READER)
        assert await ask(target, tls=tls, token=OPERATOR)
        assert await refusal(ask(target, tls=tls)) is Code.UNAUTHENTICATED
        assert await refusal(ask(target, tls=tls, token="made-up")) is Code.UNAUTHENTICATED  # noqa: S106 - made up
        async with AsyncInferenceClient(target, tls=tls, token=READER) as reader:
            assert await refusal(reader.load("affine")) is Code.PERMISSION_DENIED
        async with AsyncInferenceClient(target, tls=tls, token=OPERATOR) as operator:
            await operator.load("affine")


async def test_control_has_a_port_of_its_own(repository, serving):
    publish_affine(repository)
    settings = {"model_control_mode": "explicit", "control_on_main_port": False, "control_port": 0}
    async with serving(repository, **settings) as server:
        async with AsyncInferenceClient(f"127.0.0.1:{server.port}") as client:
            assert await refusal(client.load("affine")) is Code.PERMISSION_DENIED
        async with AsyncInferenceClient(f"127.0.0.1:{server.control_port}") as operator:
            await operator.load("affine")
            (state,) = await operator.repository_index(ready=True)
    assert (state.name, state.state) == ("affine", "READY")
