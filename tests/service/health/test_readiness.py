from __future__ import annotations

import asyncio

import pytest

from service.health.readiness import Readiness
from service.repository.model_version import ModelVersion, ServedModel, State


class FakeRepository:
    """Whatever states a test wants."""

    def __init__(self, *, is_loaded: bool = True, **states: State) -> None:
        self.is_loaded = is_loaded
        self.served = {name: ServedModel(name, {1: ModelVersion(name, 1, state)}) for name, state in states.items()}


READY, BROKEN, LOADING = State.READY, State.UNAVAILABLE, State.LOADING


@pytest.mark.parametrize(
    ("states", "is_loaded", "strict", "not_strict"),
    [
        ({}, True, False, False),
        ({"a": READY}, True, True, True),
        ({"a": READY}, False, False, False),
        ({"a": BROKEN}, True, False, False),
        ({"a": LOADING}, True, False, False),
        ({"a": READY, "b": BROKEN}, True, False, True),
        ({"a": READY, "b": LOADING}, True, False, True),
        ({"a": READY, "b": READY}, True, True, True),
    ],
)
async def test_the_truth_table_of_readiness(states, is_loaded, strict, not_strict) -> None:
    repository = FakeRepository(is_loaded=is_loaded, **states)
    assert Readiness(repository, strict=True).server_is_ready() is strict
    assert Readiness(repository, strict=False).server_is_ready() is not_strict


@pytest.mark.parametrize(
    ("models", "strict", "not_strict", "by_request"),
    [
        # (state, is_required) of each; by_request: strict, and with models that come and go by request
        ([], False, False, True),
        ([(READY, True), (BROKEN, False)], True, True, True),
        ([(READY, True), (LOADING, False)], True, True, True),
        ([(READY, True), (State.UNLOADING, False)], True, True, True),
        ([(BROKEN, False)], False, False, True),
        ([(BROKEN, True)], False, False, False),
        ([(BROKEN, True), (READY, False)], False, True, False),
        ([(State.UNLOADING, False)], False, False, True),
    ],
)
async def test_what_is_not_required_is_not_missed(models, strict, not_strict, by_request) -> None:
    repository = FakeRepository()
    repository.served = {
        str(n): ServedModel(str(n), {1: ModelVersion(str(n), 1, state)}, is_required=is_required)
        for n, (state, is_required) in enumerate(models)
    }
    assert Readiness(repository, strict=True).server_is_ready() is strict
    assert Readiness(repository, strict=False).server_is_ready() is not_strict
    assert Readiness(repository, strict=True, may_be_empty=True).server_is_ready() is by_request


async def test_one_model_never_flips_another() -> None:
    statuses = Readiness(FakeRepository(a=READY, b=BROKEN), strict=True).statuses()
    assert statuses == {"": False, "inference.GRPCInferenceService": False, "model/a": True, "model/b": False}


async def test_nothing_is_ready_once_the_server_drains() -> None:
    readiness = Readiness(FakeRepository(a=READY), strict=True)
    assert all(readiness.statuses().values())
    readiness.start_draining()
    assert readiness.is_draining
    assert not any(readiness.statuses().values())


async def test_a_change_from_another_thread_wakes_every_subscriber() -> None:
    readiness = Readiness(FakeRepository(a=READY), strict=True)
    events = [readiness.subscribe() for _ in range(3)]
    readiness.unsubscribe(events[2])
    await asyncio.to_thread(readiness.changed)
    await asyncio.wait_for(asyncio.gather(*(readiness.wait_for_change(event) for event in events[:2])), 5)
    assert not any(event.is_set() for event in events)
