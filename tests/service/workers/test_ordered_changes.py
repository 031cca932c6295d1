"""Rows of the method table that speak for all: two workers and a supervisor in one process, over real lines."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from service.errors import LoadFailed, LoadRefused, ModelNotFound, ServerStopping, WorkerFailed, WorkerSilent
from service.pb import open_inference_pb2 as pb
from service.rpc.methods import Unary
from service.workers import ordered_changes as module
from service.workers.backplane import Backplane
from service.workers.child import Phase
from service.workers.ordered_changes import Agreement
from service.workers.shared_methods import SharedMethods, _RelayedContext

PATH = "/inference.GRPCInferenceService/"
CONTEXT = _RelayedContext("test")


@dataclass
class Worker:
    """Both ends of one worker's line, its handlers, and what they were asked."""

    number: int
    phase: Phase = Phase.SERVING
    asked: list[tuple[str, str]] = field(default_factory=list)
    fails: Exception | None = None
    hangs: bool = False

    def __post_init__(self) -> None:
        self.backplane = Backplane(max_body_bytes=1_000_000)
        self.own_end = Backplane(max_body_bytes=1_000_000)
        self.shared = SharedMethods(self.own_end, self.number)
        self.rows = {row.path.removeprefix(PATH): row for row in self.shared.wrap(self._rows())}

    @property
    def is_connected(self) -> bool:
        return not self.backplane.closed.is_set()

    async def call(self, name: str, request):
        """As its own clients call it."""
        return await self.rows[name].handler(request, CONTEXT)

    def _rows(self) -> list[Unary]:
        async def answer(name, response, request):
            self.asked.append((name, getattr(request, "model_name", "") or getattr(request, "name", "")))
            if self.hangs:
                await asyncio.sleep(3600)
            if self.fails is not None:
                raise self.fails
            return response

        def row(name: str, request_type, response) -> Unary:
            async def handler(request, _):
                return await answer(name, response, request)

            return Unary(f"{PATH}{name}", request_type.FromString, lambda message: message.SerializeToString(), handler)

        statistics = pb.ModelStatisticsResponse()
        statistics.model_stats.add(name="a", version="1", inference_count=self.number + 1)
        index = pb.RepositoryIndexResponse()
        index.models.add(name="a", version="1", state="READY")
        return [
            row("ModelStatistics", pb.ModelStatisticsRequest, statistics),
            row("RepositoryIndex", pb.RepositoryIndexRequest, index),
            row("RepositoryModelLoad", pb.RepositoryModelLoadRequest, pb.RepositoryModelLoadResponse(isLoaded=True)),
            row("RepositoryModelUnload", pb.RepositoryModelUnloadRequest, pb.RepositoryModelUnloadResponse()),
            row("LogSettings", pb.LogSettingsRequest, pb.LogSettingsResponse()),
            row("ModelInfer", pb.ModelInferRequest, pb.ModelInferResponse(id=str(self.number))),
        ]


@asynccontextmanager
async def together(count: int = 2):
    """So many workers and their agreement."""
    workers = [Worker(number) for number in range(count)]
    agreement = Agreement(lambda: workers)
    for worker in workers:
        worker.backplane.on("ask all", lambda message, worker=worker: agreement.ask_all(worker, message))
        for end, connection in zip((worker.backplane, worker.own_end), socket.socketpair(), strict=True):
            await end.open(connection)
    try:
        yield agreement, workers
    finally:
        for worker in workers:
            await worker.backplane.close()
            await worker.own_end.close()


async def test_a_question_is_put_to_all_and_answered_as_one() -> None:
    async with together(3) as (_, workers):
        answer = await workers[1].call("ModelStatistics", pb.ModelStatisticsRequest())
        assert answer.model_stats[0].inference_count == 1 + 2 + 3
        assert (await workers[2].call("RepositoryIndex", pb.RepositoryIndexRequest())).models[0].state == "READY"
        assert all(worker.asked == [("ModelStatistics", ""), ("RepositoryIndex", "")] for worker in workers)


async def test_what_concerns_one_call_alone_stays_where_it_is() -> None:
    async with together() as (_, workers):
        assert (await workers[1].call("ModelInfer", pb.ModelInferRequest())).id == "1"
        await workers[0].call("LogSettings", pb.LogSettingsRequest())  # it only asks, and all would say the same
        assert [len(worker.asked) for worker in workers] == [1, 1]


async def test_those_who_do_not_serve_yet_are_not_asked_unless_they_ask_themselves() -> None:
    async with together(3) as (_, workers):
        workers[0].phase = workers[1].phase = Phase.STARTING
        answer = await workers[0].call("ModelStatistics", pb.ModelStatisticsRequest())
        assert answer.model_stats[0].inference_count == 1 + 3


async def test_a_question_that_some_cannot_answer_is_answered_by_the_others() -> None:
    async with together() as (_, workers):
        workers[0].fails = ModelNotFound("there is no 'a'")
        answer = await workers[0].call("ModelStatistics", pb.ModelStatisticsRequest(name="a"))
        assert answer.model_stats[0].inference_count == 2
        workers[1].fails = ModelNotFound("there is no 'a'")
        with pytest.raises(ModelNotFound, match=r"^there is no 'a'$"):
            await workers[0].call("ModelStatistics", pb.ModelStatisticsRequest(name="a"))


async def test_a_sum_that_lacks_a_worker_is_no_answer(monkeypatch) -> None:
    monkeypatch.setattr(module, "QUESTION_S", 0.05)
    async with together() as (_, workers):
        workers[1].hangs = True
        with pytest.raises(WorkerSilent, match=r"^in worker 1: no answer within 0\.05 s; done in worker 0$"):
            await workers[0].call("ModelStatistics", pb.ModelStatisticsRequest())


async def test_a_change_is_made_in_all_and_a_refusal_by_all_is_told_as_if_there_were_one() -> None:
    async with together() as (_, workers):
        assert (await workers[0].call("RepositoryModelLoad", load("a"))).isLoaded
        for worker in workers:
            worker.fails = LoadRefused("failed to load 'b': its goldens do not replay", model="b")
        with pytest.raises(LoadRefused, match=r"^failed to load 'b': its goldens do not replay$") as refused:
            await workers[1].call("RepositoryModelLoad", load("b"))
        assert refused.value.details.metadata == (("model", "b"),)
        assert all(worker.asked == [("RepositoryModelLoad", "a"), ("RepositoryModelLoad", "b")] for worker in workers)


@pytest.mark.parametrize("asker", [0, 1])
async def test_a_change_that_one_refuses_is_told_with_who_did_it(asker) -> None:
    async with together(3) as (_, workers):
        workers[1].fails = LoadFailed("out of memory")
        with pytest.raises(LoadFailed, match=r"^in worker 1: out of memory; done in workers 0, 2$"):
            await workers[asker].call("RepositoryModelLoad", load("a"))


async def test_a_defect_in_one_is_told_as_one(caplog) -> None:
    async with together() as (_, workers):
        workers[1].fails = KeyError("a secret")
        with pytest.raises(
            WorkerFailed, match=r"^in worker 1: run: KeyError; the log has the details; done in worker 0$"
        ):
            await workers[0].call("RepositoryModelLoad", load("a"))
    assert "a secret" in caplog.text


async def test_a_worker_that_dies_meanwhile_is_none_of_the_callers_business() -> None:
    async with together() as (_, workers):
        workers[1].hangs = True
        change = asyncio.create_task(workers[0].call("RepositoryModelLoad", load("a")))
        while not workers[1].asked:  # noqa: ASYNC110 - its handler has no event
            await asyncio.sleep(0.005)
        await workers[1].own_end.close()
        assert (await change).isLoaded


async def test_who_comes_later_is_told_the_last_decision_on_each_thing_in_order() -> None:
    async with together() as (agreement, workers):
        workers[1].phase = Phase.STARTING
        first, late = workers
        await first.call("RepositoryModelLoad", load("a"))
        await first.call("RepositoryModelLoad", load("b"))
        await first.call("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="a"))
        first.fails = LoadFailed("no")
        with pytest.raises(LoadFailed):
            await first.call("RepositoryModelLoad", load("c"))
        assert late.asked == []
        admitted = []
        await agreement.admit(late, lambda: admitted.append(list(late.asked)))
        assert admitted == [[("RepositoryModelLoad", "b"), ("RepositoryModelUnload", "a")]]


async def test_no_change_comes_between_the_decisions_and_the_admission() -> None:
    async with together() as (agreement, workers):
        first, late = workers
        late.phase = Phase.STARTING
        await first.call("RepositoryModelLoad", load("a"))

        def admit() -> None:
            late.phase = Phase.SERVING

        await asyncio.gather(agreement.admit(late, admit), first.call("RepositoryModelLoad", load("b")))
        assert late.asked == [("RepositoryModelLoad", "a"), ("RepositoryModelLoad", "b")]


async def test_a_decision_that_fails_later_is_told_in_the_log_and_the_worker_admitted(caplog) -> None:
    async with together() as (agreement, workers):
        await workers[0].call("RepositoryModelLoad", load("a"))
        workers[1].fails = LoadFailed("its files are gone")
        admitted = []
        await agreement.admit(workers[1], lambda: admitted.append(True))
        assert admitted == [True]
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert (record.worker, record.decision, record.reason) == (1, "model a", "its files are gone")


async def test_rescans_follow_each_other_and_a_dead_worker_does_not_hold_them_up(caplog) -> None:
    order: list[str] = []
    async with together(3) as (agreement, workers):
        for worker in workers:

            async def rescan(_, number=worker.number) -> None:
                order.append(f"begin {number}")
                await asyncio.sleep(0.01)
                order.append(f"end {number}")

            worker.own_end.on("rescan", rescan)
        workers[1].own_end._handlers.pop("rescan")
        await agreement.rescan()
    assert order == ["begin 0", "end 0", "begin 2", "end 2"]
    assert "worker was not rescanned" in caplog.text


async def test_without_a_supervisor_the_server_is_exiting() -> None:
    async with together() as (_, workers):
        await workers[0].backplane.close()
        await workers[0].own_end.closed.wait()
        with pytest.raises(ServerStopping, match="Server exiting"):
            await workers[0].call("ModelStatistics", pb.ModelStatisticsRequest())


def load(name: str) -> pb.RepositoryModelLoadRequest:
    return pb.RepositoryModelLoadRequest(model_name=name)
