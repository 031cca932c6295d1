"""Run as a process: tritonclient's gRPC clients, driven by lines (see wire.py).

python triton.py sync|aio ADDRESS [CLIENT-OPTIONS-AS-JSON]

Every public method of the client can be called by its name; what is asynchronous (callbacks, streams) is one call here
that answers when all its responses are there.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
from typing import Any

import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import wire
from google.protobuf import json_format
from google.protobuf.message import Message

WAIT_S = 30.0
"""For callbacks; only a hang reaches it."""


def failed(error: triton.InferenceServerException) -> dict[str, str]:
    """tritonclient tells a status as the text ``StatusCode.NOT_FOUND``, and none for what is told within a stream."""
    return {"code": (error.status() or "").removeprefix("StatusCode."), "message": error.message()}


def tensor(
    name: str,
    datatype: str,
    array: Any = None,
    *,
    shape: list[int] | None = None,
    claimed_shape: list[int] | None = None,
    shared_memory: dict[str, Any] | None = None,
) -> triton.InferInput:
    """An InferInput; ``claimed_shape`` replaces the shape after the contents are set."""
    made = triton.InferInput(name, list(array.shape) if shape is None else shape, datatype)
    if shared_memory is not None:
        made.set_shared_memory(**shared_memory)
    elif array is not None:
        made.set_data_from_numpy(array)
    if claimed_shape is not None:
        made.set_shape(claimed_shape)
    return made


def wanted(name: str, class_count: int = 0, shared_memory: dict[str, Any] | None = None) -> triton.InferRequestedOutput:
    """An InferRequestedOutput."""
    made = triton.InferRequestedOutput(name, class_count)
    if shared_memory is not None:
        made.set_shared_memory(**shared_memory)
    return made


def prepared(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of an inference with tritonclient's own objects in them."""
    ready = dict(arguments)
    ready["inputs"] = [tensor(**entry) for entry in arguments["inputs"]]
    if arguments.get("outputs") is not None:
        ready["outputs"] = [wanted(**entry) for entry in arguments["outputs"]]
    return ready


def shown(value: Any) -> Any:
    """What a method returned, as plain values."""
    if isinstance(value, triton.InferResult):
        response = value.get_response()
        return {
            "model_name": response.model_name,
            "model_version": response.model_version,
            "id": response.id,
            "parameters": value.get_response(as_json=True).get("parameters", {}),
            "order": [output.name for output in response.outputs],
            "datatypes": {output.name: output.datatype for output in response.outputs},
            "outputs": {output.name: value.as_numpy(output.name) for output in response.outputs},
        }
    if isinstance(value, Message):
        return json_format.MessageToDict(value, preserving_proto_field_name=True)
    return value


class Sync:
    """`tritonclient.grpc.InferenceServerClient`."""

    def __init__(self, address: str, options: dict[str, Any]) -> None:
        self.client = triton.InferenceServerClient(address, **options)
        self.came: queue.SimpleQueue[tuple[int, Any, Any]] = queue.SimpleQueue()
        self.pending = 0

    def call(self, method: str, arguments: dict[str, Any]) -> Any:
        """Any method of the client, or one of the compositions below."""
        if method in ("async_infer", "begin", "finish", "stream", "plugin", "public_methods"):
            return getattr(self, method)(**arguments)
        if method == "infer":
            arguments = prepared(arguments)
        return shown(getattr(self.client, method)(**arguments))

    def public_methods(self) -> list[str]:
        """What an InferenceServerClient can be asked."""
        return [name for name in dir(self.client) if not name.startswith("_")]

    def async_infer(self, requests: list[dict[str, Any]], cancel: list[int] = ()) -> list[Any]:
        """Every request at once with a callback each; what the callbacks got, by request, as they came.

        Those at the positions ``cancel`` are cancelled as soon as all are sent.
        """
        self.begin(requests, cancel)
        return self.finish()

    def begin(self, requests: list[dict[str, Any]], cancel: list[int] = ()) -> None:
        """The first half of `async_infer`; `finish` is the other."""
        contexts = []
        for number, arguments in enumerate(requests):

            def callback(result: Any, error: Any, number: int = number) -> None:
                self.came.put((number, result, error))

            contexts.append(self.client.async_infer(callback=callback, **prepared(arguments)))
        for number in cancel:
            contexts[number].cancel()
        self.pending = len(requests)

    def finish(self) -> list[Any]:
        """What the callbacks got since `begin`."""
        answers = [self.came.get(timeout=WAIT_S) for _ in range(self.pending)]
        return [
            {"request": number, "result": shown(result), "error": failed(error) if error else None}
            for number, result, error in answers
        ]

    def stream(
        self, requests: list[dict[str, Any]], *, cancel: bool = False, responses: int | None = None, **options: Any
    ) -> list[Any]:
        """Open a stream, send every request, wait for the responses (as many, unless told), stop the stream."""
        came: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.client.start_stream(lambda result, error: came.put((result, error)), **options)
        answers: list[Any] = []
        try:
            for arguments in requests:
                try:
                    self.client.async_stream_infer(**prepared(arguments))
                except triton.InferenceServerException:
                    break  # the stream has ended already; the callback is told why
            count = len(requests) if responses is None else responses
            while len(answers) < count:
                answers.append(came.get(timeout=WAIT_S))
                if answers[-1][1] is not None and answers[-1][1].status() is not None:
                    break  # no error within the stream, but its end
        finally:
            self.client.stop_stream(cancel_requests=cancel)
        while not came.empty():
            answers.append(came.get())
        return [{"result": shown(result), "error": failed(error) if error else None} for result, error in answers]

    def plugin(self, headers: dict[str, str], call: str, arguments: dict[str, Any]) -> Any:
        """Call a method with a client plugin that adds headers to every request."""

        class AddHeaders:
            def __call__(self, request: Any) -> None:
                request.headers = {**(request.headers or {}), **headers}

        self.client.register_plugin(AddHeaders())
        try:
            assert self.client.plugin() is not None
            return self.call(call, arguments)
        finally:
            self.client.unregister_plugin()


class Aio:
    """`tritonclient.grpc.aio.InferenceServerClient`, on an event loop of its own."""

    def __init__(self, address: str, options: dict[str, Any]) -> None:
        self.loop = asyncio.new_event_loop()
        self.client = self.loop.run_until_complete(self._connect(address, options))

    async def _connect(self, address: str, options: dict[str, Any]) -> triton_aio.InferenceServerClient:
        return triton_aio.InferenceServerClient(address, **options)

    def call(self, method: str, arguments: dict[str, Any]) -> Any:
        """Any method of the client, or one of the compositions below."""
        return self.loop.run_until_complete(asyncio.wait_for(self._call(method, arguments), WAIT_S))

    async def _call(self, method: str, arguments: dict[str, Any]) -> Any:
        if method == "public_methods":
            return [name for name in dir(self.client) if not name.startswith("_")]
        if method in ("async_infer", "stream"):
            return await getattr(self, method)(**arguments)
        if method == "infer":
            arguments = prepared(arguments)
        return shown(await getattr(self.client, method)(**arguments))

    async def async_infer(self, requests: list[dict[str, Any]], cancel: list[int] = ()) -> list[Any]:
        """Every request as a task, all at once; those at the positions ``cancel`` are cancelled once all run."""
        tasks = [asyncio.ensure_future(self.client.infer(**prepared(arguments))) for arguments in requests]
        if cancel:
            await asyncio.sleep(0)
        for number in cancel:
            tasks[number].cancel()
        answers = []
        for number, outcome in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
            if isinstance(outcome, triton.InferenceServerException):
                answers.append({"request": number, "result": None, "error": failed(outcome)})
            elif isinstance(outcome, asyncio.CancelledError):
                cancelled = {"code": "CANCELLED", "message": "Locally cancelled by application!"}
                answers.append({"request": number, "result": None, "error": cancelled})
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                answers.append({"request": number, "result": shown(outcome), "error": None})
        return answers

    async def stream(
        self, requests: list[dict[str, Any]], *, cancel: bool = False, responses: int | None = None, **options: Any
    ) -> list[Any]:
        """Send every request on a stream, read the responses (as many, unless told), then end the sending side.

        Not before: whoever still writes when the server ends the stream is told INTERNAL by grpcio, whatever the server
        said.
        """
        count = len(requests) if responses is None else responses
        enough = asyncio.Event()

        async def sent() -> Any:
            for arguments in requests:
                yield prepared(arguments)
            await enough.wait()

        answers = []
        came = self.client.stream_infer(sent(), **options)
        try:
            async for result, error in came:
                answers.append({"result": shown(result), "error": failed(error) if error else None})
                if len(answers) == count:
                    enough.set()
                    if cancel:
                        came.cancel()
        except asyncio.CancelledError:
            answers.append({"result": None, "error": {"code": "CANCELLED", "message": ""}})
        except triton_aio.grpc.RpcError as error:  # aio leaves what ends a stream as it is
            answers.append({"result": None, "error": {"code": error.code().name, "message": error.details()}})
        return answers


class Driver:
    """Turns tritonclient's exceptions into answers, and calls its stub where the client's own methods cannot say it."""

    def __init__(self, kind: str, address: str, options: dict[str, Any]) -> None:
        self.client = {"sync": Sync, "aio": Aio}[kind](address, options)
        self.address = address

    def call(self, method: str, arguments: dict[str, Any]) -> Any:
        """Call and answer; statuses become `wire.CallFailed`."""
        try:
            if method == "stub":
                return self.stub(**arguments)
            return self.client.call(method, arguments)
        except triton.InferenceServerException as error:
            raise wire.CallFailed(**failed(error)) from error
        except triton_aio.grpc.RpcError as error:
            raise wire.CallFailed(error.code().name, error.details()) from error

    def stub(self, rpc: str, requests: list[dict[str, Any]]) -> list[Any]:
        """Call a method of tritonclient's generated stub with messages in their JSON form; the responses."""
        row = triton.service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name[rpc]
        message_class = getattr(triton.service_pb2, row.input_type.name)
        messages = [json_format.ParseDict(request, message_class()) for request in requests]
        with triton_aio.grpc.insecure_channel(self.address) as channel:
            method = getattr(triton.service_pb2_grpc.GRPCInferenceServiceStub(channel), rpc)
            if row.client_streaming:
                return [shown(response) for response in method(iter(messages), timeout=WAIT_S)]
            return [shown(method(message, timeout=WAIT_S)) for message in messages]


if __name__ == "__main__":
    kind, address, *rest = sys.argv[1:]
    wire.answer_calls(Driver(kind, address, json.loads(rest[0]) if rest else {}).call)
