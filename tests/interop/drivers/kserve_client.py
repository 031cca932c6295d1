"""Run as a process, in KServe's own environment: KServe's InferenceGRPCClient, driven by lines (see wire.py).

python kserve_client.py ADDRESS
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import grpc
import wire
from google.protobuf import json_format
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.grpc import grpc_predict_v2_pb2, grpc_predict_v2_pb2_grpc
from kserve.protocol.infer_type import RequestedOutput


class Driver:
    """One client on one event loop."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.loop = asyncio.new_event_loop()
        self.client = self.loop.run_until_complete(self._connect())

    async def _connect(self) -> InferenceGRPCClient:
        return InferenceGRPCClient(self.address)

    def call(self, method: str, arguments: dict[str, Any]) -> Any:
        """Any method of the client, by its name; `stub` is for what its methods do not reach."""
        mine = {"infer": self.infer, "stub": self.stub}.get(method)
        called = mine(**arguments) if mine else getattr(self.client, method)(**arguments)
        try:
            return self.loop.run_until_complete(called)
        except grpc.RpcError as error:
            raise wire.CallFailed(error.code().name, error.details()) from error

    async def infer(
        self, model: str, inputs: list[dict[str, Any]], outputs: list[str] | None = None, **more: Any
    ) -> dict[str, Any]:
        """An inference; arrays go raw, lists go typed, as KServe's client does it."""
        tensors = [InferInput(entry["name"], entry["shape"], entry["datatype"], entry["data"]) for entry in inputs]
        request = InferRequest(
            model, tensors, request_id=more.pop("request_id", None), parameters=more.pop("parameters", None)
        )
        if outputs is not None:
            request.request_outputs = [RequestedOutput(name) for name in outputs]
        answer = await self.client.infer(request, **more)
        return {
            "model_name": answer.model_name,
            "model_version": answer.model_version,
            "id": answer.id,
            "outputs": {output.name: output.as_numpy() for output in answer.outputs},
            "order": [output.name for output in answer.outputs],
        }

    async def stub(self, rpc: str, request: dict[str, Any]) -> dict[str, Any]:
        """Call a method of KServe's generated stub, whose messages differ from Triton's here and there."""
        message_class = getattr(grpc_predict_v2_pb2, f"{rpc}Request")
        message = json_format.ParseDict(request, message_class())
        async with grpc.aio.insecure_channel(self.address) as channel:
            answer = await getattr(grpc_predict_v2_pb2_grpc.GRPCInferenceServiceStub(channel), rpc)(message)
        return json_format.MessageToDict(answer, preserving_proto_field_name=True)


if __name__ == "__main__":
    logging.disable()  # the client logs every status with a traceback
    wire.answer_calls(Driver(sys.argv[1]).call)
