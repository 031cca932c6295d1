"""The types of `service.client` as another project sees them."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio

import numpy as np

from service.client import RETRIES, Answer, AsyncInferenceClient, InferenceClient, ServerError, TrainingClient, request


def classify(address: str) -> list[int]:
    with InferenceClient(address, retry=RETRIES, timeout_s=5) as client:
        answer: Answer = client.infer("mnist1d-conv", {"x": np.zeros((2, 40), np.float32)})
        streamed = [each for each in client.stream([request("mnist1d-conv", {"x": np.zeros((1, 40), np.float32)})])]
        failed: list[ServerError] = [each for each in streamed if isinstance(each, ServerError)]
        print(len(failed), client.model("mnist1d-conv").inputs[0].shape)
    labels: list[int] = answer.outputs["probabilities"].argmax(axis=1).tolist()
    return labels


async def ask(addresses: list[str]) -> str:
    async with AsyncInferenceClient(addresses) as client:
        return (await client.infer("mnist1d-conv", {"x": np.zeros((1, 40), np.float32)})).version


def train() -> str:
    with TrainingClient() as client:
        return client.create(network="conv", recipe="quick").name


print(classify("127.0.0.1:8001"), asyncio.run(ask(["127.0.0.1:8001"])), train())
"""


@pytest.fixture
def check(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed here")

    def run(program: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "program.py").write_text(program)
        command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "program.py"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


def test_a_program_that_uses_the_client_is_clean_under_strict_mypy(check) -> None:
    done = check(PROGRAM)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_mistake_in_such_a_program_is_found(check) -> None:
    done = check(PROGRAM.replace("timeout_s=5", 'timeout_s="5"'))
    assert done.returncode == 1
    assert 'incompatible type "str"' in done.stdout
