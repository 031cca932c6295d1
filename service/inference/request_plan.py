"""Plans: cached parsing and checks for requests that differ only in the contents of their one raw input.

Clients often send the same request with other values. The first one is parsed and checked as usual, and a plan is made
from it. A later request with the same bytes before its contents is not parsed, and only its values are checked. Its
response is assembled from prepared bytes and is byte for byte the one of the general path
(`service.inference.tensors`), which handles all requests that do not fit a plan.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from service.inference.streaming import FINAL_RESPONSE
from service.inference.tensors import check_finite
from service.pb.open_inference_pb2 import ModelInferResponse
from service.wire.datatypes import DATATYPES
from service.wire.raw_contents import to_raw

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from service.inference.tensors import DecodedRequest
    from service.repository.model_version import ServedModel
    from service.runtime.batch import Answer, Waiting
    from service.runtime.runner import Runner

_RAW_OUTPUT_TAG: Final = b"\x32"
"""Field 6 of ModelInferResponse, length-delimited."""
_INFER_RESPONSE_TAG: Final = b"\x12"
"""Field 2 of ModelStreamInferResponse, length-delimited."""
_UNPLANNED: Final = ("BYTES", "BOOL")
"""Datatypes whose contents must be checked element by element."""
_MOST_SHAPES: Final = 64
_ALIGNMENT_BYTES: Final = 16
"""Alignment of bytes objects and arrays, hence of all other inputs. onnxruntime's reductions group their sums by
the alignment of the input, so that an unaligned view into a request would give results with other bits."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """A response without its contents: ``head``, then for each output the prefix and the size in bytes of its data."""

    head: bytes
    parts: tuple[tuple[bytes, int], ...]


class Plan:
    """A plan for one kind of request; a `service.runtime.batch.Form` whose contents are the bytes of the input."""

    def __init__(
        self,
        served: ServedModel,
        runner: Runner,
        asked: DecodedRequest,
        *,
        checks_finite: bool,
        is_streamed: bool,
    ) -> None:
        """Make a plan for requests like the one that was decoded to ``asked``, for which `fits` holds.

        ``served`` is the repository's entry of the model: the plan is valid until the repository replaces it.
        ``is_streamed``: responses are ModelStreamInferResponse messages.
        """
        # Weak references: a plan must not keep a replaced version in memory after its last request.
        self.served = weakref.ref(served)
        """The repository's entry when the plan was made; the plan is valid only while that entry is current."""
        self.runner = weakref.ref(runner)
        """The runner of the version that answers, as a weak reference."""
        self.model_name = served.name
        self._version = runner.version
        self.outputs = tuple(spec.name for spec in asked.outputs)
        self.rows = runner.rows_of(asked.feeds)
        ((self._input, array),) = asked.feeds.items()
        self._shape = array.shape
        self._batch_shape = (-1, *array.shape[1:])
        self._dtype = array.dtype
        self.input_elements = array.size or 1
        """Elements in the input of one request; at least 1."""
        self.key = (self.outputs, (array.shape[1:],), (self._input,))
        self._checks_finite = checks_finite and DATATYPES[runner.inputs[self._input].datatype].is_float
        self._is_streamed = is_streamed
        self._datatypes = tuple(DATATYPES[spec.datatype] for spec in asked.outputs)
        self._layouts: dict[tuple[tuple[int, ...], ...], _Layout] = {}

    @staticmethod
    def fits(runner: Runner, asked: DecodedRequest) -> bool:
        """Whether a plan can be made from a request without parameters."""
        if len(asked.feeds) != 1 or not asked.is_raw or asked.classes:
            return False
        specs = (*runner.inputs.values(), *asked.outputs)
        return all(spec.datatype not in _UNPLANNED for spec in specs) and all(a.ndim for a in asked.feeds.values())

    def feeds(self, contents: object) -> Mapping[str, np.ndarray]:
        """One request's input; raises InvalidRequest for NaN and infinite values."""
        array = np.frombuffer(cast("bytes", contents), self._dtype).reshape(self._shape)
        if isinstance(contents, memoryview) and array.ctypes.data % _ALIGNMENT_BYTES:
            array = array.copy()
        return self._checked(array)

    def shape_key(self, contents: object, outputs: tuple[str, ...]) -> Hashable:
        """The key that `service.runtime.batch.ArraysForm` makes, since requests of both forms may share a batch."""
        del contents, outputs
        return self.key

    def elements(self, contents: object) -> int:
        """Number of elements in the input."""
        del contents
        return self.input_elements

    def gather(self, batch: Sequence[Waiting]) -> Mapping[str, np.ndarray]:
        """Concatenate the contents of all requests to the input of the batch; raises InvalidRequest as `feeds` does."""
        if len(batch) == 1:
            return self.feeds(batch[0].contents)
        joined = b"".join([cast("bytes", waiting.contents) for waiting in batch])
        return self._checked(np.frombuffer(joined, self._dtype).reshape(self._batch_shape))

    def scatter(self, batch: Sequence[Waiting], answers: list[np.ndarray]) -> list[Answer | Exception]:
        """The serialized response to each request of a batch."""
        count = len(batch)
        if count == 1:
            return [self.response(answers)]
        layout = self._layout(tuple((answer.shape[0] // count, *answer.shape[1:]) for answer in answers))
        head = layout.head
        pieces = [
            (prefix, size, to_raw(answer, datatype))
            for (prefix, size), answer, datatype in zip(layout.parts, answers, self._datatypes, strict=True)
        ]
        if len(pieces) == 1:
            ((prefix, size, whole),) = pieces
            head += prefix
            return [head + whole[at : at + size] for at in range(0, count * size, size)] if size else [head] * count
        return [
            head + b"".join([prefix + whole[n * size : (n + 1) * size] for prefix, size, whole in pieces])
            for n in range(count)
        ]

    def response(self, answers: Sequence[np.ndarray]) -> bytes:
        """The serialized response to one request; ``answers`` in the order of `outputs`."""
        layout = self._layout(tuple(answer.shape for answer in answers))
        parts = [layout.head]
        for (prefix, _), answer, datatype in zip(layout.parts, answers, self._datatypes, strict=True):
            parts += (prefix, to_raw(answer, datatype))
        return b"".join(parts)

    def response_or_error(self, answers: Sequence[np.ndarray]) -> bytes | Exception:
        """The serialized response to one request, or the exception that `response` raises for it."""
        try:
            return self.response(answers)
        except Exception as error:  # noqa: BLE001 - it fails this request alone
            return error

    def _checked(self, array: np.ndarray) -> Mapping[str, np.ndarray]:
        if self._checks_finite:
            check_finite(array, self._input, "raw_input_contents[0]")
        return {self._input: array}

    def _layout(self, shapes: tuple[tuple[int, ...], ...]) -> _Layout:
        """The layout for outputs of these shapes; some models have output shapes that are known only after the run."""
        layout = self._layouts.get(shapes)
        if layout is None:
            if len(self._layouts) >= _MOST_SHAPES:
                self._layouts.clear()
            layout = self._layouts[shapes] = self._laid_out(shapes)
        return layout

    def _laid_out(self, shapes: tuple[tuple[int, ...], ...]) -> _Layout:
        response = ModelInferResponse(model_name=self.model_name, model_version=self._version)
        parts = []
        for name, datatype, shape in zip(self.outputs, self._datatypes, shapes, strict=True):
            response.outputs.add(name=name, datatype=datatype.name, shape=shape)
            size = math.prod(shape) * datatype.itemsize_bytes
            parts.append((_RAW_OUTPUT_TAG + varint(size), size))
        if self._is_streamed:
            response.parameters[FINAL_RESPONSE].bool_param = True
        head = response.SerializeToString()
        if self._is_streamed:
            inner_bytes = len(head) + sum(len(prefix) + size for prefix, size in parts)
            head = _INFER_RESPONSE_TAG + varint(inner_bytes) + head
        return _Layout(head, tuple(parts))


def varint(value: int) -> bytes:
    """Encode a length as a Protocol Buffers varint."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
