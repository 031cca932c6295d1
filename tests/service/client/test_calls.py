"""Every call through both clients, against the real server."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest

from service.client import (
    Answer,
    AsyncInferenceClient,
    Classified,
    FieldViolation,
    InferenceClient,
    ServerError,
    TensorConfig,
    request,
)
from service.errors import Code
from service.transport.sockets import close_server
from tests.conftest import publish_affine, put_plain

ROW = {"x": np.array([[1, 3, 2]], np.float32)}


class InThread:
    """The blocking client, awaited: each call on a thread of its own, since the server runs on this one's loop."""

    def __init__(self, client: InferenceClient) -> None:
        self._client = client

    def __getattr__(self, name):
        def call(*args, **kwargs):
            return asyncio.to_thread(getattr(self._client, name), *args, **kwargs)

        return call

    async def stream(self, requests, **kwargs):
        """As a caller would see it: what came before an error, and the error."""
        answers = self._client.stream(requests, **kwargs)
        while (answer := await asyncio.to_thread(next, answers, None)) is not None:
            yield answer


@pytest.fixture(params=["sync", "async"])
async def connect(request):
    """``connect(server, **settings)`` gives a client of either kind, closed at the end."""
    opened = []

    def open_(server, **settings):
        address = f"127.0.0.1:{server.port}"
        kind = AsyncInferenceClient if request.param == "async" else InferenceClient
        opened.append(kind(address, **settings))
        return opened[-1] if request.param == "async" else InThread(opened[-1])

    yield open_
    for client in opened:
        closed = client.close()
        if request.param == "async":
            await closed


@pytest.fixture
async def client(repository, serving, connect):
    publish_affine(repository, labels={"y": ("a", "b", "c")})
    async with serving(repository) as server:
        yield connect(server)


async def test_classes_instead_of_numbers(client) -> None:
    answer = await client.infer("affine", ROW, classes={"y": 2})
    assert answer.classes("y") == ((Classified(7, 1, "b"), Classified(5, 2, "c")),)
    assert list(answer.outputs) == ["y"]
    rows = await client.infer("affine", {"x": np.eye(3, dtype=np.float32)}, outputs=["y"], classes={"y": 1})
    assert [row[0].label for row in rows.classes("y")] == ["a", "b", "c"]


async def test_classes_of_an_unknown_output_are_refused_by_the_server(client) -> None:
    with pytest.raises(ServerError, match="'z'") as failure:
        await client.infer("affine", ROW, classes={"z": 1})
    assert failure.value.code is Code.INVALID_ARGUMENT


async def test_a_request_that_may_not_wait_is_not_kept_waiting(repository, serving, connect) -> None:
    publish_affine(repository)
    async with serving(repository, max_queue_delay_us=100_000) as server:
        client = connect(server)
        with pytest.raises(ServerError, match="Request timeout expired") as failure:
            await client.infer("affine", ROW, queue_timeout_s=1e-6)
        assert failure.value.code is Code.UNAVAILABLE
        assert failure.value.details.reason == "QUEUE_TIMEOUT"
        answer = await client.infer("affine", ROW, priority=1, queue_timeout_s=30.0)
    assert answer.outputs["y"].tolist() == [[3, 7, 5]]


async def test_the_configuration(client) -> None:
    config = await client.config("affine")
    assert (config.name, config.platform, config.backend) == ("affine", "onnxruntime_onnx", "onnxruntime")
    assert config.max_batch_size > 1
    assert config.inputs == (TensorConfig("x", "FP32", (3,)),)
    assert config.outputs == (TensorConfig("y", "FP32", (3,)),)
    assert config.batches_requests
    assert not config.decoupled
    assert config.max_queue_delay_us == 0


async def test_the_details_of_an_unknown_model(client) -> None:
    with pytest.raises(ServerError) as failure:
        await client.infer("nope", ROW)
    details = failure.value.details
    assert (details.reason, details.domain) == ("MODEL_NOT_FOUND", "mnist1d-service")
    assert details.metadata["model"] == "nope"
    assert details.retry_after_s is None


async def test_the_details_name_the_field_at_fault(client) -> None:
    with pytest.raises(ServerError) as failure:
        await client.infer("affine", {"x": np.ones((1, 4), np.float32)})
    assert failure.value.code is Code.INVALID_ARGUMENT
    assert failure.value.details.violations == (FieldViolation("inputs[0].shape", failure.value.message),)


async def test_the_details_say_when_to_try_again(repository, serving, connect) -> None:
    put_plain(repository, "broken", b"no model")
    publish_affine(repository)
    async with serving(repository) as server:
        with pytest.raises(ServerError) as refused:
            await connect(server).infer("broken", {})
        server._admission.close()
        with pytest.raises(ServerError) as stopping:
            await connect(server).infer("affine", ROW)
    assert refused.value.code is stopping.value.code is Code.UNAVAILABLE
    assert (refused.value.details.reason, refused.value.details.retry_after_s) == ("ARTIFACT_INVALID", None)
    assert stopping.value.details.reason == "SERVER_STOPPING"
    assert stopping.value.details.retry_after_s > 0


async def test_the_repository_is_listed_and_models_are_loaded_and_unloaded(repository, serving, connect) -> None:
    publish_affine(repository)
    async with serving(repository, model_control_mode="explicit") as server:
        client = connect(server)
        assert await client.repository_index(ready=True) == ()
        await client.load("affine")
        (state,) = await client.repository_index()
        assert (state.name, state.version, state.state) == ("affine", "1", "READY")
        assert (await client.infer("affine", ROW)).outputs["y"].tolist() == [[3, 7, 5]]
        await client.unload("affine")
        assert await client.repository_index(ready=True) == ()
        with pytest.raises(ServerError) as failure:
            await client.load("nope")
    assert failure.value.code is Code.INTERNAL
    assert "failed to load 'nope'" in failure.value.message


async def close_all(writers) -> None:
    for writer in writers:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture
async def silent():
    """A server that takes connections and says nothing: a deadline that passes there does not depend on speed."""
    connections, is_over = [], False

    def connected(_reader, writer):
        if is_over:  # it was on its way when the server closed
            writer.transport.abort()
        else:
            connections.append(writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    yield SimpleNamespace(port=server.sockets[0].getsockname()[1])
    is_over = True
    await close_server(server)
    await close_all(connections)


@pytest.mark.parametrize(("of_client", "of_call"), [(0.05, None), (60.0, 0.05)])
async def test_a_deadline_of_the_client_or_of_the_call_ends_the_call(silent, connect, of_client, of_call) -> None:
    with pytest.raises(ServerError) as failure:
        await connect(silent, timeout_s=of_client).infer("affine", ROW, timeout_s=of_call)
    assert failure.value.code is Code.DEADLINE_EXCEEDED


async def test_a_call_may_have_more_time_than_others(repository, serving, connect) -> None:
    publish_affine(repository)
    async with serving(repository) as server:
        answer = await connect(server, timeout_s=1e-6).infer("affine", ROW, timeout_s=30.0)
    assert answer.outputs["y"].tolist() == [[3, 7, 5]]


@pytest.fixture
async def distant():
    """``await distant(server)``: the same server, with half a second between a connection and its first byte."""
    relays, relaying, is_over = [], [], False

    async def copy(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async def relay(reader, writer, port):
        writers = [writer]
        try:
            await asyncio.sleep(0.5)
            there, back = await asyncio.open_connection("127.0.0.1", port)
            writers.append(back)
            await asyncio.gather(copy(reader, back), copy(there, writer))
        finally:
            await close_all(writers)

    async def listen(server):
        def connected(reader, writer):
            if is_over:
                writer.transport.abort()
                return
            relaying.append(asyncio.create_task(relay(reader, writer, server.port)))

        relays.append(await asyncio.start_server(connected, "127.0.0.1", 0))
        return SimpleNamespace(port=relays[-1].sockets[0].getsockname()[1])

    yield listen
    is_over = True
    for end in relays:
        await close_server(end)
    for task in relaying:
        task.cancel()
    await asyncio.gather(*relaying, return_exceptions=True)


async def test_a_server_that_is_slow_to_connect_to_is_reached(repository, serving, connect, distant) -> None:
    publish_affine(repository)
    async with serving(repository) as server:
        answer = await connect(await distant(server)).infer("affine", ROW)
    assert answer.outputs["y"].tolist() == [[3, 7, 5]]


async def test_errors_within_a_stream_come_in_their_place_and_name_their_request(client) -> None:
    made = [
        request("affine", ROW, request_id="0"),
        request("nope", ROW, request_id="1"),
        request("affine", {"x": np.ones((1, 4), np.float32)}, request_id="2"),
        request("affine", ROW, request_id="3", classes={"y": 1}),
        request("affine", ROW, request_id="4", priority=1, queue_timeout_s=5.0),
    ]
    answers = [answer async for answer in client.stream(made)]
    assert [isinstance(answer, Answer) for answer in answers] == [True, False, False, True, True]
    assert [a.id if isinstance(a, Answer) else a.request_id for a in answers] == ["0", "1", "2", "3", "4"]
    assert "'nope'" in answers[1].message
    assert "axis 1 must be 3" in answers[2].message
    assert answers[3].classes("y") == ((Classified(7, 1, "b"),),)


async def test_a_long_stream_keeps_its_order(client) -> None:
    made = [request("affine" if n % 3 else "nope", ROW, request_id=str(n)) for n in range(300)]
    answers = [answer async for answer in client.stream(made)]
    assert [a.id if isinstance(a, Answer) else a.request_id for a in answers] == [str(n) for n in range(300)]
    assert [isinstance(answer, Answer) for answer in answers] == [bool(n % 3) for n in range(300)]


async def test_what_the_requests_raise_is_raised_after_the_answers_before_it(client) -> None:
    def requests():
        yield request("affine", ROW, request_id="0")
        yield request("affine", {"x": np.zeros(1, np.complex64)})

    answers = []
    with pytest.raises(TypeError, match="complex64 cannot be sent"):
        async for answer in client.stream(requests()):
            answers.append(answer.id)  # noqa: PERF401 - a comprehension would lose them with the error
    assert answers == ["0"]


async def test_a_stream_that_the_server_ends_with_an_error_raises_it(client) -> None:
    with pytest.raises(ServerError) as failure:
        async for _ in client.stream([request("nope", ROW)], metadata={"triton_grpc_error": "true"}):
            pass
    assert failure.value.code is Code.NOT_FOUND


async def test_a_stream_may_have_a_deadline(silent, connect) -> None:
    with pytest.raises(ServerError) as failure:
        async for _ in connect(silent).stream([request("affine", ROW)], timeout_s=0.05):
            pass
    assert failure.value.code is Code.DEADLINE_EXCEEDED
