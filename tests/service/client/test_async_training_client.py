from __future__ import annotations

import asyncio
import inspect

import pytest

from service.client import AsyncTrainingClient, ServerError, TrainingClient
from service.client import training_operations as operations
from service.errors import Code


@pytest.fixture
async def client(fake_training, repository, serving):
    async with (
        serving(repository, training_slots=1) as server,
        AsyncTrainingClient(f"127.0.0.1:{server.port}", timeout_s=5) as connected,
    ):
        yield connected


def test_both_clients_take_the_same_arguments() -> None:
    def public(client):
        return {name: value for name, value in vars(client).items() if not name.startswith("_") or name == "__init__"}

    sync, asynchronous = public(TrainingClient), public(AsyncTrainingClient)
    assert sync.keys() == asynchronous.keys()
    for name in sync.keys() - {"list", "watch"}:
        assert inspect.signature(sync[name]) == inspect.signature(asynchronous[name]), name
    for name in ("list", "watch"):
        parameters = [inspect.signature(client[name]).parameters for client in (sync, asynchronous)]
        assert list(parameters[0]) == list(parameters[1]), name


async def test_a_run_from_its_creation_to_its_end(client) -> None:
    run = await client.create(publish_name="ok", overrides={"steps": 40}, seed=2)
    assert (run.state, run.is_done, run.result) == ("QUEUED", False, None)
    assert not (await client.wait(run.name, 0)).is_done
    done = await client.wait(run.name)
    assert (done.state, done.result.model_version, done.error) == ("SUCCEEDED", 1, None)
    assert (await client.get(run.name)).result == done.result
    events = [event.number async for event in client.watch(run.name, 3)]
    assert events == list(range(3, done.snapshot.last_event + 1))


async def test_runs_are_listed_over_several_pages_and_forgotten(client, monkeypatch) -> None:
    monkeypatch.setattr(operations, "PAGE", 2)
    names = [(await client.create(publish_name="disk-full", seed=seed)).name for seed in range(5)]
    failed = await asyncio.gather(*map(client.wait, names))
    assert {run.error.details.reason for run in failed} == {"DISK_FULL"}
    assert [run.name async for run in client.list("state = FAILED")] == names[::-1]
    await client.delete(names[0])
    assert [run.name async for run in client.list()] == names[:0:-1]


async def test_a_run_is_cancelled_and_watched_by_several(client) -> None:
    run = await client.create(publish_name="hangs")
    watching = [asyncio.create_task(last_event(client, run.name)) for _ in range(3)]
    async for event in client.watch(run.name):
        if event.WhichOneof("event") == "stage_started":
            await client.cancel(run.name)
    assert event.WhichOneof("event") == "done"
    assert {last.number for last in await asyncio.gather(*watching)} == {event.number}
    assert (await client.get(run.name)).error.code is Code.CANCELLED


async def last_event(client, name):
    return [event async for event in client.watch(name)][-1]


async def test_what_cannot_be_says_why(client) -> None:
    with pytest.raises(ServerError) as failure:
        await client.create(recipe="none", seed=-1)
    assert failure.value.code is Code.INVALID_ARGUMENT
    assert {violation.field for violation in failure.value.details.violations} >= {"recipe"}
    with pytest.raises(ValueError, match="no recipe has a field 'colour'"):
        await client.create(overrides={"colour": 1})
    with pytest.raises(ServerError, match="there is no operation") as failure:
        await anext(client.watch("operations/none"))
    assert failure.value.code is Code.NOT_FOUND


async def test_a_server_that_restarts_costs_a_watcher_nothing(fake_training, repository, serving) -> None:
    gaps: list[ServerError] = []
    async with serving(repository, training_slots=1) as server:
        port = server.port
        client = AsyncTrainingClient(f"127.0.0.1:{port}")
        run = await client.create(publish_name="ok", overrides={"steps": 300})
        events = client.watch(run.name, on_gap=gaps.append)
        numbers = [(await anext(events)).number for _ in range(3)]
    async with serving(repository, training_slots=1, port=port), client:
        numbers += [event.number async for event in events]
        done = await client.get(run.name, patience_s=30)
    assert {gap.code for gap in gaps} == {Code.UNAVAILABLE}
    assert done.state == "SUCCEEDED"
    assert numbers == list(range(1, done.snapshot.last_event + 1))


async def test_who_watches_gives_up_when_its_patience_is_over() -> None:
    gaps: list[ServerError] = []
    async with AsyncTrainingClient("127.0.0.1:1") as client:
        with pytest.raises(ServerError) as failure:
            await anext(client.watch("operations/1", patience_s=0.2, on_gap=gaps.append))
        with pytest.raises(ServerError):
            await client.get("operations/1", patience_s=0.2)
    assert failure.value.code is Code.UNAVAILABLE
    assert gaps


async def test_a_watcher_that_stops_watching_leaves_the_run_alone(client) -> None:
    run = await client.create(publish_name="ok", overrides={"steps": 100})
    watching = asyncio.create_task(last_event(client, run.name))
    await anext(client.watch(run.name))
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert (await client.wait(run.name)).state == "SUCCEEDED"
