"""How to answer requests that differ only in the contents of their one raw input: checked once, then known by bytes.

A client asks the same question again and again with other numbers in it. The first request is parsed and checked as
every request is, and a plan is made from it; the next one with the same bytes up to its contents is neither parsed nor
checked again but for what can differ, the values. Its answer is put together from ready bytes, too. What comes out is
the same, byte for byte; whatever does not fit a plan goes the general way (`service.inference.tensors`).
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
"""Datatypes whose bytes must be looked at one by one."""
_MOST_SHAPES: Final = 64
_ALIGNMENT_BYTES: Final = 16
"""Alignment of bytes objects and arrays, hence of all other inputs. onnxruntime's reductions group their sums by
the alignment of the input, so that a view from the middle of a request would get other bits."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """A response but for the contents of its outputs: ``head``, then for each output a prefix and so many bytes."""

    head: bytes
    parts: tuple[tuple[bytes, int], ...]


class Plan:
    """One plan; a `service.runtime.batch.Form` whose contents are the bytes of the input."""

    def __init__(
        self,
        served: ServedModel,
        runner: Runner,
        asked: DecodedRequest,
        *,
        checks_finite: bool,
        is_streamed: bool,
    ) -> None:
        """For requests like the one that was decoded to ``asked``, for which `fits` holds.

        ``served`` is what the repository knows of the model: the plan is good as long as it knows just that.
        ``is_streamed``: responses are those of a stream.
        """
        # Weakly, all of it: a version that is replaced must go when its last request ends, plans or no plans.
        self.served = weakref.ref(served)
        """What the repository knew when the plan was made: of use only as long as that is what it knows."""
        self.runner = weakref.ref(runner)
        """Who runs it."""
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
        """All contents, one after the other, are the input of the batch; raises as `feeds` does."""
        if len(batch) == 1:
            return self.feeds(batch[0].contents)
        joined = b"".join([cast("bytes", waiting.contents) for waiting in batch])
        return self._checked(np.frombuffer(joined, self._dtype).reshape(self._batch_shape))

    def scatter(self, batch: Sequence[Waiting], answers: list[np.ndarray]) -> list[Answer | Exception]:
        """Responses as they travel."""
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
        """The response to one request as it travels; ``answers`` in the order of `outputs`."""
        layout = self._layout(tuple(answer.shape for answer in answers))
        parts = [layout.head]
        for (prefix, _), answer, datatype in zip(layout.parts, answers, self._datatypes, strict=True):
            parts += (prefix, to_raw(answer, datatype))
        return b"".join(parts)

    def response_or_error(self, answers: Sequence[np.ndarray]) -> bytes | Exception:
        """The response as `response` makes it, or the exception that it raises."""
        try:
            return self.response(answers)
        except Exception as error:  # noqa: BLE001 - it fails this request alone
            return error

    def _checked(self, array: np.ndarray) -> Mapping[str, np.ndarray]:
        if self._checks_finite:
            check_finite(array, self._input, "raw_input_contents[0]")
        return {self._input: array}

    def _layout(self, shapes: tuple[tuple[int, ...], ...]) -> _Layout:
        """For one request's outputs of these shapes: some models decide about them while they run."""
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
    """A length as Protocol Buffers write it."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
