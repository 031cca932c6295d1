"""A server whose training runs are fakes without torch; see `tests/service/training/fake_job.py`."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from service.pb import training_pb2 as pb
from tests.stubs import training_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from service.server.server import Server

FAKE = (sys.executable, str(Path(__file__).parent / "service" / "training" / "fake_job.py"))


class Calls:
    """What a standard client of long-running operations calls, with google's own generated code."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.training = training_pb2_grpc.TrainingStub(channel)
        self.operations = operations_pb2_grpc.OperationsStub(channel)

    async def create(self, name: str = "ok", *, steps: int = 40, **fields) -> operations_pb2.Operation:
        overrides = pb.RecipeOverrides(steps=steps, validation=500)
        request = pb.CreateTrainingRunRequest(publish_name=name, overrides=overrides, **fields)
        return await self.training.CreateTrainingRun(request)

    async def get(self, name: str) -> operations_pb2.Operation:
        return await self.operations.GetOperation(operations_pb2.GetOperationRequest(name=name))

    async def wait(self, name: str, timeout_s: float = 60) -> operations_pb2.Operation:
        request = operations_pb2.WaitOperationRequest(name=name)
        request.timeout.FromMilliseconds(round(1e3 * timeout_s))
        return await self.operations.WaitOperation(request)

    async def cancel(self, name: str) -> None:
        await self.operations.CancelOperation(operations_pb2.CancelOperationRequest(name=name))

    async def events(self, name: str, first: int = 0) -> list[pb.TrainingRunEvent]:
        request = pb.WatchTrainingRunRequest(name=name, from_event=first)
        return [event async for event in self.training.WatchTrainingRun(request)]

    async def until(self, name: str, kind: str) -> pb.TrainingRunEvent:
        """The first event of a kind."""
        call = self.training.WatchTrainingRun(pb.WatchTrainingRunRequest(name=name))
        async for event in call:
            if event.WhichOneof("event") == kind:
                call.cancel()
                return event
        raise AssertionError(f"no {kind}")


def metadata_of(operation: operations_pb2.Operation) -> pb.TrainingRunMetadata:
    metadata = pb.TrainingRunMetadata()
    assert operation.metadata.Unpack(metadata)
    return metadata


def result_of(operation: operations_pb2.Operation) -> pb.TrainingRunResult:
    result = pb.TrainingRunResult()
    assert operation.response.Unpack(result), operation
    return result


async def failed(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return failure.value


def violation_list(error: grpc.aio.AioRpcError) -> list[tuple[str, str]]:
    for detail in rpc_status.from_call(error).details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            return [(violation.field, violation.description) for violation in bad.field_violations]
    return []


def violations(error: grpc.aio.AioRpcError) -> dict[str, str]:
    return dict(violation_list(error))


@pytest.fixture
def fake_training(monkeypatch, tmp_path) -> None:
    from tests.conftest import publish_affine  # which loads this module as a plugin

    monkeypatch.setenv("FAKE_TEMPLATE", str(publish_affine(tmp_path / "template")))
    monkeypatch.setattr("service.training.process.COMMAND", FAKE)
    monkeypatch.setattr("service.training.scheduler._RETRY_S", 0.01)
    monkeypatch.setattr("service.config.TRAINING_MODULES", ())


@pytest.fixture
def training(fake_training, repository, serving) -> Callable[..., object]:
    """``async with training(**settings) as calls``."""

    @asynccontextmanager
    async def start(**settings) -> AsyncIterator[Calls]:
        async with serving(repository, **{"training_slots": 1, **settings}) as server, connected(server) as calls:
            yield calls

    return start


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Calls]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Calls(channel)
