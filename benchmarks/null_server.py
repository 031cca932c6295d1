"""A server that costs next to nothing: it answers every ModelInfer with the same bytes, cut beforehand.

    python benchmarks/null_server.py [--port 8011]

It shows what a load generator can offer. It speaks just enough HTTP/2 for gRPC clients: requests are recognised by
their END_STREAM flag and answered with ready frames in which only the stream number is new. It describes one model,
`null`, x FP32[-1, 40] to y FP32[-1, 10], and answers with one row of zeros.
"""

from __future__ import annotations

import argparse
import asyncio

from service.bench import frames, hpack
from service.bench.frames import HEADER, WORD
from service.pb import open_inference_pb2 as pb

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


def pieces(message: bytes) -> tuple[bytes, bytes, bytes]:
    """What goes before the stream number of the headers, of the data and of the trailers."""
    data = b"\0" + WORD.pack(len(message)) + message
    cut = [
        frames.frame(
            frames.HEADERS,
            frames.END_HEADERS,
            0,
            hpack.encode([(b":status", b"200"), (b"content-type", b"application/grpc")]),
        ),
        frames.frame(frames.DATA, 0, 0, data),
        frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 0, hpack.encode([(b"grpc-status", b"0")])),
    ]
    # The stream number is the last part of a frame's head: what follows it joins the next frame's beginning.
    return cut[0][:5], cut[0][9:] + cut[1][:5], cut[1][9:] + cut[2][:5]


INFER = pieces(ANSWER.SerializeToString())
METADATA = pieces(MODEL.SerializeToString())
END = hpack.encode([(b"grpc-status", b"0")])


class NullServer(asyncio.Protocol):
    def __init__(self) -> None:
        self._rest = b""
        self._preface = True
        self._received = 0
        self._decoder = hpack.Decoder(lambda fields: METADATA if (b":path", _METADATA_PATH) in fields else INFER)
        self._answers: dict[int, tuple[bytes, bytes, bytes]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        transport.write(
            frames.settings({frames.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW})
            + frames.window_update(0, frames.MAX_WINDOW - frames.DEFAULT_WINDOW)
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
            word, flags, stream = HEADER.unpack_from(data, at)
            stop = at + 9 + (word >> 8)
            if stop > end:
                break
            kind = word & 0xFF
            if kind == frames.DATA:
                self._received += word >> 8
                if flags & frames.END_STREAM:
                    number = WORD.pack(stream)
                    first, second, third = self._answers.pop(stream)
                    out += (first, number, second, number, third, number, END)
            elif kind == frames.HEADERS:
                self._answers[stream] = self._decoder.decode(
                    frames.without_padding(data[at + 9 : stop], flags)[5 if flags & frames.PRIORITISED else 0 :]
                )
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


_METADATA_PATH = b"/inference.GRPCInferenceService/ModelMetadata"


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
