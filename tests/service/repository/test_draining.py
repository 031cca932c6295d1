from __future__ import annotations

import asyncio
import gc
import threading

import numpy as np
import pytest

from service.repository.draining import Draining
from service.repository.loader import Loader
from service.repository.model_version import Cause, State
from service.repository.repository import Repository
from service.repository.version_policy import VersionPolicy
from tests.conftest import affine_model, publish_affine, put_plain
from tests.service.conftest import affine_request


@pytest.fixture(autouse=True)
def _no_garbage_collector():
    """References alone decide."""
    gc.disable()
    yield
    gc.enable()


def test_a_version_drains_as_long_as_somebody_holds_its_runner(repository) -> None:
    directory = put_plain(repository, "affine", affine_model())
    version = Loader().load("affine", 1, directory)
    draining = Draining()
    held = version.runner
    draining.add(version)
    del version
    (leaving,) = draining.versions()
    assert (leaving.name, leaving.version, leaving.state, leaving.cause, leaving.runner) == (
        "affine",
        1,
        State.UNLOADING,
        Cause.UNLOADED,
        None,
    )
    del held
    assert draining.versions() == ()


def test_a_replaced_version_is_seen_unloading_until_its_last_request_ends(repository) -> None:
    publish_affine(repository, scale=2)
    loaded = Repository(repository, VersionPolicy())
    loaded.load_all()
    held = loaded.get("affine")
    publish_affine(repository, scale=5)
    loaded.refresh()
    assert {n: v.state for n, v in loaded.models["affine"].versions.items()} == {1: State.UNLOADING, 2: State.READY}
    assert [version.version for version in loaded.models["affine"].ready] == [2]
    assert held.runner.run({"x": np.ones((1, 3), np.float32)}, ["y"])[0][0, 0] == 3
    del held
    assert list(loaded.models["affine"].versions) == [2]


def test_a_deleted_model_is_listed_until_it_has_drained_and_missed_by_nobody(repository) -> None:
    directory = publish_affine(repository)
    loaded = Repository(repository, VersionPolicy())
    loaded.load_all()
    held = loaded.get("affine")
    for path in sorted(directory.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    directory.rmdir()
    loaded.refresh()
    model = loaded.models["affine"]
    assert [version.state for version in model.versions.values()] == [State.UNLOADING]
    assert not model.is_required
    del model, held
    assert loaded.models == {}


async def test_a_request_that_runs_finishes_on_the_version_it_began_on(repository, serving, connect, monkeypatch):
    """The switch happens while the model computes."""
    from service.runtime.runner import Execution

    publish_affine(repository, scale=2)
    entered, go_on = threading.Event(), threading.Event()
    run = Execution.run

    def slow(execution, feeds, outputs, options):
        if len(feeds["x"]) == 5:
            entered.set()
            assert go_on.wait(60)
        return run(execution, feeds, outputs, options)

    async with serving(repository, repository_poll_s=3600) as server, connect(server) as stubs:
        execution = server.repository.get("affine").runner._execution
        execution._s_per_element = float("inf")  # not on the event loop
        monkeypatch.setattr(server.repository.get("affine").runner.batcher, "_run", slow.__get__(execution))
        running = asyncio.ensure_future(stubs.inference.ModelInfer(affine_request(batch=5)))
        assert await asyncio.to_thread(entered.wait, 60)
        publish_affine(repository, scale=5)
        await server.control.rescan()
        states = {n: v.state for n, v in server.repository.models["affine"].versions.items()}
        assert states == {1: State.UNLOADING, 2: State.READY}
        assert (await stubs.inference.ModelInfer(affine_request())).model_version == "2"
        go_on.set()
        answer = await running
        assert answer.model_version == "1"
        assert (np.frombuffer(answer.raw_output_contents[0], np.float32) == 3).all()
        monkeypatch.undo()
        del execution
        for _ in range(1000):
            if list(server.repository.models["affine"].versions) == [2]:
                break
            await asyncio.sleep(0.01)
        assert list(server.repository.models["affine"].versions) == [2]
