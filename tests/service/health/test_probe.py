from __future__ import annotations

import asyncio
import select
import socket
import ssl
import threading
from contextlib import suppress

import pytest

from service.health import probe
from service.wire import frames
from tests.conftest import publish_affine, put_plain

certificates = pytest.importorskip("tests.certificates")


async def ask(server, service: str = "", **options) -> probe.Health:
    arguments = {"timeout_s": 10, "tls": None, "tls_name": None, **options}
    return await probe.ask("127.0.0.1", server.port, service, **arguments)


async def test_a_server_that_serves(repository, serving) -> None:
    publish_affine(repository, "good")
    async with serving(repository) as server:
        for service in ("", "inference.GRPCInferenceService", "model/good", "liveness"):
            assert await ask(server, service) == probe.Health("SERVING")


async def test_a_server_that_does_not_serve_says_which_model_is_to_blame(repository, serving) -> None:
    publish_affine(repository, "good")
    put_plain(repository, "bad", b"junk")
    async with serving(repository) as server:
        assert await ask(server) == probe.Health("NOT_SERVING", ("inference.GRPCInferenceService", "model/bad"))
        assert await ask(server, "model/bad") == probe.Health("NOT_SERVING")
        assert await ask(server, "model/good") == probe.Health("SERVING")
        assert await ask(server, "liveness") == probe.Health("SERVING")


async def test_a_name_that_is_unknown_is_refused_in_the_servers_words(repository, serving) -> None:
    publish_affine(repository, "good")
    async with serving(repository) as server:
        with pytest.raises(probe.Refused, match=r"NOT_FOUND: unknown service 'model/other'; known are .*'liveness'"):
            await ask(server, "model/other")


async def test_encrypted(repository, serving, tmp_path) -> None:
    publish_affine(repository)
    root = certificates.Root(tmp_path)
    pair, mine = root.sign("server"), root.sign("client")
    async with serving(repository, tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=root.cert) as server:
        trusting = ssl.create_default_context(cafile=root.cert)
        trusting.set_alpn_protocols(["h2"])
        with pytest.raises(probe.Unreachable):
            await ask(server, tls=trusting, tls_name="localhost")
        with pytest.raises(probe.Unreachable):
            await ask(server)
        trusting.load_cert_chain(mine.cert, mine.key)
        assert await ask(server, tls=trusting, tls_name="localhost") == probe.Health("SERVING")
        with pytest.raises(probe.Unreachable, match="certificate"):
            await ask(server, tls=trusting, tls_name="elsewhere")


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (None, "closed the connection|reset by peer"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "broke the protocol"),
        (b"", r"no answer within 0\.3 s"),
    ],
)
async def test_somebody_who_does_not_speak_the_protocol(says, why) -> None:
    connections = []

    def talk(_reader, writer) -> None:
        connections.append(writer)
        if says is None:
            writer.close()
        else:
            writer.write(says)

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(probe.Unreachable, match=why):
            await probe.ask("127.0.0.1", port, timeout_s=0.3, tls=None, tls_name=None)
        for writer in connections:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def test_somebody_who_never_answers_a_goodbye_over_tls(tmp_path) -> None:
    root = certificates.Root(tmp_path)
    pair = root.sign("server")
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(pair.cert, pair.key)
    theirs.set_alpn_protocols(["h2"])
    mine = ssl.create_default_context(cafile=root.cert)
    mine.set_alpn_protocols(["h2"])
    asked, seen = threading.Event(), []

    def talk(listener: socket.socket) -> None:
        with theirs.wrap_socket(listener.accept()[0], server_side=True) as connection:
            connection.sendall(frames.settings({}))
            asked.wait()
            poll = select.poll()
            poll.register(connection, select.POLLRDHUP)
            seen.extend(poll.poll(5_000))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=talk, args=[listener])
        thread.start()
        with pytest.raises(probe.Unreachable, match=r"no answer within 0\.3 s"):
            await probe.ask("127.0.0.1", listener.getsockname()[1], timeout_s=0.3, tls=mine, tls_name="localhost")
        asked.set()
        await asyncio.to_thread(thread.join)
    assert seen, "the connection was left open"


async def test_nobody() -> None:
    with pytest.raises(probe.Unreachable, match="Connect call failed"):
        await probe.ask("127.0.0.1", 1, timeout_s=5, tls=None, tls_name=None)
