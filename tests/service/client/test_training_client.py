"""The typed client of training; its calls through a server are those of ``mnist1d runs``, tested there."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.client import AsyncTrainingClient, ServerError, TrainingClient
from service.client.training_run import create_request
from service.errors import Code
from service.pb import training_pb2 as pb

DOCUMENT = Path(__file__).parents[3] / "docs" / "training-service.md"


def test_overrides_become_the_contracts_typed_fields() -> None:
    request = create_request(
        network="conv",
        overrides={"learning_rate": 1e-3, "augmentation": False, "augmentation.noise": 0.5, "init": "he"},
        seed=2**62,
        gate="model/3",
    )
    assert request == pb.CreateTrainingRunRequest(
        network="conv",
        overrides=pb.RecipeOverrides(
            learning_rate=1e-3, init="he", augmentation=pb.AugmentationOverrides(enabled=False, noise=0.5)
        ),
        seed=2**62,
        gate=pb.Gate(model="model/3"),
    )
    assert create_request(gate="serving") == pb.CreateTrainingRunRequest(gate=pb.Gate(serving=True))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"overrides": {"colour": 1}}, "no recipe has a field 'colour'"),
        ({"overrides": {"augmentation.colour": 1}}, "no recipe has a field 'augmentation.colour'"),
        ({"overrides": {"other.noise": 1}}, "no recipe has a field 'other.noise'"),
        ({"overrides": {"enabled": True}}, "no recipe has a field 'enabled'"),
        ({"overrides": {1: 2}}, "no recipe has a field 1"),
        ({"overrides": [1]}, r"overrides: got \[1\], expected fields of a recipe"),
        ({"overrides": None}, "overrides: got None, expected fields"),
        ({"overrides": {"steps": "many"}}, "overrides.steps: got 'many', expected a whole number"),
        ({"overrides": {"steps": 2**70}}, f"overrides.steps: got {2**70}, expected a whole number of 64 bits"),
        ({"overrides": {"steps": True}}, "overrides.steps: got True, expected a whole number"),
        ({"overrides": {"steps": 3.0}}, "overrides.steps: got 3.0, expected a whole number"),
        ({"overrides": {"learning_rate": False}}, "overrides.learning_rate: got False, expected a number"),
        ({"overrides": {"augmentation": 1}}, "overrides.augmentation: got 1, expected true or false"),
        ({"overrides": {"augmentation.noise": "1"}}, "overrides.augmentation.noise: got '1', expected a number"),
        ({"seed": 2**70}, "seed: got"),
        ({"seed": True}, "seed: got True, expected a whole number"),
        ({"gate": True}, "gate: got True, expected text"),
        ({"gate": {"serving": True}}, "gate: got {'serving': True}, expected text"),
        ({"gate": 0}, "gate: got 0, expected text"),
        ({"recipe": b"best"}, "recipe: got b'best', expected text"),
        ({"network": "\ud800"}, "network: got '\\\\ud800', expected text"),
        *(({field: 5}, f"^{field}: got 5, expected text") for field in ("network", "recipe", "publish_name", "engine")),
        ({"request_id": None}, "request_id: got None, expected text"),
    ],
)
def test_what_the_contract_cannot_carry_is_a_value_error_that_names_the_field(arguments, says) -> None:
    with pytest.raises(ValueError, match=says):
        create_request(**arguments)


def test_numbers_of_numpy_are_numbers() -> None:
    overrides = {"steps": np.int64(7), "learning_rate": np.float32(0.5), "momentum": 0}
    assert create_request(overrides=overrides, seed=np.int32(3)) == pb.CreateTrainingRunRequest(
        seed=3, overrides=pb.RecipeOverrides(steps=7, learning_rate=0.5, momentum=0)
    )
    with pytest.raises(ValueError, match=r"overrides.steps: got np.True_"):
        create_request(overrides={"steps": np.True_})


def test_an_address_without_a_port_is_told_the_port_of_training() -> None:
    for client in (TrainingClient, AsyncTrainingClient):
        with pytest.raises(ValueError, match=r"target: got 'localhost', expected host:port such as 127.0.0.1:8003"):
            client("localhost")


def test_a_call_with_an_argument_of_another_type_is_a_value_error_before_it_is_sent() -> None:
    with TrainingClient("127.0.0.1:1") as client:
        for method in ("get", "wait", "cancel", "delete"):
            with pytest.raises(ValueError, match="name: got 5, expected text"):
                getattr(client, method)(5)
        with pytest.raises(ValueError, match="name: got 5, expected text"):
            next(client.watch(5))
        with pytest.raises(ValueError, match="from_event: got True, expected a whole number"):
            next(client.watch("operations/1", True))
        with pytest.raises(ValueError, match="filter_text: got 5, expected text"):
            next(client.list(5))
        with pytest.raises(ValueError, match="recipe: got 5, expected text"):
            client.create(recipe=5)


async def test_a_run_through_the_client(training, fake_training, repository, serving) -> None:
    def use(port: int) -> None:
        with TrainingClient(f"127.0.0.1:{port}", timeout_s=5) as client:
            run = client.create(publish_name="ok", overrides={"steps": 40}, seed=2)
            assert (run.state, run.is_done, run.result) == ("QUEUED", False, None)
            assert not client.wait(run.name, 0).is_done
            done = client.wait(run.name)
            assert (done.state, done.result.model_version, done.error) == ("SUCCEEDED", 1, None)
            assert [event.number for event in client.watch(run.name, 3)] == list(range(3, done.snapshot.last_event + 1))
            failed = client.wait(client.create(publish_name="disk-full").name)
            assert (failed.error.code, failed.error.details.reason) == (Code.RESOURCE_EXHAUSTED, "DISK_FULL")
            assert [each.name for each in client.list("state = FAILED")] == [failed.name]
            with pytest.raises(ServerError, match="there is no operation") as failure:
                next(client.watch("operations/none"))
            assert failure.value.code is Code.NOT_FOUND
            client.delete(run.name)
            assert [each.name for each in client.list()] == [failed.name]

    async with serving(repository, training_slots=1) as server:
        await asyncio.to_thread(use, server.port)


def test_who_watches_gives_up_when_its_patience_is_over() -> None:
    gaps = []
    with TrainingClient("127.0.0.1:1") as client, pytest.raises(ServerError) as failure:
        next(client.watch("operations/1", patience_s=0.2, on_gap=gaps.append))
    assert failure.value.code is Code.UNAVAILABLE
    assert gaps
    with TrainingClient("127.0.0.1:1") as client, pytest.raises(ServerError):
        client.get("operations/1", patience_s=0.2)


@pytest.mark.parametrize("which", [0, 1])
async def test_the_examples_of_the_document_run_as_printed(fake_training, repository, serving, which) -> None:
    example = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[which]
    # Under a name with which the fake takes no time.
    program = example.replace(', publish_name="mnist1d-gated"', "").replace(
        "client.create(", 'client.create(publish_name="fast", '
    )
    async with serving(repository, training_slots=1) as server:
        program = program.replace("127.0.0.1:8003", f"127.0.0.1:{server.port}")
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
        )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "1 queued"
    assert len([line for line in lines if line.endswith(" done")]) == 1
    assert done.stdout.count('model_name: "fast"') == (1, 3)[which]
