from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import DeadlineExceeded, InferenceFailed, QueueFull, QueueTimeout, ServerStopping
from service.runtime.active_runs import ActiveRuns
from service.runtime.batch import ARRAYS
from service.runtime.batcher import Batcher, Batching, Patience, RunEnded
from service.runtime.statistics import Statistics


class Model:
    """y = 2 x, and a diary of its runs. A row of -1 makes it fail; ``gate`` holds up runs in threads."""

    def __init__(self) -> None:
        self.runs: list[list[float]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def run(self, feeds, outputs, options):
        self.entered.set()
        self.gate.wait(30)
        x = feeds["x"]
        self.runs.append([float(value) for value in x[:, 0]])
        if (x == -1).any():
            raise InferenceFailed("minus one")
        return [2 * x for _ in outputs]


def make(
    model: Model,
    *,
    on_loop: bool = True,
    executor=None,
    why_not_batched: str | None = None,
    active_runs: ActiveRuns | None = None,
    **batching,
) -> Batcher:
    return Batcher(
        model.run,
        Statistics(),
        Batching(**batching),
        why_not_batched=why_not_batched,
        stays_on_loop=lambda _: on_loop,
        executor=executor,
        active_runs=active_runs or ActiveRuns(),
        about={"model": "m"},
    )


async def ask(batcher: Batcher, *values: float, outputs=("y",), width: int = 1, **patience) -> list[float]:
    x = np.repeat(np.array(values, np.float32)[:, None], width, axis=1)
    (y, *_), _ = await batcher.submit({"x": x}, outputs, len(values), Patience(**patience))
    return [float(value) for value in y[:, 0]]


async def test_requests_of_one_tick_run_together_and_get_their_own_rows() -> None:
    model = Model()
    batcher = make(model)
    answers = await asyncio.gather(ask(batcher, 1), ask(batcher, 2, 3), ask(batcher, 4))
    assert answers == [[2], [4, 6], [8]]
    assert model.runs == [[1, 2, 3, 4]]


async def test_a_single_request_waits_for_nobody() -> None:
    model = Model()
    assert await ask(make(model, max_queue_delay_us=0), 1) == [2]
    assert model.runs == [[1]]


async def test_what_arrives_during_a_run_makes_the_next_batch() -> None:
    model = Model()
    model.gate.clear()
    with ThreadPoolExecutor(1) as executor:
        batcher = make(model, on_loop=False, executor=executor)
        first = asyncio.create_task(ask(batcher, 1))
        await asyncio.to_thread(model.entered.wait, 30)
        # The second goes to the executor too, and waits there; everything behind it is one batch.
        second = asyncio.create_task(ask(batcher, 2))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(ask(batcher, value)) for value in (3, 4, 5)]
        await asyncio.sleep(0.01)
        model.gate.set()
        assert await asyncio.gather(first, second, *others) == [[2], [4], [6], [8], [10]]
    assert model.runs == [[1], [2], [3, 4, 5]]


async def test_a_batch_is_no_larger_than_allowed_and_nobody_is_overtaken_for_ever() -> None:
    model = Model()
    batcher = make(model, max_batch_size=3)
    answers = await asyncio.gather(*(ask(batcher, value, value) for value in range(5)))
    assert answers == [[2 * value] * 2 for value in range(5)]
    assert [len(run) for run in model.runs] == [2] * 5


async def test_requests_that_do_not_fit_together_run_apart() -> None:
    model = Model()
    batcher = make(model)
    wide = ask(batcher, 1, width=2)
    other = ask(batcher, 2, outputs=("y", "z"))
    assert await asyncio.gather(ask(batcher, 3), wide, other, ask(batcher, 4)) == [[6], [2], [4], [8]]
    assert model.runs == [[3, 4], [1], [2]]


async def test_a_model_that_is_not_batchable_runs_one_request_at_a_time() -> None:
    model = Model()
    batcher = make(model, why_not_batched="its rows are not independent")
    await asyncio.gather(*(ask(batcher, value) for value in range(4)))
    assert model.runs == [[0], [1], [2], [3]]


async def test_a_request_at_fault_harms_no_companion() -> None:
    model = Model()
    batcher = make(model)
    answers = await asyncio.gather(ask(batcher, 1), ask(batcher, -1), ask(batcher, 2), return_exceptions=True)
    assert answers[0] == [2]
    assert isinstance(answers[1], InferenceFailed)
    assert answers[2] == [4]


@pytest.mark.parametrize("on_loop", [True, False])
@pytest.mark.parametrize("lost", [lambda y: y[:-1], lambda y: np.concatenate([y, y]), lambda y: y[0, 0], lambda y: y.T])
async def test_a_joint_answer_without_a_row_for_each_row_is_not_cut(caplog, on_loop, lost) -> None:
    """Each request runs alone instead, and so does every later one."""
    model = Model()
    really_run = model.run

    def run(feeds, outputs, options):
        answers = really_run(feeds, outputs, options)
        return [lost(answer) for answer in answers] if len(feeds["x"]) > 2 else answers

    model.run = run
    with ThreadPoolExecutor(2) as executor:
        batcher = make(model, on_loop=on_loop, executor=executor)
        for _ in range(2):
            answers = await asyncio.gather(ask(batcher, 1), ask(batcher, 2, 3), ask(batcher, 4))
            assert answers == [[2], [4, 6], [8]]
    assert sorted(map(tuple, model.runs)) == sorted([(1, 2, 3, 4), *[(1,), (2, 3), (4,)] * 2])
    assert batcher.why_not_batched is not None
    assert batcher.why_not_batched.startswith("4 rows of requests that ran together gave output 'y' of shape [")
    (told,) = (record for record in caplog.records if record.message == "requests are not batched any more")
    assert (told.model, told.reason) == ("m", batcher.why_not_batched)


@pytest.mark.parametrize("on_loop", [True, False])
async def test_a_defect_fails_its_own_request_and_no_other(on_loop) -> None:
    model = Model()
    really_run = model.run

    def run(feeds, outputs, options):
        if (feeds["x"] == 13).any():
            raise ZeroDivisionError("a defect")
        return really_run(feeds, outputs, options)

    model.run = run
    with ThreadPoolExecutor(2) as executor:
        batcher = make(model, on_loop=on_loop, executor=executor)
        answers = await asyncio.gather(ask(batcher, 1), ask(batcher, 13), ask(batcher, 2), return_exceptions=True)
        assert isinstance(answers[1], ZeroDivisionError)
        assert [answers[0], answers[2]] == [[2], [4]]
        assert await ask(batcher, 5) == [10]


async def test_one_that_cannot_be_told_its_answer_keeps_it_from_no_other(caplog) -> None:
    model = Model()
    batcher = make(model)
    told = []

    def refuse(outcome, timing):
        raise ValueError("a defect")

    loop = asyncio.get_running_loop()
    for value, done in ((1, refuse), (2, lambda outcome, _: told.append(outcome)), (3, refuse)):
        batcher.enqueue(loop, ARRAYS, {"x": np.full((1, 1), value, np.float32)}, ("y",), 1, Patience(), done)
    assert await ask(batcher, 4) == [8]
    assert [answer[0].tolist() for answer in told] == [[[4.0]]]
    assert [record.message for record in caplog.records] == ["unexpected error while a request was answered"] * 2


class EndlessModel(Model):
    """Runs in which a 7 is do not end by themselves."""

    def run(self, feeds, outputs, options):
        self.entered.set()
        if (feeds["x"] == 7).any():
            until = time.monotonic() + 30
            while not options.terminate:
                assert time.monotonic() < until
                time.sleep(0.001)
            raise RunEnded
        return super().run(feeds, outputs, options)


async def test_a_run_in_a_thread_goes_on_until_the_last_caller_has_gone() -> None:
    model = EndlessModel()
    with ThreadPoolExecutor(2) as executor:
        batcher = make(model, on_loop=False, executor=executor)
        callers = [asyncio.create_task(ask(batcher, value)) for value in (7, 1)]
        await asyncio.to_thread(model.entered.wait, 30)
        callers[0].cancel()
        await asyncio.sleep(0.05)
        assert batcher._running == 1
        callers[1].cancel()
        async with asyncio.timeout(30):
            while batcher._running:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.001)
        assert await ask(batcher, 2) == [4]
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 2


async def test_callers_who_still_wait_when_all_runs_are_ended_hear_that_the_server_stops() -> None:
    model = EndlessModel()
    active = ActiveRuns()
    with ThreadPoolExecutor(2) as executor:
        batcher = make(model, on_loop=False, executor=executor, active_runs=active)
        callers = [asyncio.create_task(ask(batcher, value)) for value in (7, 1)]
        await asyncio.to_thread(model.entered.wait, 30)
        active.end_all()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ServerStopping] * 2


async def test_one_more_than_the_queue_holds_is_told_to_come_back() -> None:
    model = Model()
    model.gate.clear()
    with ThreadPoolExecutor(2) as executor:
        batcher = make(model, on_loop=False, executor=executor, max_queue_size=2)
        running = []
        for value in range(2):  # as many runs as there may be
            running.append(asyncio.create_task(ask(batcher, value)))
            await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(ask(batcher, value)) for value in (2, 3)]
        await asyncio.sleep(0.01)
        with pytest.raises(QueueFull, match=r"^Exceeds maximum queue size: 2 requests wait, at most 2 may$"):
            await ask(batcher, 4)
        model.gate.set()
        assert await asyncio.gather(*running, *waiting) == [[0], [2], [4], [6]]
        assert await ask(batcher, 7) == [14]


async def test_a_burst_that_an_idle_model_can_take_is_not_refused_for_coming_in_one_tick() -> None:
    model = Model()
    batcher = make(model, max_queue_size=2)
    assert await asyncio.gather(*(ask(batcher, value) for value in range(7))) == [[2 * value] for value in range(7)]
    assert model.runs == [[0, 1], [2, 3], [4, 5], [6]]


async def test_nothing_that_has_expired_is_run() -> None:
    model = Model()
    batcher = make(model)
    past = time.perf_counter_ns() - 1
    answers = await asyncio.gather(
        ask(batcher, 1, deadline_ns=past), ask(batcher, 2), ask(batcher, 3, timeout_us=10**9), return_exceptions=True
    )
    assert isinstance(answers[0], DeadlineExceeded)
    assert answers[1:] == [[4], [6]]
    assert model.runs == [[2, 3]]


async def test_a_timeout_in_the_queue_is_tritons() -> None:
    model = Model()
    model.gate.clear()
    with ThreadPoolExecutor(1) as executor:
        batcher = make(model, on_loop=False, executor=executor)
        running = [asyncio.create_task(ask(batcher, 1))]
        await asyncio.to_thread(model.entered.wait, 30)
        running.append(asyncio.create_task(ask(batcher, 2)))
        await asyncio.sleep(0.01)
        # Told while the runs before it still go on.
        with pytest.raises(QueueTimeout, match="Request timeout expired"):
            await ask(batcher, 3, timeout_us=1000)
        model.gate.set()
        await asyncio.gather(*running)
    assert [3] not in model.runs


async def test_a_timeout_is_told_in_time_although_others_may_still_join() -> None:
    model = Model()
    batcher = make(model, max_queue_delay_us=10_000_000)
    async with asyncio.timeout(5):
        with pytest.raises(QueueTimeout):
            await ask(batcher, 1, timeout_us=1000)
    assert model.runs == []


async def test_a_timeout_is_told_in_time_to_whom_a_run_has_left_over() -> None:
    """It came when there was room for a run, and does not fit with those that took it."""
    model = Model()
    model.gate.clear()
    with ThreadPoolExecutor(2) as executor:
        batcher = make(model, on_loop=False, executor=executor)
        first, second = (asyncio.create_task(ask(batcher, 1, width=width)) for width in (1, 2))
        late = asyncio.create_task(ask(batcher, 3, width=3, timeout_us=50_000))
        try:
            async with asyncio.timeout(5):
                with pytest.raises(QueueTimeout):
                    await late
        finally:
            model.gate.set()
        assert await first == await second == [2]
    assert [3] not in model.runs


async def test_a_full_queue_lets_go_of_the_expired_first() -> None:
    model = Model()
    batcher = make(model, max_queue_size=1)
    expired = asyncio.create_task(ask(batcher, 1, deadline_ns=time.perf_counter_ns()))
    await asyncio.sleep(0)
    assert await ask(batcher, 2) == [4]
    with pytest.raises(DeadlineExceeded):
        await expired


async def test_cancelling_frees_the_place_at_once() -> None:
    model = Model()
    model.gate.clear()
    with ThreadPoolExecutor(1) as executor:
        batcher = make(model, on_loop=False, executor=executor, max_queue_size=1)
        running = [asyncio.create_task(ask(batcher, 1))]
        await asyncio.to_thread(model.entered.wait, 30)
        running.append(asyncio.create_task(ask(batcher, 2)))
        await asyncio.sleep(0.01)
        waiting = asyncio.create_task(ask(batcher, 3))
        await asyncio.sleep(0.01)
        assert batcher._statistics.snapshot().pending == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert batcher._statistics.snapshot().pending == 0
        another = asyncio.create_task(ask(batcher, 4))
        await asyncio.sleep(0.01)
        running[0].cancel()  # runs already: its answer is thrown away
        model.gate.set()
        assert await another == [8]
        assert await running[1] == [4]
    assert [3] not in model.runs


async def test_a_higher_priority_goes_first_and_an_unknown_one_is_the_default() -> None:
    model = Model()
    batcher = make(model, max_batch_size=1)
    await asyncio.gather(
        ask(batcher, 1, priority=3),
        ask(batcher, 2),
        ask(batcher, 3, priority=1),
        ask(batcher, 4, priority=99),
        ask(batcher, 5, priority=1),
    )
    assert model.runs == [[3], [5], [2], [4], [1]]


async def test_a_delay_lets_others_join_and_a_full_batch_does_not_wait_for_it() -> None:
    model = Model()
    batcher = make(model, max_queue_delay_us=10_000_000, max_batch_size=2)
    first = asyncio.create_task(ask(batcher, 1))
    await asyncio.sleep(0.01)
    assert model.runs == []
    assert await ask(batcher, 2) == [4]
    assert await first == [2]
    assert model.runs == [[1, 2]]


async def test_statistics_count_runs_and_rows() -> None:
    model = Model()
    batcher = make(model)
    await asyncio.gather(ask(batcher, 1), ask(batcher, 2, 3))
    await ask(batcher, 4)
    now = batcher._statistics.snapshot()
    assert now.execution_count == 2
    assert {rows: counts.compute_infer.count for rows, counts in now.batches.items()} == {1: 1, 3: 1}
    assert now.pending == 0


@settings(max_examples=40, deadline=None)
@given(
    requests=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4), st.booleans()), min_size=1, max_size=30),
    max_batch_size=st.integers(1, 6),
    in_threads=st.booleans(),
)
def test_whoever_comes_and_goes_everyone_who_stays_gets_the_right_answer(requests, max_batch_size, in_threads) -> None:
    async def scenario() -> None:
        model = Model()
        with ThreadPoolExecutor(2) as executor:
            batcher = make(model, on_loop=not in_threads, executor=executor, max_batch_size=max(4, max_batch_size))
            tasks = []
            for number, (rows, priority, leaves) in enumerate(requests):
                task = asyncio.create_task(ask(batcher, *[number] * rows, priority=priority))
                tasks.append((task, leaves, [2.0 * number] * rows))
                await asyncio.sleep(0)
                if leaves:
                    task.cancel()
            for task, leaves, expected in tasks:
                (answer,) = await asyncio.gather(task, return_exceptions=True)
                assert answer == expected or (leaves and isinstance(answer, asyncio.CancelledError))
            assert batcher._statistics.snapshot().pending == 0
        assert all(len(run) <= max(4, max_batch_size) for run in model.runs)

    asyncio.run(scenario())
