"""Whatever dies, and whenever: a run goes on from its checkpoint, ends in the same weights, and is published once."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import random
import signal
import sys
import time
from pathlib import Path

import grpc
import pytest

from models.artifact.publication import versions
from service.client import TrainingClient
from service.errors import TrainingStoreBusy, TrainingStoreFull
from service.pb import training_pb2 as pb
from service.training.store import Store
from tests.fake_training import connected, metadata_of, result_of
from tests.processes import serve


def weights_after(steps: int, seed: int) -> str:
    """Of a fake that nothing interrupted."""
    weights = str(seed)
    for _ in range(steps):
        weights = hashlib.sha256(weights.encode()).hexdigest()
    return weights


def kinds(events) -> list[str]:
    return [event.WhichOneof("event") for event in events]


async def test_a_process_that_dies_is_followed_by_another_to_the_same_weights(training) -> None:
    async with training() as calls:
        operation = await calls.create("dies-once", steps=90, seed=7)
        result = result_of(await calls.wait(operation.name))
        assert result.weights_sha256 == weights_after(90, 7)
        events = await calls.events(operation.name)
        assert kinds(events).count("attempt_started") == 2
        (ended,) = [event.attempt_ended for event in events if event.WhichOneof("event") == "attempt_ended"]
        assert ended.reason == "the training process died: SIGKILL"
        starts = [event.training_started.start_step for event in events if kinds([event]) == ["training_started"]]
        assert starts == [0, 40]


async def test_what_was_published_before_its_process_died_is_not_published_again(training, repository) -> None:
    async with training() as calls:
        operation = await calls.create("dies-published")
        done = await calls.wait(operation.name)
        assert result_of(done).model_version == 1
        assert metadata_of(done).attempt == 1
        assert versions(repository / "dies-published") == [1]


async def test_a_cancellation_that_comes_after_the_publication_changes_nothing(training, monkeypatch) -> None:
    """The process is held back at its very end, where the version is there and nobody knows."""
    published, may_end = asyncio.Event(), asyncio.Event()
    from service.training.process import Child

    wait = Child.wait

    async def held_back(self) -> int:
        code = await wait(self)
        published.set()
        await may_end.wait()
        return code

    monkeypatch.setattr(Child, "wait", held_back)
    async with training() as calls:
        operation = await calls.create("dies-published")
        await published.wait()
        await calls.cancel(operation.name)
        may_end.set()
        assert result_of(await calls.wait(operation.name)).model_version == 1


async def test_a_cancellation_between_queue_and_slot_is_the_end(training, monkeypatch, repository) -> None:
    begin = Store.begin

    def cancelled_just_before(self, run_id):
        self.request_cancel(run_id)
        return begin(self, run_id)

    monkeypatch.setattr(Store, "begin", cancelled_just_before)
    async with training() as calls:
        operation = await calls.create()
        assert (await calls.wait(operation.name)).error.code == 1
        assert kinds(await calls.events(operation.name)) == ["queued", "cancel_requested", "done"]
    assert not (repository / "ok").exists()


async def test_a_server_that_stops_leaves_a_checkpoint_and_the_next_one_goes_on(training) -> None:
    async with training() as calls:
        operation = await calls.create(steps=300, seed=5)
        await calls.until(operation.name, "checkpoint_saved")
        before = metadata_of(await calls.get(operation.name)).last_event
    async with training() as calls:
        result = result_of(await calls.wait(operation.name))
        assert result.weights_sha256 == weights_after(300, 5)
        events = await calls.events(operation.name, first=before)
        assert [event.number for event in events] == list(range(before, before + len(events)))
        assert kinds(events).count("attempt_started") == 1
        (ended,) = [event.attempt_ended for event in events if kinds([event]) == ["attempt_ended"]]
        assert ended.reason == "the server stops"


async def test_of_two_servers_one_runs_the_runs_both_answer_and_the_other_one_takes_over(
    fake_training, repository, serving
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(contextlib.AsyncExitStack())
        servers = [await first.enter_async_context(serving(repository, training_slots=1))]
        servers.append(await stack.enter_async_context(serving(repository, training_slots=1)))
        one, two = [await stack.enter_async_context(connected(server)) for server in servers]
        leaders = [server._training.jobs.is_leader for server in servers]
        assert leaders == [True, False]
        # Asked of one that leads, or of the other: the same run.
        operation = await two.create(steps=400, seed=2)
        await two.until(operation.name, "checkpoint_saved")
        watching = asyncio.create_task(two.events(operation.name))
        assert metadata_of(await one.get(operation.name)).state == pb.RUNNING
        other = await one.create("hangs")
        await two.cancel(other.name)
        assert (await one.wait(other.name)).error.code == 1
        await first.aclose()
        result = result_of(await two.wait(operation.name))
        assert result.weights_sha256 == weights_after(400, 2)
        assert kinds(await watching)[-1] == "done"
        assert servers[1]._training.jobs.is_leader


async def test_a_cancellation_asked_of_a_server_that_does_not_lead_is_obeyed(
    fake_training, repository, serving
) -> None:
    async with (
        serving(repository, training_slots=1) as leader,
        serving(repository, training_slots=1) as other,
        connected(leader) as one,
        connected(other) as two,
    ):
        operation = await one.create("hangs")
        await one.until(operation.name, "stage_started")
        await two.cancel(operation.name)
        assert (await two.wait(operation.name)).error.code == 1


async def test_a_disk_that_takes_no_event_fails_the_run_and_its_end_is_told_when_there_is_room(
    training, repository, monkeypatch, caplog
) -> None:
    add_events, end, tries = Store.add_events, Store.end, []

    def full_after_some(self, run_id, bodies):
        if any(body["event"] == "checkpoint_saved" for body in bodies):
            raise TrainingStoreFull("the file of training runs cannot be written: database or disk is full")
        add_events(self, run_id, bodies)

    def full_at_first(self, *args, **kwargs):
        tries.append(args)
        if len(tries) < 3:
            raise TrainingStoreFull("the file of training runs cannot be written: database or disk is full")
        return end(self, *args, **kwargs)

    monkeypatch.setattr(Store, "add_events", full_after_some)
    monkeypatch.setattr(Store, "end", full_at_first)
    async with training() as calls:
        done = await calls.wait((await calls.create(steps=200)).name)
        assert done.error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert "database or disk is full" in done.error.message
    assert [path.name for path in repository.iterdir()] == [".training"]
    assert list((repository / ".training" / "runs").iterdir()) == []
    assert len(tries) == 3


async def test_a_store_that_is_busy_costs_an_attempt_and_not_the_run(training, monkeypatch) -> None:
    add_events, busy = Store.add_events, [True]

    def busy_once(self, run_id, bodies):
        if busy and busy.pop():
            raise TrainingStoreBusy("locked")
        add_events(self, run_id, bodies)

    monkeypatch.setattr(Store, "add_events", busy_once)
    async with training() as calls:
        done = await calls.wait((await calls.create(seed=1)).name)
        assert result_of(done).weights_sha256 == weights_after(40, 1)
        assert metadata_of(done).attempt == 2


async def test_a_defect_fails_the_run_with_a_traceback_in_the_log_and_no_detail(training, monkeypatch, caplog) -> None:
    monkeypatch.setattr("service.training.scheduler.result_of", lambda _: 1 / 0)
    async with training() as calls:
        done = await calls.wait((await calls.create()).name)
    assert (done.error.code, done.error.message) == (13, "internal error; the server's log has the details")
    assert any(record.exc_info for record in caplog.records if record.levelno == logging.ERROR)


async def test_what_is_left_of_runs_that_are_done_is_removed_by_the_next_leader(training, repository) -> None:
    left = repository / ".training" / "runs" / "gone"
    left.mkdir(parents=True)
    async with training() as calls:
        await calls.wait((await calls.create()).name)
    assert not left.exists()


@pytest.mark.parametrize("seed", range(3))
def test_a_server_that_is_killed_at_a_random_moment_loses_nothing(fake_training, repository, tmp_path, seed) -> None:
    moment_s = random.Random(seed).uniform(0, 1.2)
    program = (sys.executable, str(Path(__file__).parent / "fake_server.py"))
    options = ("--training-slots", "1")
    with serve(repository, tmp_path / "log", *options, program=program) as server:
        with TrainingClient(f"127.0.0.1:{server.port}") as client:
            # Told means kept: from here on the run is there, whatever happens.
            run = client.create(publish_name="ok", seed=seed, overrides={"steps": 300, "validation": 500})
            time.sleep(moment_s)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    with serve(repository, tmp_path / "log", *options, program=program) as server:
        with TrainingClient(f"127.0.0.1:{server.port}") as client:
            events = list(client.watch(run.name))
            assert [event.number for event in events] == list(range(1, len(events) + 1))
            done = client.wait(run.name)
        assert server.stop() == 0
    assert done.result is not None, done.error
    assert done.result.weights_sha256 == weights_after(300, seed)
    assert versions(repository / "ok") == [1]
