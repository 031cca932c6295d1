"""Other people's HTTP/2: nghttp, curl and h2load, with TLS and without. Debian has them in nghttp2-client and curl."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from service.security.tls import CertificateFiles
from tests.certificates import Root
from tests.service.transport.http2 import wire
from tests.service.transport.http2.host import HANG_S, hosted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GRPC = ("-H", "content-type: application/grpc", "-H", "te: trailers")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, timeout=HANG_S, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("latin-1")


def statuses(said: str) -> list[str]:
    """Every grpc-status in what nghttp says, which is in colours."""
    return re.findall(r"grpc-status: ([0-9]+)", re.sub(r"\x1b\[[0-9;]*m", "", said))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Root:
    return Root(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", params=["plain", "TLS"])
def url(request, root) -> Iterator[str]:
    """Of a server, without a path."""
    pair = root.sign("server")
    certificates = CertificateFiles(pair.cert, pair.key) if request.param == "TLS" else None
    with hosted("http2", certificates, max_metadata_bytes=64 * 1024) as host:
        yield f"{'https' if certificates else 'http'}://localhost:{host.port}"


@pytest.fixture
def body(tmp_path) -> Path:
    file = tmp_path / "message"
    file.write_bytes(wire.message(b"m" * 40_000))
    return file


@needs("nghttp")
def test_nghttp(url, body) -> None:
    said = run("nghttp", "-v", "-n", *GRPC, "-d", body, f"{url}/wire.Test/Echo")
    assert statuses(said) == ["0"]
    assert "DATA frame <length=" in said
    assert "GOAWAY frame <length=8" in said  # its own, at its end
    refused = run("nghttp", "-v", "-n", *GRPC, "-d", body, f"{url}/no.such/Method")
    assert statuses(refused) == ["12"]


@needs("nghttp")
def test_nghttp_with_a_small_window_padding_and_continuation(url, body) -> None:
    options = ["-w", "10", "-W", "10", "--padding=100", "--continuation", "-m", "5"]
    said = run("nghttp", "-v", "-n", *options, *GRPC, "-d", body, f"{url}/wire.Test/Echo")
    assert statuses(said) == ["0"] * 5


@needs("curl")
def test_curl(url, body, root, tmp_path) -> None:
    answer = tmp_path / "answer"
    options = ["--silent", "--noproxy", "*", "--cacert", root.cert, "-D", "-", "-o", answer]
    if url.startswith("http:"):
        options.append("--http2-prior-knowledge")
    said = run("curl", *options, *GRPC, "--data-binary", f"@{body}", f"{url}/wire.Test/Echo")
    assert said.startswith("HTTP/2 200")
    assert "grpc-status: 0" in said
    assert answer.read_bytes() == body.read_bytes()
    assert "HTTP/2 405" in run("curl", *options, f"{url}/wire.Test/Echo")


@needs("curl")
def test_curl_without_http2_is_sent_away(url, root) -> None:
    command = ["curl", "--silent", "--noproxy", "*", "--http1.1", "--cacert", root.cert, f"{url}/wire.Test/Echo"]
    done = subprocess.run([str(part) for part in command], capture_output=True, timeout=HANG_S, check=False)
    assert done.returncode != 0
    assert b"HTTP/1.1 200" not in done.stdout


@needs("h2load")
def test_h2load(url, tmp_path) -> None:
    small = tmp_path / "small"
    small.write_bytes(wire.message())
    said = run("h2load", "-n", "2000", "-c", "4", "-m", "16", *GRPC, "-d", small, f"{url}/wire.Test/Echo")
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in said
    assert "status codes: 2000 2xx" in said


def test_tls_speaks_http2_or_nothing(root) -> None:
    """RFC 9113, section 3.2: over TLS the protocol is agreed on by ALPN; section 9.2: TLS 1.2 at least."""
    pair = root.sign("server")
    with hosted("http2", CertificateFiles(pair.cert, pair.key)) as host:
        for protocols, agreed in ((["h2"], "h2"), (["http/1.1", "h2"], "h2"), (["http/1.1"], None), ([], None)):
            context = ssl.create_default_context(cafile=str(root.cert))
            if protocols:
                context.set_alpn_protocols(protocols)
            plain = socket.create_connection(("127.0.0.1", host.port), timeout=HANG_S)
            try:
                with context.wrap_socket(plain, server_hostname="localhost") as secured:
                    assert secured.selected_alpn_protocol() == agreed
                    assert secured.version() in ("TLSv1.2", "TLSv1.3")
                    first = secured.recv(9)
                    assert bool(first) == (agreed is not None), "whoever has not agreed to HTTP/2 is told nothing"
            except (ssl.SSLError, ConnectionError):
                assert agreed is None
