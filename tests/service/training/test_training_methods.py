"""Every RPC of training and of its operations through a server, called with google's own client code."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.longrunning import operations_pb2 as ops
from google.rpc import error_details_pb2

from service.pb import training_pb2 as pb
from tests.fake_training import failed, metadata_of, result_of, violations


async def test_a_run_from_its_creation_to_the_version_that_serves(training) -> None:
    async with training() as calls:
        operation = await calls.create(seed=3, network="fc", recipe="quick")
        assert operation.name.startswith("operations/")
        assert not operation.done
        queued = metadata_of(operation)
        assert (queued.state, queued.network, queued.recipe, queued.seed) == (pb.QUEUED, "fc", "quick", 3)
        assert queued.recipe_fields["steps"] == 40
        assert operation.metadata.type_url == "type.googleapis.com/mnist1d.training.v1.TrainingRunMetadata"
        done = await calls.wait(operation.name)
        assert done.done
        result = result_of(done)
        assert (result.model_name, result.model_version, result.steps) == ("ok", 1, 40)
        assert result.metrics["validation"] == pb.Metrics(accuracy=0.75, loss=0.5, count=500)
        assert result.parity.passed
        assert list(result.parity.report["checks"]) == [1, 2]
        assert len(result.weights_sha256) == 64
        # Proven again by the inference side, before the operation was called done.
        assert result.serving.state == "READY"
        metadata = metadata_of(done)
        assert (metadata.state, metadata.step, metadata.total_steps, metadata.attempt) == (pb.SUCCEEDED, 40, 40, 1)
        assert metadata.serving.state == "READY"
        assert metadata.create_time.seconds <= metadata.start_time.seconds <= metadata.end_time.seconds
        assert {each.split for each in metadata.evaluations} == {"validation", "test"}
        assert await calls.get(operation.name) == done


async def test_every_event_is_told_to_whoever_watches_whenever_they_come(training) -> None:
    async with training() as calls:
        operation = await calls.create()
        at_once = await calls.events(operation.name)
        assert [event.number for event in at_once] == list(range(1, len(at_once) + 1))
        kinds = [event.WhichOneof("event") for event in at_once]
        assert kinds[:3] == ["queued", "attempt_started", "training_started"]
        assert kinds[-1] == "done"
        assert kinds.count("progress") == 4
        assert at_once[-1].done.response.model_version == 1
        assert await calls.events(operation.name) == at_once
        assert await calls.events(operation.name, first=7) == at_once[6:]
        assert await calls.events(operation.name, first=len(at_once) + 1) == []


async def test_what_a_stage_tells_has_no_path_of_the_server(training, repository) -> None:
    async with training() as calls:
        operation = await calls.create()
        assert str(repository) not in str(await calls.events(operation.name))


NAMED = {
    "GetOperation": ops.GetOperationRequest,
    "DeleteOperation": ops.DeleteOperationRequest,
    "CancelOperation": ops.CancelOperationRequest,
    "WaitOperation": ops.WaitOperationRequest,
}


@pytest.mark.parametrize("name", ["operations/none", "none", "", "models/none", "operations/"])
async def test_what_there_is_not_is_not_found(training, name) -> None:
    async with training() as calls:
        for method, request in NAMED.items():
            error = await failed(getattr(calls.operations, method)(request(name=name)))
            assert error.code() is grpc.StatusCode.NOT_FOUND, method
        assert (await failed(calls.events(name))).code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("request_", "field", "says"),
    [
        (ops.ListOperationsRequest(filter="colour = red"), "filter", "got 'colour = red', not understood at"),
        (ops.ListOperationsRequest(page_size=-1), "page_size", "got -1, expected at least 0"),
        (ops.ListOperationsRequest(page_token="x"), "page_token", "expected the next"),  # noqa: S106 - of a page
        (ops.ListOperationsRequest(name="projects/1"), "name", "got 'projects/1', expected 'operations'"),
    ],
)
async def test_a_listing_that_cannot_be_is_refused_with_the_field_at_fault(training, request_, field, says) -> None:
    async with training() as calls:
        error = await failed(calls.operations.ListOperations(request_))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith(f"{field}: {says}")  # the message is for people, who see no field beside it
    ((path, description),) = violations(error).items()
    assert path == field
    assert description.startswith(says)


async def test_a_watch_from_an_event_that_cannot_be_next_is_refused(training) -> None:
    async with training() as calls:
        operation = await calls.create("hangs")
        for first in (-1, 99):
            error = await failed(calls.events(operation.name, first))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert violations(error)["from_event"].startswith(f"got {first}, expected 0 to ")


async def test_pages_and_filters(training) -> None:
    async with training(training_queue_size=20) as calls:
        names = [(await calls.create(network=("conv", "fc")[i % 2], steps=20)).name for i in range(5)]
        for name in names:
            await calls.wait(name)
        listed, token = [], ""
        while True:
            page = await calls.operations.ListOperations(
                ops.ListOperationsRequest(name="operations", page_size=2, page_token=token)
            )
            listed.append([operation.name for operation in page.operations])
            token = page.next_page_token
            if not token:
                break
        assert listed == [names[:2:-1], names[2:0:-1], names[:1]]
        for text, found in {
            "network = fc": names[3::-2],
            'done = true AND network != "fc"': names[::-2],
            "state = FAILED": [],
            "done = false": [],
        }.items():
            page = await calls.operations.ListOperations(ops.ListOperationsRequest(filter=text))
            assert [operation.name for operation in page.operations] == found, text


async def test_a_cancelled_run_ends_cancelled_and_leaves_nothing(training, repository) -> None:
    async with training() as calls:
        operation = await calls.create(steps=100_000)
        await calls.until(operation.name, "checkpoint_saved")
        await calls.cancel(operation.name)
        done = await calls.wait(operation.name)
        assert (done.done, done.error.code) == (True, grpc.StatusCode.CANCELLED.value[0])
        assert metadata_of(done).state == pb.CANCELLED
        kinds = [event.WhichOneof("event") for event in await calls.events(operation.name)]
        assert "cancel_requested" in kinds
        assert kinds[-1] == "done"
        assert not (repository / "ok").exists()
        assert list((repository / ".training" / "runs").iterdir()) == []


async def test_a_run_that_is_done_is_not_changed_by_a_cancellation(training) -> None:
    async with training() as calls:
        operation = await calls.create()
        done = await calls.wait(operation.name)
        await calls.cancel(operation.name)
        assert await calls.get(operation.name) == done
        assert result_of(done).model_version == 1


async def test_the_stage_is_that_of_a_run_that_is_under_way(training) -> None:
    async with training() as calls:
        hangs = await calls.create("hangs")
        waits = await calls.create()
        await calls.until(hangs.name, "stage_started")
        assert [metadata_of(await calls.get(each.name)).stage for each in (hangs, waits)] == ["train", ""]
        await calls.cancel(hangs.name)
        assert [metadata_of(await calls.wait(each.name)).stage for each in (hangs, waits)] == ["", ""]


async def test_a_process_that_does_not_listen_is_killed(training, monkeypatch) -> None:
    monkeypatch.setattr("service.training.scheduler._CANCEL_GRACE_S", 0.1)
    async with training() as calls:
        operation = await calls.create("ignores")
        await calls.until(operation.name, "stage_started")
        await calls.cancel(operation.name)
        assert (await calls.wait(operation.name)).error.code == 1


async def test_runs_wait_for_slots_in_order_and_the_queue_is_bounded(training) -> None:
    async with training(training_queue_size=2) as calls:
        first = await calls.create("hangs")
        await calls.until(first.name, "stage_started")
        waiting = [await calls.create() for _ in range(2)]
        assert [metadata_of(each).ahead_in_queue for each in waiting] == [0, 1]
        error = await failed(calls.create())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "--training-queue-size" in error.details()
        # One that never began is over at once, and its place is free.
        await calls.cancel(waiting[0].name)
        assert (await calls.get(waiting[0].name)).error.code == 1
        assert metadata_of(await calls.get(waiting[1].name)).ahead_in_queue == 0
        await calls.create()


async def test_slots_run_beside_each_other(training) -> None:
    async with training(training_slots=2) as calls:
        hangs = await calls.create("hangs")
        await calls.until(hangs.name, "stage_started")
        assert result_of(await calls.wait((await calls.create()).name)).model_version == 1
        assert not (await calls.get(hangs.name)).done


async def test_a_wait_ends_with_its_timeout_or_the_callers_deadline(training) -> None:
    async with training() as calls:
        operation = await calls.create("hangs")
        assert not (await calls.wait(operation.name, 0.05)).done
        assert not (
            await calls.operations.WaitOperation(ops.WaitOperationRequest(name=operation.name), timeout=0.5)
        ).done
        request = ops.WaitOperationRequest(name=operation.name)
        request.timeout.FromSeconds(-1)
        error = await failed(calls.operations.WaitOperation(request))
        assert (error.code(), set(violations(error))) == (grpc.StatusCode.INVALID_ARGUMENT, {"timeout"})


async def test_a_run_can_be_forgotten_once_it_is_done(training) -> None:
    async with training() as calls:
        operation = await calls.create("hangs")
        delete = ops.DeleteOperationRequest(name=operation.name)
        error = await failed(calls.operations.DeleteOperation(delete))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        await calls.until(operation.name, "stage_started")
        other = await calls.create()
        await calls.cancel(other.name)
        await calls.operations.DeleteOperation(ops.DeleteOperationRequest(name=other.name))
        assert (await failed(calls.get(other.name))).code() is grpc.StatusCode.NOT_FOUND


async def test_a_request_id_stands_for_one_run(training) -> None:
    async with training() as calls:
        first, again = [await calls.create(request_id="mine") for _ in range(2)]
        assert first.name == again.name
        error = await failed(calls.create(request_id="mine", seed=5))
        assert (error.code(), set(violations(error))) == (grpc.StatusCode.ALREADY_EXISTS, {"request_id"})


# what the process does -> (code, reason, part of the message)
FAILURES = {
    "disk-full": ("RESOURCE_EXHAUSTED", "DISK_FULL", "No space left on device"),
    "diverges": ("INVALID_ARGUMENT", "TRAINING_DIVERGED", "training diverged"),
    "refuted": ("INTERNAL", "PROOF_FAILED", "1 of 12 checks failed"),
    "dies": ("INTERNAL", "TRAINING_DIED", "3 tries without progress; the training process died: exit code 9: last"),
    "out-of-memory": ("RESOURCE_EXHAUSTED", "OUT_OF_MEMORY", "limited to 2,048 MiB by --training-memory-mb"),
    "not-met": ("FAILED_PRECONDITION", "GATE_NOT_MET", "nothing was published"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
async def test_a_run_that_fails_says_why_and_leaves_nothing(training, repository, name) -> None:
    code, reason, says = FAILURES[name]
    async with training() as calls:
        operation = await calls.create(name, gate=pb.Gate(serving=True))
        done = await calls.wait(operation.name)
        assert grpc.StatusCode[code].value[0] == done.error.code
        assert says in done.error.message
        info = error_details_pb2.ErrorInfo()
        assert done.error.details[0].Unpack(info)
        assert info.reason == reason
        assert metadata_of(done).state == pb.FAILED
        if name == "not-met":
            assert info.metadata["candidate_accuracy"] == "0.75"
        if name == "refuted":
            report = pb.ParityReport()
            assert done.error.details[1].Unpack(report)
            assert report.summary == "1 of 12 checks failed"
        last = (await calls.events(operation.name))[-1]
        assert last.done.error.code == done.error.code
        assert [path.name for path in repository.iterdir()] == [".training"]
        assert list((repository / ".training" / "runs").iterdir()) == []


async def test_the_gate_is_asked_against_what_serves_at_that_moment(training) -> None:
    async with training() as calls:
        first = result_of(await calls.wait((await calls.create(gate=pb.Gate(serving=True))).name))
        assert first.gate == pb.GateDecision(met=True, candidate_accuracy=0.75, summary="compared")
        second = result_of(await calls.wait((await calls.create(gate=pb.Gate(serving=True), seed=1)).name))
        assert (second.gate.baseline, second.gate.baseline_accuracy) == ("ok/1", 0.5)


async def test_what_is_no_event_is_passed_over(training, caplog) -> None:
    async with training() as calls:
        assert result_of(await calls.wait((await calls.create("babbles")).name)).model_version == 1
    said = [record for record in caplog.records if "no event" in record.message]
    assert len(said) == 3


async def test_watchers_of_a_server_that_stops_are_told_to_come_again(training) -> None:
    async with training() as calls:
        operation = await calls.create("hangs")
        await calls.until(operation.name, "stage_started")
        watching = asyncio.create_task(calls.events(operation.name))
        await asyncio.sleep(0.1)
        assert not watching.done()
    error = await failed(watching)
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_without_slots_there_is_no_training(repository, serving) -> None:
    from tests.fake_training import connected

    async with serving(repository) as server, connected(server) as calls:
        assert (await failed(calls.create())).code() is grpc.StatusCode.UNIMPLEMENTED
    assert list(repository.iterdir()) == []
