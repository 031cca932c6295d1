"""Check answers: their shapes always, their contents on request.

Most answers to the same input are byte for byte equal to the first one, so that one comparison is enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from google.protobuf.message import DecodeError

from service.client.errors import ServerError
from service.client.operations import read_answer
from service.pb.open_inference_pb2 import ModelInferResponse, ModelStreamInferResponse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Shapes = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Name, datatype and shape of each output."""


@dataclass(frozen=True)
class Right:
    """The expected answers, if they are known in advance, with one entry per input or none."""

    bodies: tuple[bytes, ...] = ()
    """Serialised answers. An answer with other bytes is parsed and checked."""
    outputs: tuple[Mapping[str, np.ndarray], ...] = ()
    """Outputs by name, for each input."""
    tolerance: float = 0.0
    """Largest absolute difference of a value; 0 for equal values."""


class AnswerCheck:
    """Compares the answers to each of some inputs with the model's declaration and with the version's first answer."""

    def __init__(
        self,
        expected: Shapes,
        inputs: int,
        *,
        contents: bool,
        streamed: bool = False,
        right: Right | None = None,
    ) -> None:
        """``expected`` has -1 for a free axis; ``contents``: one version's answers to an input must have the same bits.

        ``streamed``: answers are messages of ModelStreamInfer. With ``right`` they are also compared with that.
        """
        self._expected = {name: (datatype, shape) for name, datatype, shape in expected}
        self._contents = contents
        self._streamed = streamed
        self._right = right or Right()
        self._bodies: list[bytes | None] = list(self._right.bodies) or [None] * inputs
        self._first: list[dict[str, tuple[Shapes, tuple[bytes, ...]]]] = [{} for _ in range(inputs)]
        """First answer to each input by version, since the server may switch versions during the load."""

    def problem(self, index: int, body: bytes) -> str | None:
        """The problem of an answer to the input with this index; None if it is right."""
        if body == self._bodies[index]:
            return None
        try:
            response = self._response(body)
            outputs = read_answer(response).outputs
        except (DecodeError, ServerError) as error:
            return f"damaged answer: {error}"
        except _InStream as error:
            return f"an error in the stream: {error}"
        if self._right.outputs and (wrong := self._off(self._right.outputs[index], outputs)) is not None:
            return wrong
        shapes = tuple((t.name, t.datatype, tuple(t.shape)) for t in response.outputs)
        contents = tuple(response.raw_output_contents) or tuple(
            tensor.contents.SerializeToString(deterministic=True) for tensor in response.outputs
        )
        first = self._first[index].get(response.model_version)
        if first is None:
            wrong = self._unexpected(shapes)
            if wrong is None:
                self._first[index][response.model_version], self._bodies[index] = (shapes, contents), body
            return wrong
        if shapes != first[0]:
            return f"expected the outputs of the first answer, {first[0]}, got {shapes}"
        if self._contents and contents != first[1]:
            names = [shape[0] for shape, a, b in zip(shapes, first[1], contents, strict=False) if a != b]
            return f"output {', '.join(names)} differs from the first answer to the same input by the same version"
        return None

    def _response(self, body: bytes) -> ModelInferResponse:
        if not self._streamed:
            return ModelInferResponse.FromString(body)
        message = ModelStreamInferResponse.FromString(body)
        if message.error_message:
            raise _InStream(message.error_message)
        return message.infer_response

    def _off(self, right: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> str | None:
        for name, wanted in right.items():
            got = outputs.get(name)
            if got is None:
                return f"expected outputs {', '.join(right)}, got {', '.join(outputs)}"
            if got.shape != wanted.shape:
                return f"output {name!r}: expected the shape {list(wanted.shape)}, got {list(got.shape)}"
            if np.array_equal(got, wanted):
                continue
            tolerance = self._right.tolerance
            if not tolerance or not np.allclose(got, wanted, rtol=0.0, atol=tolerance):
                return f"output {name!r} is off by more than {tolerance:g}"
        return None

    def _unexpected(self, shapes: Sequence[tuple[str, str, tuple[int, ...]]]) -> str | None:
        missing = self._expected.keys() - {name for name, _, _ in shapes}
        if missing:
            return f"expected outputs {', '.join(self._expected)}, got {', '.join(name for name, _, _ in shapes)}"
        for name, datatype, shape in shapes:
            if name not in self._expected:
                continue
            wanted, axes = self._expected[name]
            fits = len(axes) == len(shape) and all(a in (-1, b) for a, b in zip(axes, shape, strict=True))
            if datatype != wanted or not fits:
                return f"output {name!r}: expected {wanted}{list(axes)}, got {datatype}{list(shape)}"
        return None


class _InStream(Exception):
    """The server sent an error message in place of an answer on the stream."""
