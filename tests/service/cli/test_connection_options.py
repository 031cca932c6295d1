"""What a command that is a client says of itself, against a server that asks for a certificate and a token."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from click.testing import CliRunner

from service.cli.commands import bench, predict
from tests.conftest import publish_affine

certificates = pytest.importorskip("tests.certificates")

COMMANDS = {
    "bench": (bench.command, ["--requests", "20", "--warm-up-s", "0"], lambda told: told["done"] == 20),
    "predict": (predict.command, ["x.npy"], lambda told: told["outputs"] == {"y": [[3, 3, 3]]}),
}


@pytest.fixture(params=COMMANDS)
async def ask(request, repository, serving, tmp_path, monkeypatch):
    """``await ask(*arguments)``: the exit code, and what was printed; certificates are given unless told otherwise."""
    publish_affine(repository)
    np.save(tmp_path / "x.npy", np.ones((1, 3), np.float32))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tokens").write_text("right\n")
    root = certificates.Root(tmp_path)
    pair, mine = root.sign("server"), root.sign("client")
    command, arguments, is_right = COMMANDS[request.param]
    settings = {"tls_cert": pair.cert, "tls_key": pair.key, "tls_client_ca": root.cert}
    async with serving(repository, inference_tokens=tmp_path / "tokens", **settings) as server:

        async def asked(*more: str, certificate: bool = True) -> tuple[int, str, bool]:
            files = [("--tls-ca", root.cert), *([("--tls-cert", mine.cert), ("--tls-key", mine.key)] * certificate)]
            line = ["--server", f"localhost:{server.port}", "--model", "affine", "--json", *arguments, *more]
            line += [str(word) for option in files for word in option]
            result = await asyncio.to_thread(CliRunner().invoke, command, line)
            return result.exit_code, result.output, result.exit_code == 0 and is_right(json.loads(result.stdout))

        yield asked


async def test_commands_know_certificates_and_tokens(ask) -> None:
    code, output, right = await ask("--token", "right")
    assert (code, right) == (0, True), output
    code, output, _ = await ask("--token", "wrong")
    assert code == 1
    assert "UNAUTHENTICATED" in output
    assert (await ask("--header", "authorization: Bearer right"))[2]
    assert (await ask("--token", "right", certificate=False))[0] == 4


@pytest.mark.parametrize("command", [bench.command, predict.command])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--server", "127.0.0.1"], "--server: got '127.0.0.1', expected host:port"),
        (["--server", ":8001"], "--server: got ':8001', expected host:port"),
        (["--server", "127.0.0.1:99999"], "--server: got '127.0.0.1:99999', expected host:port"),
        (["--server", "http://127.0.0.1:8001"], "--server: got 'http://127.0.0.1:8001', expected host:port"),
        (["--tls-ca", "nowhere.pem"], "TLS: "),
        (["--token", "a\nb"], "--token: expected printable ASCII"),
        (["--header", "te:trailers"], "none of gRPC's own"),
    ],
)
def test_what_cannot_be_used_is_said(command, arguments, says) -> None:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert says in result.output
