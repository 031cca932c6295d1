from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from service.bench.load import Load, Unreachable
from service.bench.plan import Plan
from service.client import InferenceClient
from service.client.operations import infer
from service.pb.open_inference_pb2 import ModelInferResponse
from service.wire import frames
from service.wire.errors import ErrorCode
from tests.conftest import publish_affine
from tests.service.bench.peer import OK, Peer, answer, headers, until

RIGHT = ModelInferResponse(
    model_name="m", outputs=[{"name": "y", "datatype": "FP32", "shape": [1, 1]}], raw_output_contents=[bytes(4)]
).SerializeToString()
OTHER = RIGHT[:-1] + b"\x40"


def plan(port: int, **changes) -> Plan:
    fields = {
        "host": "127.0.0.1", "port": port, "tls": None, "headers": (), "messages": (b"", b"\x12\x01a"),
        "expected": (("y", "FP32", (-1, 1)),), "connections": 2, "in_flight": 3, "rate": None, "duration_s": None,
        "requests": 50, "warm_up_s": 0.0, "deadline_s": 20.0, "check": True, "interval_s": 0.05,
    }  # fmt: skip
    return Plan(**(fields | changes))


async def measured(port: int, **changes):
    intervals = []
    load = Load(plan(port, **changes), intervals.append)
    await load.connect()
    async with asyncio.timeout(40):
        result = await load.run()
    assert result.done == result.latency.count
    assert sum(interval.done for interval in result.intervals) == result.done
    assert result.sent == result.done + result.failed
    return result


async def test_a_closed_loop_keeps_so_many_calls_under_way_and_no_more() -> None:
    under_way = {1: 0, 2: 0}
    most = dict(under_way)

    def respond(talk, stream, body):
        which = peer.talks.index(talk) + 1
        under_way[which] += 1
        most[which] = max(most[which], under_way[which])

        def later() -> None:
            under_way[which] -= 1
            talk.writer.write(answer(stream, RIGHT))

        asyncio.get_running_loop().call_later(0.005, later)

    async with Peer(respond) as peer:
        result = await measured(peer.port)
    assert (result.done, result.failed) == (50, 0)
    assert most == {1: 3, 2: 3}
    assert not result.lag.count
    assert result.latency.min_s > 0.004
    assert 0 < result.rate < 6 / 0.005


async def test_an_open_loop_sends_by_the_clock_and_counts_from_it() -> None:
    """A server that stands still for a quarter of a second delays the others, and they say so."""
    arrived = []

    def respond(talk, stream, body):
        arrived.append(time.monotonic())
        if len(arrived) == 20:
            time.sleep(0.25)
        return answer(stream, RIGHT)

    async with Peer(respond) as peer:
        result = await measured(peer.port, rate=200.0, requests=None, duration_s=0.6)
    assert result.sent == 120
    assert arrived[-1] - arrived[0] > 0.45
    # Those that were due while it stood still waited for it: some 50 of 120, each from its own time on.
    assert result.latency.quantile_s(0.75) > 0.03
    assert result.latency.max_s > 0.2
    assert result.lag.count == 120


async def test_requests_take_turns_and_answers_are_compared_with_the_first_to_the_same_input() -> None:
    seen = []

    def respond(talk, stream, body):
        seen.append(body)
        return answer(stream, OTHER if body and len(seen) > 10 else RIGHT)

    async with Peer(respond) as peer:
        result = await measured(peer.port, connections=1, in_flight=1, requests=20)
    assert seen == [b"", b"\x12\x01a"] * 10
    assert result.done == 15
    differs = "output y differs from the first answer to the same input by the same version"
    assert result.errors == {("WRONG_ANSWER", differs): 5}


async def test_errors_are_counted_by_code_and_message() -> None:
    def respond(talk, stream, body):
        if not body:
            return answer(stream, RIGHT)
        return headers(stream, [(b":status", b"200"), (b"grpc-status", b"8"), (b"grpc-message", b"full")], end=True)

    async with Peer(respond) as peer:
        result = await measured(peer.port)
    assert result.errors == {("RESOURCE_EXHAUSTED", "full"): 25}
    assert sum((interval.errors for interval in result.intervals), start=type(result.errors)()) == {
        "RESOURCE_EXHAUSTED": 25
    }


async def test_warming_up_is_not_counted() -> None:
    began = time.monotonic()

    def respond(talk, stream, body):
        if time.monotonic() - began < 0.15:
            return headers(stream, [(b":status", b"200"), (b"grpc-status", b"14")], end=True)
        return answer(stream, RIGHT)

    async with Peer(respond) as peer:
        result = await measured(peer.port, warm_up_s=0.3, connections=1, in_flight=1)
    assert (result.done, result.failed) == (50, 0)
    assert result.warm_up_errors > 0


@pytest.mark.parametrize("rate", [None, 100.0])
async def test_no_answer_within_the_deadline_is_an_error(rate) -> None:
    async with Peer(lambda *_: None) as peer:
        result = await measured(peer.port, requests=4, deadline_s=0.1, rate=rate)
        await until(lambda: sum(len(talk.kinds(frames.RST_STREAM)) for talk in peer.talks) == 4)
        timeouts = [b"100m" in payload for _, _, payload in peer.talks[0].kinds(frames.HEADERS)]
    assert result.errors == {("DEADLINE_EXCEEDED", "no answer within the deadline"): 4}
    assert all(timeouts)


async def test_an_open_loop_without_room_waits_and_then_gives_up() -> None:
    settings = {frames.MAX_CONCURRENT_STREAMS: 1}
    async with Peer(lambda *_: None, settings=settings) as peer:
        result = await measured(peer.port, requests=6, rate=1000.0, connections=1, deadline_s=0.1)
    assert result.failed == 6
    assert {code for code, _ in result.errors} == {"DEADLINE_EXCEEDED"}
    assert "found no room on a connection, never sent" in {message for _, message in result.errors}


@pytest.mark.parametrize("rate", [None, 500.0])
async def test_a_server_that_ages_its_connections_costs_no_call(rate) -> None:
    def respond(talk, stream, body):
        if stream == 21:
            # All after the 19th are refused; those before are answered.
            last = frames.UINT32.pack(19) + frames.UINT32.pack(ErrorCode.NO_ERROR)
            return frames.frame(frames.GOAWAY, 0, 0, last)
        return answer(stream, RIGHT) if stream < 21 else None

    async with Peer(respond) as peer:
        result = await measured(peer.port, requests=60, rate=rate)
        assert len(peer.talks) > 2
    assert (result.done, result.failed) == (60, 0)
    assert result.reconnects >= 4


async def test_a_server_that_is_gone_ends_the_load() -> None:
    async with Peer(lambda _, stream, __: answer(stream, RIGHT)) as peer:
        load = Load(plan(peer.port, requests=None, duration_s=600.0, deadline_s=0.2))
        await load.connect()
        running = asyncio.create_task(load.run())
        await asyncio.sleep(0.1)
    result = await asyncio.wait_for(running, 40)
    assert result.done > 0
    assert result.stopped == "no connection for 0.2 s"
    assert result.reconnects == 0
    assert result.unconnected_s > 0.2


async def test_a_time_without_connections_is_told_and_ends_with_the_measured_part() -> None:
    async with Peer(lambda _, stream, __: answer(stream, RIGHT)) as peer:
        load = Load(plan(peer.port, requests=None, duration_s=0.8))
        await load.connect()
        running = asyncio.create_task(load.run())
        await asyncio.sleep(0.3)
    result = await asyncio.wait_for(running, 40)
    assert (result.stopped, result.reconnects) == ("", 0)
    assert 0 < result.unconnected_s < 0.8


async def test_a_load_can_be_stopped() -> None:
    async with Peer(lambda _, stream, __: answer(stream, RIGHT)) as peer:
        load = Load(plan(peer.port, requests=None, duration_s=600.0))
        await load.connect()
        running = asyncio.create_task(load.run())
        await asyncio.sleep(0.1)
        load.stop()
        result = await asyncio.wait_for(running, 40)
    assert (result.stopped, result.failed) == ("interrupted", 0)
    assert result.done > 0


async def test_nobody_there_is_unreachable() -> None:
    load = Load(plan(1))
    with pytest.raises(Unreachable, match=r"refused|Connect call failed"):
        await load.connect()


@pytest.mark.parametrize("rate", [None, 1000.0])
async def test_requests_of_a_stream_are_under_way_together(repository, serving, rate) -> None:
    publish_affine(repository)
    async with serving(repository) as server:
        x = np.random.default_rng(0).standard_normal((3, 2, 3)).astype(np.float32)
        messages = tuple(infer("affine", {"x": each}).request.SerializeToString() for each in x)
        result = await measured(
            server.port, messages=messages, expected=(("y", "FP32", (-1, 3)),), requests=300, rate=rate, streaming=True
        )
        assert (result.done, result.errors, result.reconnects) == (300, {}, 0)

        def done() -> int:
            with InferenceClient(f"127.0.0.1:{server.port}") as client:
                return client.statistics("affine")[0].inferences

        assert await asyncio.to_thread(done) == 300 * 2


async def test_a_stream_that_breaks_costs_the_calls_on_it() -> None:
    seen = []

    def respond(talk, stream, body):
        seen.append(body)
        end = [(b"grpc-status", b"13"), (b"grpc-message", b"oops")]
        return headers(stream, OK) + headers(stream, end, end=True) if len(seen) % 10 == 0 else None

    async with Peer(respond, streaming=True) as peer:
        result = await measured(peer.port, requests=20, connections=1, in_flight=10, streaming=True)
    assert result.errors == {("INTERNAL", "oops"): 20}


async def test_no_answer_on_a_stream_within_the_deadline_is_an_error() -> None:
    async with Peer(lambda *_: None, streaming=True) as peer:
        result = await measured(peer.port, requests=4, deadline_s=0.1, streaming=True)
    assert result.errors == {("DEADLINE_EXCEEDED", "no answer within the deadline"): 4}


async def test_timeouts_can_differ_with_each_request() -> None:
    async with Peer(lambda _, stream, __: answer(stream, RIGHT)) as peer:
        result = await measured(peer.port, requests=30, vary_timeouts=True)
        blocks = [payload for talk in peer.talks for _, _, payload in talk.kinds(frames.HEADERS)]
    assert (result.done, result.failed) == (30, 0)
    assert len(set(blocks)) == 30
    assert all(b"grpc-timeout" in block for block in blocks)


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("batch", [1, 20_000])
async def test_our_own_server_is_measured_rightly(repository, serving, typed, batch) -> None:
    if typed and batch > 1:
        pytest.skip("a typed batch of that size is the protobuf parser's measurement")
    publish_affine(repository)
    async with serving(repository, max_batch_size=20_000) as server:
        x = np.random.default_rng(0).standard_normal((2, batch, 3)).astype(np.float32)
        messages = tuple(infer("affine", {"x": each}, typed=typed).request.SerializeToString() for each in x)
        result = await measured(
            server.port, messages=messages, expected=(("y", "FP32", (-1, 3)),), requests=40, in_flight=2
        )
        assert (result.done, result.errors) == (40, {})

        def done() -> int:
            with InferenceClient(f"127.0.0.1:{server.port}") as client:
                return client.statistics("affine")[0].inferences

        assert await asyncio.to_thread(done) == 40 * batch
