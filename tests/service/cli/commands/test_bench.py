from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto

from service.bench import generators
from service.cli.commands.bench import command
from service.client import AsyncInferenceClient
from tests.conftest import identity_model, publish_affine, put_plain
from tests.service.bench.peer import Peer, answer
from tests.service.bench.test_load import RIGHT, plan


@pytest.fixture
async def bench(repository, serving, tmp_path):
    publish_affine(repository)
    put_plain(repository, "digits", identity_model(TensorProto.FLOAT, ("batch", 40)))
    put_plain(repository, "half", identity_model(TensorProto.FLOAT16))
    put_plain(repository, "nan", identity_model(TensorProto.FLOAT))
    put_plain(repository, "free", identity_model(TensorProto.FLOAT, ("batch", "length")))
    async with serving(repository) as server:

        async def run(*arguments: object):
            line = [str(argument) for argument in arguments]
            for option, value in (
                ("--server", f"127.0.0.1:{server.port}"), ("--model", "affine"), ("--warm-up-s", "0.1")
            ):  # fmt: skip
                if option not in line:
                    line += [option, value]
            return await asyncio.to_thread(CliRunner().invoke, command, line)

        run.port = server.port
        run.nan = tmp_path / "nan.npy"
        np.save(run.nan, np.full((1, 2), np.nan, np.float32))
        yield run


async def test_a_closed_loop_answers_so_many_requests_and_says_how_fast(bench, tmp_path) -> None:
    result = await bench("--requests", 200, "--batch", 3, "--check", "--json", "--plot", tmp_path / "a.svg")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["load"], told["done"], told["failed"], told["batch"]) == ("closed", 200, 0, 3)
    assert told["rate"] > 0
    assert told["samples_rate"] == pytest.approx(3 * told["rate"], rel=1e-3)
    assert 0 < told["latency_ms"]["p50"] <= told["latency_ms"]["p99"] <= told["latency_ms"]["max"]
    assert ET.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")  # noqa: S314 - our own


async def test_an_open_loop_offers_its_rate_with_several_workers(bench) -> None:
    result = await bench("--rate", 100, "--duration-s", 1, "--workers", 2, "--json", "--typed")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["load"], told["contents"], told["sent"], told["done"]) == ("open", "typed", 100, 100)
    assert told["send_lag_ms"]["max"] > 0


@pytest.mark.parametrize("option", ["--streaming", "--vary-timeouts"])
async def test_requests_on_streams_and_with_timeouts_of_their_own(bench, option) -> None:
    result = await bench(option, "--requests", 100, "--check", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["done"], told["failed"]) == (100, 0)
    assert told[option.strip("-").replace("-", "_")] is True
    assert (await bench("--streaming", "--vary-timeouts")).exit_code == 2


async def test_the_table_is_for_people(bench) -> None:
    result = await bench("--requests", 20, "--connections", 1)
    assert result.exit_code == 0
    assert "affine at 127.0.0.1" in result.output
    for word in ("20 right, 0 failed", "requests/s", "p99.9", "generator"):
        assert word in result.output


@pytest.mark.parametrize("kind", ["examples", "file"])
async def test_inputs_can_be_given(bench, tmp_path, kind) -> None:
    np.save(tmp_path / "x.npy", np.ones((5, 40)))
    given = ["--examples"] if kind == "examples" else ["--input", f"x={tmp_path / 'x.npy'}"]
    result = await bench("--model", "digits", "--requests", 10, "--json", *given)
    assert json.loads(result.stdout)["done"] == 10


async def test_free_axes_are_given_by_shape(bench) -> None:
    result = await bench("--model", "free", "--shape", "x:7", "--requests", 10, "--json")
    assert json.loads(result.stdout)["done"] == 10


async def test_errors_are_shown_and_make_the_exit_code_1_and_what_was_not_measured_has_no_number(bench) -> None:
    arguments = ["--model", "nan", "--input", f"x={bench.nan}", "--requests", 10]
    result = await bench(*arguments)
    assert result.exit_code == 1, result.output
    assert "INVALID_ARGUMENT" in result.output
    assert "0 right, 10 failed" in result.output
    cells = [line.split() for line in result.output.splitlines()]
    assert [cell[-1] for cell in cells if cell[:1] in (["p50"], ["p99.9"], ["max"], ["mean"])] == ["-"] * 4
    told = json.loads((await bench(*arguments, "--rate", 100, "--json")).stdout)
    assert set(told["latency_ms"].values()) == {None}
    assert {interval["p50_ms"] for interval in told["intervals"]} == {None}


async def test_a_picture_that_cannot_be_written_after_all_costs_no_result(bench, tmp_path, monkeypatch) -> None:
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    result = await bench("--requests", 20, "--json", "--plot", tmp_path / "a.svg")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["done"] == 20
    assert "No space left on device" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--server", "127.0.0.1:1"], 4, "127.0.0.1:1 does not answer"),
        (["--server", "nowhere"], 2, "expected host:port"),
        (["--model", "nope"], 1, "NOT_FOUND"),
        (["--model", "free"], 2, "say --shape x:"),
        (["--model", "half", "--typed"], 2, "FP16 has no typed contents"),
        (["--workers", "5"], 2, "5 workers need at least as many --connections, got 4"),
        (["--rate", "0"], 2, "--rate"),
        (["--input", "x"], 2, "expected INPUT=FILE.npy"),
        (["--input", "x=nowhere.npy"], 2, "nowhere.npy"),
        (["--input", "x=a.npy", "--examples"], 2, "not both"),
        (["--shape", "x:a"], 2, "expected lengths such as"),
        (["--header", "grpc-timeout:1S"], 2, "none of gRPC's own"),
        (["--header", "novalue"], 2, "expected NAME:VALUE"),
        (["--tls-ca", "nowhere.pem"], 2, "TLS: "),
        (["--duration-s", "600", "--plot", "/nowhere/a.svg"], 2, "--plot /nowhere/a.svg: there is no directory"),
        (["--batch", "5000"], 2, "--batch: got 5000, model 'affine' takes at most 4096, the max_batch_size"),
    ],
)
async def test_exit_codes(bench, arguments, code, says) -> None:
    result = await bench(*arguments)
    assert result.exit_code == code, result.output
    assert says in result.output


@pytest.mark.parametrize("presses", [1, 2])
async def test_ctrl_c_shows_what_was_measured_even_if_it_is_told_twice(bench, presses) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service.cli", "bench", "--server", f"127.0.0.1:{bench.port}", "--model", "affine",
        "--duration-s", "600", "--warm-up-s", "0", "--json",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    async with asyncio.timeout(60), AsyncInferenceClient(f"127.0.0.1:{bench.port}") as client:
        while not (await client.statistics("affine"))[0].inferences:  # noqa: ASYNC110 - told by another process
            await asyncio.sleep(0.1)
        for _ in range(presses):
            os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = await process.communicate()
    assert process.returncode == 130, stderr
    told = json.loads(stdout)
    assert told["stopped"] == "interrupted"
    assert told["failed"] == 0
    assert b"Traceback" not in stderr


async def test_a_generator_whose_parent_is_gone_leaves_without_a_word() -> None:
    """A second Ctrl-C ends the command at once; its generators must not fill the terminal."""
    ours, theirs = multiprocessing.Pipe()
    ours.close()
    async with Peer(lambda _, stream, __: answer(stream, RIGHT)) as peer:
        await generators._talk(plan(peer.port, requests=None, duration_s=600.0, warm_up_s=0.0), theirs)
