"""Training in a server as a whole: settings, rights, health, reflection, what is left when it is off."""

from __future__ import annotations

import asyncio
import sqlite3

import grpc
import pytest

from service.client import InferenceClient
from service.config import ConfigError, ServerConfig
from service.security.access import Access
from service.server.server import Server
from service.training.service import TrainingService
from tests.fake_training import connected
from tests.reflected import Reflected


def test_training_without_torch_is_refused_and_told_how_to_get_it(repository, monkeypatch) -> None:
    monkeypatch.setattr("service.config.TRAINING_MODULES", ("no_such_torch",))
    with pytest.raises(
        ConfigError, match=r"training_slots: training needs no_such_torch.*pip install -e '\.\[train\]'"
    ):
        ServerConfig(repository=repository, training_slots=1)
    ServerConfig(repository=repository)


def test_training_without_control_is_refused(repository, monkeypatch) -> None:
    monkeypatch.setattr("service.config.TRAINING_MODULES", ())
    with pytest.raises(ConfigError, match="training_slots: needs control, which is turned off"):
        ServerConfig(repository=repository, training_slots=1, control=False)


@pytest.mark.parametrize("what", ["a file", "another format"])
async def test_a_directory_that_cannot_keep_runs_is_told_before_anything_runs(
    fake_training, repository, tmp_path, what
) -> None:
    directory = tmp_path / "runs"
    if what == "a file":
        directory.write_text("")
    else:
        directory.mkdir()
        other = sqlite3.connect(directory / "runs.sqlite3")
        other.execute("PRAGMA user_version = 99")
        other.close()
    with pytest.raises(ConfigError, match=r"training_dir: .* cannot keep training runs"):
        Server(ServerConfig(repository=repository, training_slots=1, training_dir=directory))


async def test_every_method_of_training_needs_control(training, fake_training, repository, serving) -> None:
    async with serving(repository, training_slots=1) as server:
        rows = [method for method in server.methods if method.path.split("/")[1] in TrainingService.services]
        assert len(rows) == 7
        assert {method.access for method in rows} == {Access.CONTROL}


async def test_the_main_port_says_where_training_is(fake_training, repository, serving) -> None:
    apart = {"control_on_main_port": False, "control_port": 0}
    async with serving(repository, training_slots=1, **apart) as server, connected(server) as calls:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await calls.create()
        assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert f"127.0.0.1:{server.control_port} only" in failure.value.details()


async def test_the_services_have_a_health_of_their_own(fake_training, repository, serving) -> None:
    async with serving(repository, training_slots=1) as server:
        with InferenceClient(f"127.0.0.1:{server.port}") as client:
            for name in TrainingService.services:
                assert await asyncio.to_thread(client.health, name) == "SERVING"
            # Of a repository without models.
            assert await asyncio.to_thread(client.health) == "NOT_SERVING"


async def test_a_client_that_knows_no_contract_learns_it_from_reflection(fake_training, repository, serving) -> None:
    def as_grpcurl_does(port: int) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            reflected = Reflected(channel)
            assert {*TrainingService.services} <= set(reflected.list())
            request = '{"publishName": "ok", "overrides": {"steps": 20}, "seed": "3"}'
            created = reflected.call("mnist1d.training.v1.Training/CreateTrainingRun", request)
            name = f'{{"name": "{created["name"]}"}}'
            # The types within Any are found too.
            assert created["metadata"]["@type"] == "type.googleapis.com/mnist1d.training.v1.TrainingRunMetadata"
            assert created["metadata"]["publishName"] == "ok"
            *_, last = reflected.call("mnist1d.training.v1.Training/WatchTrainingRun", name)
            assert last["done"]["response"]["modelName"] == "ok"
            done = reflected.call("google.longrunning.Operations/WaitOperation", name)
            assert done["response"]["modelVersion"] == "1"
            wrong = '{"publishName": "dies"}'
            failed = reflected.call("mnist1d.training.v1.Training/CreateTrainingRun", wrong)
            done = reflected.call("google.longrunning.Operations/WaitOperation", f'{{"name": "{failed["name"]}"}}')
            assert done["error"]["details"][0]["reason"] == "TRAINING_DIED"

    async with serving(repository, training_slots=1) as server:
        await asyncio.to_thread(as_grpcurl_does, server.port)
