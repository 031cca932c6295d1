"""tritonclient with TLS, with client certificates, with tokens, and against the control port."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.conftest import publish_affine
from tests.interop.clients import Failure
from tests.interop.conftest import triton_client
from tests.processes import serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.certificates import Root
    from tests.interop.clients import ClientProcess
    from tests.processes import ServerProcess

X = [{"name": "x", "datatype": "FP32", "array": np.ones((1, 3), np.float32)}]
KINDS = ["sync", "aio"]
INFER = ("infer", {"model_name": "affine", "inputs": X})


@pytest.fixture(scope="module")
def own_repository(tmp_path_factory) -> Path:
    repository = tmp_path_factory.mktemp("security")
    publish_affine(repository)
    return repository


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Root:
    pytest.importorskip("cryptography")
    from tests.certificates import Root

    return Root(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def strange_root(tmp_path_factory) -> Root:
    pytest.importorskip("cryptography")
    from tests.certificates import Root

    return Root(tmp_path_factory.mktemp("strange"), "strange")


@pytest.fixture(scope="module")
def tls_options(root) -> list[str]:
    server = root.sign("server")
    return ["--tls-cert", str(server.cert), "--tls-key", str(server.key)]


@pytest.fixture(scope="module")
def tls_server(own_repository, tls_options, tmp_path_factory) -> Iterator[ServerProcess]:
    with serve(own_repository, tmp_path_factory.mktemp("tls") / "log", *tls_options) as running:
        yield running


@pytest.fixture(scope="module")
def mutual_server(own_repository, tls_options, root, tmp_path_factory) -> Iterator[ServerProcess]:
    options = (*tls_options, "--tls-client-ca", str(root.cert))
    with serve(own_repository, tmp_path_factory.mktemp("mutual") / "log", *options) as running:
        yield running


@pytest.mark.parametrize("kind", KINDS)
def test_tls(tls_server, root, kind) -> None:
    with triton_client(kind, tls_server.port, ssl=True, root_certificates=str(root.cert)) as client:
        assert client.ask("is_server_ready") is True
        assert client.ask(INFER[0], **INFER[1])["outputs"]["y"].tolist() == [[3, 3, 3]]
        (streamed,) = client.ask("stream", requests=[INFER[1]])
        assert streamed["error"] is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_the_client_does_not_trust_and_one_without_tls(tls_server, strange_root, kind) -> None:
    with triton_client(kind, tls_server.port, ssl=True, root_certificates=str(strange_root.cert)) as client:
        assert client.ask("is_server_live", client_timeout=10).code == "UNAVAILABLE"
    with triton_client(kind, tls_server.port) as client:
        assert client.ask("is_server_live", client_timeout=10).code == "UNAVAILABLE"


@pytest.mark.parametrize("kind", KINDS)
def test_client_certificates(mutual_server, root, strange_root, kind) -> None:
    known, strange = root.sign("client"), strange_root.sign("client")
    for pair, is_let_in in ((known, True), (strange, False), (None, False)):
        options = {"ssl": True, "root_certificates": str(root.cert)}
        if pair is not None:
            options |= {"private_key": str(pair.key), "certificate_chain": str(pair.cert)}
        with triton_client(kind, mutual_server.port, **options) as client:
            answer = client.ask("is_server_live", client_timeout=10)
            assert (answer is True) is is_let_in
            if not is_let_in:
                assert answer.code == "UNAVAILABLE"


@pytest.fixture(scope="module")
def token_server(own_repository, tmp_path_factory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "inference").write_text("# those who may ask\nlab:may-infer\n")
    (folder / "control").write_text("may-control\n")
    options = ["--inference-tokens", str(folder / "inference"), "--control-tokens", str(folder / "control")]
    options += ["--model-control-mode", "explicit", "--load-model", "*", "--no-control-on-main-port"]
    with serve(own_repository, folder / "log", *options, "--control-port", "0") as running:
        yield running


def bearer(token: str | None) -> dict[str, object]:
    return {} if token is None else {"headers": {"authorization": f"Bearer {token}"}}


def control_port(server: ServerProcess) -> int:
    (line,) = [line for line in server.lines() if line["message"] == "server ready"]
    return int(str(line["control"]).rpartition(":")[2])


RELOAD = ("load_model", {"model_name": "affine"})
LOG = ("update_log_settings", {"settings": {"log_verbose_level": 0}})
INDEX = ("get_model_repository_index", {})
LIVE = ("is_server_live", {})
# port, call, token, the code that is the answer; None for success
RIGHTS = [
    ("main", LIVE, None, None),
    ("main", ("is_server_ready", {}), None, None),
    ("main", ("is_model_ready", {"model_name": "affine"}), None, "UNAUTHENTICATED"),
    ("main", ("get_server_metadata", {}), None, "UNAUTHENTICATED"),
    ("main", ("get_model_metadata", {"model_name": "affine"}), None, "UNAUTHENTICATED"),
    ("main", INFER, None, "UNAUTHENTICATED"),
    ("main", INFER, "unknown", "UNAUTHENTICATED"),
    ("main", INFER, "may-infer", None),
    ("main", INFER, "may-control", None),
    ("main", INDEX, None, "UNAUTHENTICATED"),
    ("main", INDEX, "may-infer", None),
    ("main", RELOAD, None, "PERMISSION_DENIED"),
    ("main", RELOAD, "may-infer", "PERMISSION_DENIED"),
    ("main", RELOAD, "may-control", "PERMISSION_DENIED"),
    ("main", LOG, "may-control", "PERMISSION_DENIED"),
    ("main", ("get_log_settings", {}), "may-infer", None),
    ("control", LIVE, None, None),
    ("control", INFER, None, "UNAUTHENTICATED"),
    ("control", INFER, "may-infer", None),
    ("control", RELOAD, None, "UNAUTHENTICATED"),
    ("control", RELOAD, "unknown", "UNAUTHENTICATED"),
    ("control", RELOAD, "may-infer", "PERMISSION_DENIED"),
    ("control", RELOAD, "may-control", None),
    ("control", LOG, "may-infer", "PERMISSION_DENIED"),
    ("control", LOG, "may-control", None),
]


@pytest.fixture(scope="module", params=KINDS)
def token_clients(request, token_server) -> Iterator[dict[str, ClientProcess]]:
    with (
        triton_client(request.param, token_server.port) as main,
        triton_client(request.param, control_port(token_server)) as control,
    ):
        yield {"main": main, "control": control}


@pytest.mark.parametrize(("port", "call", "token", "code"), RIGHTS)
def test_rights(token_clients, port, call, token, code) -> None:
    method, arguments = call
    answer = token_clients[port].ask(method, **arguments, **bearer(token))
    assert (answer.code if isinstance(answer, Failure) else None) == code, answer


def test_a_refusal_says_what_is_needed_and_where(token_clients, token_server) -> None:
    main, control = token_clients["main"], token_clients["control"]
    refused = main.ask(RELOAD[0], **RELOAD[1], **bearer("may-control"))
    assert f"127.0.0.1:{control_port(token_server)}" in refused.message
    assert "authorization: Bearer TOKEN" in main.ask(INFER[0], **INFER[1]).message
    assert "control token" in control.ask(RELOAD[0], **RELOAD[1], **bearer("may-infer")).message


def test_a_stream_needs_its_token_once(token_clients) -> None:
    client = token_clients["main"]
    # Nothing is sent: grpcio tells an aio client whose write comes after the server's refusal INTERNAL instead of it.
    refused = client.ask("stream", requests=[], responses=1)
    assert [answer["error"]["code"] for answer in refused] == ["UNAUTHENTICATED"]
    answers = client.ask("stream", requests=[INFER[1]] * 3, **bearer("may-infer"))
    assert [answer["error"] for answer in answers] == [None] * 3


def test_no_token_is_in_the_log(token_clients, token_server) -> None:
    token_clients["main"].ask(INFER[0], **INFER[1], **bearer("may-infer"))
    assert not any(token in str(token_server.lines()) for token in ("may-infer", "may-control", "unknown"))
