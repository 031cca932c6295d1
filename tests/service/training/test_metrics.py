"""The metrics of training: those of one process, and those of several on one store, which must add up to the truth."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from models.training.recipes import recipe
from service.training import failures
from service.training.metrics import BOUNDS_S, Tally, UnderWay
from service.training.request import RunSpec
from service.training.run import Failure, Run, RunState
from service.workers.totals import Totals, dump, load
from tests.fake_training import connected

RUN = Run(
    number=1,
    run_id="a",
    spec=RunSpec(recipe("quick").to_dict(), "quick", "mnist1d-conv"),
    state=RunState.SUCCEEDED,
    is_cancelling=False,
    created_s=100.0,
    started_s=110.0,
    ended_s=150.0,
    attempts=1,
    last_event=9,
    snapshot={},
    result={},
    failure=None,
)


def values(families) -> dict[tuple[str, ...], float]:
    """By name and label values."""
    return {
        (f"{family.name.removeprefix('mnist1d_training_')}{suffix}", *labels.values()): value
        for family in families
        if family.name.startswith("mnist1d_training_")
        for suffix, labels, value in family.samples
    }


def failed(reason: str, state: RunState = RunState.FAILED) -> Run:
    return replace(RUN, state=state, failure=Failure(13, "why", reason))


def test_every_end_is_there_from_the_start() -> None:
    found = values(Tally().families())
    assert set(found.values()) == {0}
    assert {key[1:] for key in found if key[0] == "runs_finished_total"} == {
        ("SUCCEEDED", "NONE"),
        ("CANCELLED", "CANCELLED"),
        *(("FAILED", reason) for reason in failures.REASONS),
    }
    assert [found["run_duration_seconds_count", state] for state in ("SUCCEEDED", "FAILED", "CANCELLED")] == [0, 0, 0]


def test_ends_are_counted_by_outcome_and_reason_and_measured_by_outcome() -> None:
    tally = Tally()
    never_began = replace(failed("CANCELLED", RunState.CANCELLED), started_s=None)
    for run in (RUN, replace(RUN, ended_s=111.0), failed("DISK_FULL"), failed("BRAND_NEW"), never_began):
        tally.ended(run)
    found = values(tally.families())
    assert found["runs_finished_total", "SUCCEEDED", "NONE"] == 2
    assert found["runs_finished_total", "FAILED", "DISK_FULL"] == 1
    assert found["runs_finished_total", "FAILED", "BRAND_NEW"] == 1
    assert found["runs_finished_total", "CANCELLED", "CANCELLED"] == 1
    assert found["run_duration_seconds_sum", "SUCCEEDED"] == 41.0
    buckets = {bound: found["run_duration_seconds_bucket", "SUCCEEDED", str(float(bound))] for bound in BOUNDS_S}
    assert [buckets[bound] for bound in (1, 30, 60, 21600)] == [1, 1, 2, 2]
    assert found["run_duration_seconds_count", "FAILED"] == 2
    assert found["run_duration_seconds_count", "CANCELLED"] == 0


def test_a_clock_that_was_set_back_takes_nothing_away() -> None:
    tally = Tally()
    tally.ended(replace(RUN, ended_s=90.0))
    assert values(tally.families())["run_duration_seconds_sum", "SUCCEEDED"] == 0.0


def test_runs_under_way_are_counted_by_state() -> None:
    tally = Tally()
    states = (RunState.RUNNING, RunState.QUEUED, RunState.QUEUED)
    tally.see(UnderWay.of([replace(RUN, state=state) for state in states], 4))
    found = values(tally.families())
    assert (found["slots",], found["runs", "QUEUED"], found["runs", "RUNNING"]) == (4, 2, 1)


# ---- of servers ------------------------------------------------------------------------------------------------------


def together(servers) -> dict[tuple[str, ...], float]:
    """What servers say in one page, as the workers of one do."""
    totals = Totals()
    for number, server in enumerate(servers):
        totals.update(str(number), load(dump(server._training.families())))
    return values(totals.families([], [str(number) for number in range(len(servers))]))


async def until(servers, **wanted: int) -> dict[tuple[str, ...], float]:
    """Wait until so many runs are in these states."""
    async with asyncio.timeout(30):
        while True:
            found = together(servers)
            if all(found["runs", state] == count for state, count in wanted.items()):
                return found
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("count", [1, 2])
async def test_each_run_is_counted_once_whoever_is_asked(fake_training, repository, serving, count) -> None:
    settings = {"training_slots": 1, "training_dir": repository.parent / "runs"}
    async with (
        serving(repository, **settings) as leader,
        serving(repository, **settings) as other,
        connected(leader) as one,
        connected(other) as two,
    ):
        servers = (leader, other)[:count]
        hangs = (await one.create("hangs")).name
        waits = [(await calls.create(name)).name for calls, name in ((two, "ok"), (one, "disk-full"), (two, "ok"))]
        found = await until(servers, RUNNING=1, QUEUED=3)
        assert found["slots",] == 1
        # One is ended by the server that is asked, since it never began; the other by the one that runs it.
        asked = two if count == 2 else one
        await asked.cancel(waits[2])
        await asked.cancel(hangs)
        for name in (hangs, *waits):
            await two.wait(name)
        found = await until(servers, RUNNING=0, QUEUED=0)
        assert found["runs_finished_total", "SUCCEEDED", "NONE"] == 1
        assert found["runs_finished_total", "FAILED", "DISK_FULL"] == 1
        assert found["runs_finished_total", "CANCELLED", "CANCELLED"] == 2
        assert sum(value for key, value in found.items() if key[0] == "runs_finished_total") == 4
        assert found["run_duration_seconds_count", "SUCCEEDED"] == 1
        assert 0 < found["run_duration_seconds_sum", "SUCCEEDED"] < 60
        assert found["run_duration_seconds_count", "CANCELLED"] == 1


async def test_who_takes_over_speaks_for_the_runs(fake_training, repository, serving) -> None:
    settings = {"training_slots": 1, "training_dir": repository.parent / "runs"}
    async with (
        serving(repository, **settings) as leader,
        serving(repository, **settings) as other,
        connected(other) as calls,
    ):
        await calls.create("hangs")
        await until([leader, other], RUNNING=1, QUEUED=0)
        assert together([other])["slots",] == 0
        await leader._training.stop(0.0)
        assert (together([leader])["slots",], together([leader])["runs", "RUNNING"]) == (0, 0)
        assert (await until([leader, other], RUNNING=1, QUEUED=0))["slots",] == 1
