"""The server that everybody writes: grpcio's threaded server, ten threads, generated stubs, one run a request.

    python -m benchmarks.comparison.plain_grpcio_server --port 8021 --model mnist1d-conv path/to/model.onnx

Typed requests get typed answers and raw ones raw answers. It checks nothing.
"""

from __future__ import annotations

import argparse
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import numpy as np
import onnxruntime as ort

from service.pb import open_inference_pb2 as pb
from tests.stubs import open_inference_pb2_grpc as stubs

if TYPE_CHECKING:
    from collections.abc import Iterator

THREADS = 10
MAX_MESSAGE_BYTES = 64 * 2**20


class Servicer(stubs.GRPCInferenceServiceServicer):
    def __init__(self, model: str, path: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._model = model
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]

    def ModelInfer(  # noqa: N802 - the protocol's name
        self,
        request: pb.ModelInferRequest,
        context: grpc.ServicerContext,  # noqa: ARG002 - grpcio passes it
    ) -> pb.ModelInferResponse:
        raw = bool(request.raw_input_contents)
        feeds = {}
        for number, tensor in enumerate(request.inputs):
            if raw:
                values = np.frombuffer(request.raw_input_contents[number], np.float32)
            else:
                values = np.array(tensor.contents.fp32_contents, np.float32)
            feeds[tensor.name] = values.reshape(tuple(tensor.shape))
        response = pb.ModelInferResponse(model_name=self._model, model_version="1", id=request.id)
        for name, array in zip(self._outputs, self._session.run(self._outputs, feeds), strict=True):
            output = response.outputs.add(name=name, datatype="FP32", shape=array.shape)
            if raw:
                response.raw_output_contents.append(array.tobytes())
            else:
                output.contents.fp32_contents.extend(array.ravel().tolist())
        return response

    def ModelStreamInfer(  # noqa: N802 - the protocol's name
        self, request_iterator: Iterator[pb.ModelInferRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ModelStreamInferResponse]:
        for request in request_iterator:
            yield pb.ModelStreamInferResponse(infer_response=self.ModelInfer(request, context))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default="mnist1d-conv")
    arguments = parser.parse_args()
    options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
    server = grpc.server(ThreadPoolExecutor(THREADS), options=options)
    stubs.add_GRPCInferenceServiceServicer_to_server(Servicer(arguments.model, arguments.path), server)
    server.add_insecure_port(f"127.0.0.1:{arguments.port}")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server.start()
    stop.wait()
    server.stop(1).wait()


if __name__ == "__main__":
    main()
