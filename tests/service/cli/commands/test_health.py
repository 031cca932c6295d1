from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading

import pytest
from click.testing import CliRunner

from service.cli import main
from service.cli.commands.health import command
from tests.conftest import publish_affine, put_plain

certificates = pytest.importorskip("tests.certificates")


async def run(server, *arguments: str):
    line = ["--server", f"localhost:{server.port}", *map(str, arguments)]
    return await asyncio.to_thread(CliRunner().invoke, command, line)


async def test_the_exit_code_and_the_word_are_the_status(repository, serving) -> None:
    publish_affine(repository, "good")
    put_plain(repository, "bad", b"junk")
    async with serving(repository) as server:
        result = await run(server)
        assert (result.exit_code, result.output) == (
            1,
            "NOT_SERVING: inference.GRPCInferenceService, model/bad\n",
        )
        result = await run(server, "model/good")
        assert (result.exit_code, result.output) == (0, "SERVING\n")
        result = await run(server, "model/bad", "--json")
        assert result.exit_code == 1
        assert json.loads(result.output) == {"service": "model/bad", "status": "NOT_SERVING", "not_serving": []}
        result = await run(server, "model/other")
        assert result.exit_code == 1
        assert result.output.startswith("error: NOT_FOUND: unknown service 'model/other'")


async def test_certificates(repository, serving, tmp_path) -> None:
    publish_affine(repository)
    root = certificates.Root(tmp_path)
    pair, mine = root.sign("server"), root.sign("client")
    async with serving(repository, tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=root.cert) as server:
        ours = ("--tls-cert", mine.cert, "--tls-key", mine.key)
        assert (await run(server, "--tls-ca", root.cert, *ours)).output == "SERVING\n"
        for not_enough in (("--tls", *ours), ("--tls-ca", root.cert), ()):
            assert (await run(server, *not_enough)).exit_code == 4


async def test_a_container_says_by_variables_where_and_how(repository, serving, tmp_path) -> None:
    publish_affine(repository)
    root = certificates.Root(tmp_path)
    pair = root.sign("server")
    async with serving(repository, tls_cert=pair.cert, tls_key=pair.key) as server:
        variables = {"SERVER": f"127.0.0.1:{server.port}", "TLS_CA": str(root.cert), "TLS_NAME": "localhost"}
        env = {f"MNIST1D_HEALTH_{name}": value for name, value in variables.items()}
        result = await asyncio.to_thread(CliRunner().invoke, main, ["health"], env=env)
        assert (result.exit_code, result.output) == (0, "SERVING\n")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--server", "127.0.0.1:1"], 4, "error: 127.0.0.1:1 does not answer: "),
        (["--server", "127.0.0.1"], 2, "error: --server: got '127.0.0.1', expected host:port"),
        (["--tls-cert", "mine.pem"], 2, "error: TLS: give --tls-cert and --tls-key, or neither"),
        (["--tls-ca", "/nowhere.pem"], 2, "error: TLS: "),
        (["--timeout-s", "0"], 2, "Invalid value for '--timeout-s'"),
    ],
)
def test_what_cannot_be_asked(arguments, code, says) -> None:
    result = CliRunner().invoke(command, arguments)
    assert (result.exit_code, says in result.output) == (code, True), result.output


@pytest.mark.parametrize("options", [(), ("--tls",)])
def test_who_closes_at_once_is_told_of(options) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        result = CliRunner().invoke(command, ["--server", address, *options])
        thread.join()
    assert result.exit_code == 4
    _, _, reason = result.output.strip().partition(f"error: {address} does not answer: ")
    assert len(reason) > 10, result.output


def test_a_probe_imports_nothing_that_takes_time() -> None:
    program = (
        "import sys; import service.cli, service.cli.commands.health\n"
        "print(sorted({'grpc', 'numpy', 'onnx', 'onnxruntime', 'rich', 'uvloop'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
