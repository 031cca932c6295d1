"""A defect while one call of a run is answered: the others of the run are answered, and the call ends as a failure."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest

from service.pb import open_inference_pb2 as pb
from service.transport.http2 import abuse
from service.transport.http2.request_streams import OpenedStream
from service.transport.http2.sending import Sender
from service.transport.http2.stream import Stream
from service.wire.responses import Whole
from tests.conftest import publish_affine
from tests.scraping import samples, scrape
from tests.service.conftest import affine_request

BROKEN_ROWS = 5


async def sizes(stub) -> dict[int, int]:
    """Bytes of an answer of so many rows. Asked twice, so that later ones take the express lane."""
    found = {}
    for rows in (1, BROKEN_ROWS):
        for _ in range(2):
            found[rows] = (await stub.ModelInfer(affine_request(batch=rows))).ByteSize()
    return found


async def outcome(call) -> object:
    try:
        return np.frombuffer((await call).raw_output_contents[0], np.float32).tolist()
    except grpc.aio.AioRpcError as error:
        return error.code()


@pytest.mark.parametrize("is_express", [True, False])
async def test_the_other_calls_of_the_run_are_answered(repository, serving, connect, monkeypatch, is_express) -> None:
    publish_affine(repository)
    async with serving(repository, transport="http2") as server, connect(server) as stubs:
        broken_bytes = (await sizes(stubs.inference))[BROKEN_ROWS]
        pieces = Whole.pieces

        def broken(whole, size):
            if size == broken_bytes:
                raise OverflowError("int too big to convert")
            return pieces(whole, size)

        monkeypatch.setattr(Whole, "pieces", broken)
        for _ in range(3):
            requests = [affine_request(batch=BROKEN_ROWS if n == 7 else 1) for n in range(20)]
            for request in () if is_express else requests:
                request.parameters["priority"].int64_param = 2
            answers = await asyncio.gather(*(outcome(stubs.inference.ModelInfer(each)) for each in requests))
            assert answers.pop(7) is grpc.StatusCode.INTERNAL
            assert answers == [[3, 3, 3]] * 19
        (stats,) = (await stubs.inference.ModelStatistics(pb.ModelStatisticsRequest(name="affine"))).model_stats
        page = samples(await scrape(server))
        assert not server._admission._running
    ended = {
        dict(labels)["code"]: value
        for (name, *labels), value in page.items()
        if name == "mnist1d_request_duration_seconds_count" and dict(labels)["method"].endswith("/ModelInfer")
    }
    assert ended == {"OK": 4 + 3 * 19, "INTERNAL": 3}
    assert page["mnist1d_requests_in_flight",] == 0
    assert (stats.inference_stats.success.count, stats.inference_stats.fail.count) == (4 + 3 * 19, 3)


async def test_the_other_streams_of_the_run_are_answered(repository, serving, connect, monkeypatch) -> None:
    publish_affine(repository)
    async with serving(repository, transport="http2") as server, connect(server) as stubs:
        broken_bytes = (await sizes(stubs.inference))[BROKEN_ROWS]
        send = OpenedStream.send

        def broken(stream, messages):
            if any(len(message) > broken_bytes for message in messages):
                raise OverflowError("a defect")
            send(stream, messages)

        monkeypatch.setattr(OpenedStream, "send", broken)

        async def ask(stream: int) -> object:
            call = stubs.inference.ModelStreamInfer(
                iter([affine_request(), affine_request(batch=BROKEN_ROWS if stream == 3 else 1), affine_request()])
            )
            try:
                return [len(answer.infer_response.raw_output_contents[0]) async for answer in call]
            except grpc.aio.AioRpcError as error:
                return error.code()

        for _ in range(2):
            answers = await asyncio.gather(*map(ask, range(10)))
            assert answers.pop(3) is grpc.StatusCode.INTERNAL
            assert answers == [[12, 12, 12]] * 9
        assert not server._admission._running


@pytest.mark.parametrize("is_express", [True, False])
async def test_answers_that_a_client_does_not_read_in_time_are_counted_as_failures(
    repository, serving, connect, monkeypatch, is_express
) -> None:
    publish_affine(repository)
    async with serving(repository, transport="http2") as server, connect(server) as stubs:
        await sizes(stubs.inference)
        monkeypatch.setattr(Sender, "holds_too_much", property(lambda _: True))
        monkeypatch.setattr(abuse, "UNREAD_BYTES", 0)
        request = affine_request()
        if not is_express:
            request.parameters["priority"].int64_param = 2
        respond = Stream.respond

        def without_window(stream, message):
            stream.send_window = 0
            return respond(stream, message)

        monkeypatch.setattr(Stream, "respond", without_window)
        if is_express:  # so that it asks `respond`
            monkeypatch.setattr("service.transport.http2.stream.PREFIX_BYTES", 2**30)
        assert await outcome(stubs.inference.ModelInfer(request)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        monkeypatch.undo()
        (stats,) = (await stubs.inference.ModelStatistics(pb.ModelStatisticsRequest(name="affine"))).model_stats
        page = samples(await scrape(server))
    assert (stats.inference_stats.success.count, stats.inference_stats.fail.count) == (4, 1)
    ended = {
        dict(labels)["code"]: value
        for (name, *labels), value in page.items()
        if name == "mnist1d_request_duration_seconds_count" and dict(labels)["method"].endswith("/ModelInfer")
    }
    assert ended == {"OK": 4, "RESOURCE_EXHAUSTED": 1}
