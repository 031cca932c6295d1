from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.client import InferenceClient

pytestmark = pytest.mark.needs_torch
SCRIPT = Path(__file__).with_name("triton_call.py")


@pytest.mark.parametrize("name", ["mnist1d-conv", "mnist1d-fc"])
def test_tritonclient_in_a_process_of_its_own_gets_the_same_numbers(server, trained, tmp_path, name) -> None:
    source, target = tmp_path / "x.npy", tmp_path / "answers.npz"
    np.save(source, trained.test.x_BL)
    address = f"127.0.0.1:{server.port}"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), address, name, str(source), str(target)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    with np.load(target) as triton, InferenceClient(address) as client:
        ours = client.infer(name, {"x": trained.test.x_BL}).outputs
        assert triton["probabilities"].tobytes() == ours["probabilities"].tobytes()
        assert triton["logits"].tobytes() == ours["logits"].tobytes()
        assert str(triton["id"]) == "from tritonclient"
        assert str(triton["server"]) == "mnist1d-service"
        assert str(triton["unknown"]) == "StatusCode.NOT_FOUND Request for unknown model: 'nope' is not found"
