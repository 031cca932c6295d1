from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING

import grpc
import pytest
from cryptography.hazmat.primitives import serialization

from service.config import ConfigError, ServerConfig
from service.pb import open_inference_pb2 as pb
from service.security.tls import CertificateFiles
from service.server.server import Server
from tests.certificates import Pair, Root
from tests.stubs.open_inference_pb2_grpc import GRPCInferenceServiceStub

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE_S = 30.0
"""Far beyond what a call takes; only a hang reaches it."""


@pytest.fixture
def root(tmp_path) -> Root:
    return Root(tmp_path)


@pytest.fixture
def stranger(tmp_path) -> Root:
    return Root(tmp_path, "stranger")


@pytest.fixture
def server_pair(root) -> Pair:
    return root.sign("server")


async def ask(port: int, credentials: grpc.ChannelCredentials | None) -> bool:
    """Whether ServerLive answers, with a connection of its own; raises AioRpcError."""
    # Otherwise channels of one process share a connection, and the handshake is the point.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    target = f"localhost:{port}"
    if credentials is None:
        channel = grpc.aio.insecure_channel(target, options)
    else:
        channel = grpc.aio.secure_channel(target, credentials, options)
    async with channel:
        response = await GRPCInferenceServiceStub(channel).ServerLive(pb.ServerLiveRequest(), timeout=DEADLINE_S)
        return response.live


async def is_refused(port: int, credentials: grpc.ChannelCredentials | None) -> bool:
    try:
        await ask(port, credentials)
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - gRPC's code for a failed connection
        return True
    return False


def trusting(root: Root, client: Pair | None = None) -> grpc.ChannelCredentials:
    if client is None:
        return grpc.ssl_channel_credentials(root.cert.read_bytes())
    return grpc.ssl_channel_credentials(root.cert.read_bytes(), client.key.read_bytes(), client.cert.read_bytes())


async def test_tls_on_every_port(repository, serving, root, stranger, server_pair) -> None:
    cert, key = server_pair.cert, server_pair.key
    settings = {"host": "localhost", "control_host": "localhost", "control_on_main_port": False, "control_port": 0}
    async with serving(repository, tls_cert=cert, tls_key=key, **settings) as server:
        for port in (server.port, server.control_port):
            assert await ask(port, trusting(root))
            assert await is_refused(port, None)
            assert await is_refused(port, trusting(stranger))


async def test_mutual_tls(repository, serving, root, stranger, server_pair) -> None:
    files = {"tls_cert": server_pair.cert, "tls_key": server_pair.key, "tls_client_ca": root.cert}
    async with serving(repository, host="localhost", **files) as server:
        assert await ask(server.port, trusting(root, root.sign("client")))
        assert await is_refused(server.port, trusting(root))
        assert await is_refused(server.port, trusting(root, stranger.sign("imposter")))


async def test_renewed_certificates_need_no_restart(repository, serving, root, stranger, server_pair) -> None:
    async with serving(repository, host="localhost", tls_cert=server_pair.cert, tls_key=server_pair.key) as server:
        assert await ask(server.port, trusting(root))
        renewed = stranger.sign("renewed")
        server_pair.cert.write_bytes(renewed.cert.read_bytes())
        # Half of the rotation: the old pair stays.
        assert await ask(server.port, trusting(root))
        assert await is_refused(server.port, trusting(stranger))
        server_pair.key.write_bytes(renewed.key.read_bytes())
        assert await ask(server.port, trusting(stranger))
        assert await is_refused(server.port, trusting(root))


def test_files_are_renewed_when_they_change_and_fit(root, server_pair, caplog) -> None:
    cert, key = server_pair.cert, server_pair.key
    certificates = CertificateFiles(cert, key)
    assert certificates.renewed() is None
    issued = root.sign("renewed")
    cert.write_bytes(issued.cert.read_bytes())
    for _ in range(3):
        assert certificates.renewed() is None
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "does not belong to the certificate" in caplog.records[0].reason
    key.write_bytes(issued.key.read_bytes())
    renewed = certificates.renewed()
    assert renewed is not None
    assert (renewed.chain, renewed.key) == (issued.cert.read_bytes(), issued.key.read_bytes())
    assert certificates.renewed() is None
    key.unlink()
    assert certificates.renewed() is None


def spoil(kind: str, root: Root, cert: Path, key: Path, roots: Path) -> None:
    match kind:
        case "no certificate file":
            cert.unlink()
        case "no key file":
            key.unlink()
        case "no roots file":
            roots.unlink()
        case "certificate is no PEM":
            cert.write_bytes(b"junk")
        case "certificate is DER":
            cert.write_bytes(bytes(range(256)))
        case "key is no PEM":
            key.write_bytes(b"junk")
        case "key is damaged":
            lines = key.read_bytes().splitlines(keepends=True)
            key.write_bytes(lines[0] + lines[-1])
        case "roots are no PEM":
            roots.write_bytes(b"junk")
        case "files are swapped":
            mixed = key.read_bytes(), cert.read_bytes()
            cert.write_bytes(mixed[0])
            key.write_bytes(mixed[1])
        case "key of another certificate":
            key.write_bytes(root.sign("other").key.read_bytes())
        case "encrypted key":
            loaded = serialization.load_pem_private_key(key.read_bytes(), None)
            protection = serialization.BestAvailableEncryption(b"secret")
            key.write_bytes(
                loaded.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
            )
        case "a directory":
            key.unlink()
            key.mkdir()


@pytest.mark.parametrize(
    ("kind", "setting", "says"),
    [
        ("no certificate file", "tls_cert", "cannot be read: No such file or directory"),
        ("no key file", "tls_key", "cannot be read: No such file or directory"),
        ("no roots file", "tls_client_ca", "cannot be read: No such file or directory"),
        ("certificate is no PEM", "tls_cert", "has no certificate in PEM form"),
        ("certificate is DER", "tls_cert", "has no certificate in PEM form"),
        ("key is no PEM", "tls_key", "has no private key in PEM form"),
        ("key is damaged", "tls_key", "cannot be used with tls_cert"),
        ("roots are no PEM", "tls_client_ca", "has no certificate in PEM form"),
        ("files are swapped", "tls_cert", "has no certificate in PEM form"),
        ("key of another certificate", "tls_key", "does not belong to the certificate in tls_cert"),
        ("encrypted key", "tls_key", "is encrypted"),
        ("a directory", "tls_key", "cannot be read: Is a directory"),
    ],
)
async def test_files_that_cannot_be_used_are_said_before_anything_listens(
    repository, root, server_pair, tmp_path, kind, setting, says
) -> None:
    cert, key = server_pair.cert, server_pair.key
    roots = tmp_path / "roots.pem"
    roots.write_bytes(root.cert.read_bytes())
    spoil(kind, root, cert, key, roots)
    config = ServerConfig(repository=repository, tls_cert=cert, tls_key=key, tls_client_ca=roots)
    with pytest.raises(ConfigError) as failure:
        Server(config)
    assert str(failure.value).startswith(f"{setting}: ")
    assert says in str(failure.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("tls_cert", "tls_cert: needs tls_key, which is not set"),
        ("tls_key", "tls_key: needs tls_cert, which is not set"),
        ("tls_client_ca", "tls_client_ca: needs tls_cert, which is not set"),
    ],
)
def test_half_a_pair_is_refused(tmp_path, given, says) -> None:
    with pytest.raises(ConfigError, match=says):
        ServerConfig(repository=tmp_path, **{given: tmp_path / "file"})


def caller(root: Root, client: Pair) -> ssl.SSLContext:
    """Of TLS 1.2, where servers may keep sessions."""
    context = ssl.create_default_context(cafile=str(root.cert))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(client.cert, client.key)
    return context


def call(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool]:
    """Connect; returns the session, and whether the server talks."""
    try:
        with (
            socket.create_connection(("localhost", port), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as secured,
        ):
            return secured.session, bool(secured.recv(9))
    except OSError:
        return None, False


async def test_a_session_from_before_is_no_way_around_the_roots_of_now(
    repository, serving, root, stranger, server_pair
) -> None:
    context = caller(root, root.sign("client"))
    files = {"tls_cert": server_pair.cert, "tls_key": server_pair.key, "tls_client_ca": tmp_copy(root)}
    async with serving(repository, host="localhost", **files) as server:
        session, is_served = await asyncio.to_thread(call, server.port, context, None)
        assert is_served
        files["tls_client_ca"].write_bytes(stranger.cert.read_bytes())
        _, is_served = await asyncio.to_thread(call, server.port, context, session)
        assert not is_served


def tmp_copy(root: Root) -> Path:
    """A file with the root that can be replaced."""
    copy = root.cert.with_suffix(".roots")
    copy.write_bytes(root.cert.read_bytes())
    return copy
