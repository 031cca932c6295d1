"""A server that costs next to nothing: it answers every ModelInfer with the same bytes, cut beforehand.

    python benchmarks/null_server.py [--port 8011]

It shows what a load generator can offer. It speaks just enough HTTP/2 for gRPC clients: requests are recognised by
their END_STREAM flag and answered with ready frames in which only the stream number is new; on ModelStreamInfer each
DATA frame counts as a request. It describes one model, `null`, x FP32[-1, 40] to y FP32[-1, 10], and answers with one
row of zeros.
"""

from __future__ import annotations

import argparse
import asyncio

from service.pb import open_inference_pb2 as pb
from service.wire import frames, hpack
from service.wire.frames import COMPACT_HEADER, UINT32

MODEL = pb.ModelMetadataResponse(
    name="null",
    versions=["1"],
    platform="null",
    inputs=[{"name": "x", "datatype": "FP32", "shape": [-1, 40]}],
    outputs=[{"name": "y", "datatype": "FP32", "shape": [-1, 10]}],
)
ANSWER = pb.ModelInferResponse(
    model_name="null",
    model_version="1",
    outputs=[{"name": "y", "datatype": "FP32", "shape": [1, 10]}],
    raw_output_contents=[bytes(40)],
)
_TOP_UP = 2**20


HEADERS = frames.frame(
    frames.HEADERS,
    frames.END_HEADERS,
    0,
    hpack.encode([(b":status", b"200"), (b"content-type", b"application/grpc")]),
)
END = hpack.encode([(b"grpc-status", b"0")])
TRAILERS = frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 0, END)


def data_frame(message: bytes) -> bytes:
    return frames.frame(frames.DATA, 0, 0, b"\0" + UINT32.pack(len(message)) + message)


def pieces(message: bytes) -> tuple[bytes, bytes, bytes]:
    """What goes before the stream number of the headers, of the data and of the trailers."""
    # The stream number is the last part of a frame's head: what follows it joins the next frame's beginning.
    cut = data_frame(message)
    return HEADERS[:5], HEADERS[9:] + cut[:5], cut[9:] + TRAILERS[:5]


INFER = pieces(ANSWER.SerializeToString())
METADATA = pieces(MODEL.SerializeToString())
STREAM = pieces(b"")
STREAMED = data_frame(pb.ModelStreamInferResponse(infer_response=ANSWER).SerializeToString())
METHODS = {b"ModelMetadata": METADATA, b"ModelInfer": INFER, b"ModelStreamInfer": STREAM}
OUR_GENERATOR = b"mnist1d-bench"


class NullServer(asyncio.Protocol):
    def __init__(self) -> None:
        self._rest = b""
        self._preface = True
        self._received = 0
        self._decoder = hpack.Decoder(lambda fields: METHODS[dict(fields)[b":path"].rpartition(b"/")[2]])
        self._known: dict[bytes, tuple[bytes, bytes, bytes]] = {}
        self._answers: dict[int, tuple[bytes, bytes, bytes]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        transport.write(
            frames.settings({frames.INITIAL_WINDOW_SIZE: frames.LARGEST_WINDOW})
            + frames.window_update(0, frames.LARGEST_WINDOW - frames.DEFAULT_WINDOW)
        )

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        at, end = 0, len(data)
        if self._preface:
            if end < len(frames.PREFACE):
                self._rest = data
                return
            self._preface, at = False, len(frames.PREFACE)
        out: list[bytes] = []
        while end - at >= 9:
            word, flags, stream = COMPACT_HEADER.unpack_from(data, at)
            stop = at + 9 + (word >> 8)
            if stop > end:
                break
            kind = word & 0xFF
            if kind == frames.DATA:
                self._received += word >> 8
                number = UINT32.pack(stream)
                if self._answers[stream] is STREAM:
                    if word >> 8:
                        out += (STREAMED[:5], number, STREAMED[9:])
                    if flags & frames.END_STREAM:
                        del self._answers[stream]
                        out += (TRAILERS[:5], number, END)
                elif flags & frames.END_STREAM:
                    first, second, third = self._answers.pop(stream)
                    out += (first, number, second, number, third, number, END)
            elif kind == frames.HEADERS:
                payload = data[at + 9 : stop]
                if flags & frames.PADDED:
                    payload = frames.unpadded(payload)
                self._answers[stream] = answers = self._method(payload[5 if flags & frames.HAS_PRIORITY else 0 :])
                if answers is STREAM:
                    out += (HEADERS[:5], UINT32.pack(stream), HEADERS[9:])
            elif kind == frames.SETTINGS and not flags & frames.ACK:
                out.append(frames.frame(frames.SETTINGS, frames.ACK, 0))
            elif kind == frames.PING and not flags & frames.ACK:
                out.append(frames.frame(frames.PING, frames.ACK, 0, data[at + 9 : stop]))
            at = stop
        self._rest = data[at:]
        if self._received > _TOP_UP:
            out.append(frames.window_update(0, self._received))
            self._received = 0
        if out:
            self._transport.write(b"".join(out))

    def _method(self, block: bytes) -> tuple[bytes, bytes, bytes]:
        if OUR_GENERATOR not in block:
            return self._decoder.decode(block)
        # Its blocks enter nothing into the table, and differ in the timeout at their end at most.
        head = block.partition(b"grpc-timeout")[0]
        answers = self._known.get(head)
        if answers is None:
            answers = self._known[head] = self._decoder.decode(block)
        return answers


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(NullServer, "127.0.0.1", port)
    print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8011)
    port = parser.parse_args().port
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(port))
    else:
        uvloop.run(serve(port))


if __name__ == "__main__":
    main()
