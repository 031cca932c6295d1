"""Decode requests to arrays and encode arrays to responses, with every check that a request must pass.

Raw in, raw out; typed in, typed out. tritonclient always sends raw and reads only raw; clients that send typed
contents read typed ones. The one exception: FP16 and BF16 have no typed form, so a response with such an output is
raw as a whole (the protocol knows no mixture).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from service.errors import InvalidRequest
from service.inference import parameters
from service.inference.classification import check_classifiable, classify
from service.pb.open_inference_pb2 import ModelInferResponse
from service.wire.datatypes import DATATYPES, Datatype
from service.wire.raw_contents import from_raw, to_raw
from service.wire.typed_contents import FIELDS, add_typed, from_typed, is_filled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.artifact.tensor_spec import TensorSpec
    from service.pb.open_inference_pb2 import ModelInferRequest


@dataclass(frozen=True, slots=True)
class DecodedRequest:
    """The arrays of a request, and the outputs that it asks for."""

    feeds: dict[str, np.ndarray]
    outputs: tuple[TensorSpec, ...]
    """Wanted outputs, in the order of the response."""
    is_raw: bool
    classes: Mapping[str, int]
    """The number of classes, for each output that is wanted as classes."""


def decode(
    request: ModelInferRequest,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
    *,
    allow_non_finite: bool,
) -> DecodedRequest:
    """Check a request against the model's declaration and view its contents as arrays.

    ``inputs`` and ``outputs`` are the model's, by name and in its order.

    Raises:
        InvalidRequest: names the tensor, the expected value and the actual one.
        Unsupported: a parameter would change the answer and is not supported here.
    """
    parameters.check(request.parameters, "request")
    _check_names(request, inputs)
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequest(
            f"raw_input_contents: expected {len(request.inputs)} entries, one an input, got {len(raw)}",
            field="raw_input_contents",
        )
    feeds: dict[str, np.ndarray] = {}
    axes: dict[str, tuple[int, str]] = {}
    for index, tensor in enumerate(request.inputs):
        spec = inputs[tensor.name]
        parameters.check(tensor.parameters, f"input {tensor.name!r}", f"inputs[{index}].")
        datatype = _check_datatype(tensor.datatype, spec, index)
        shape = _check_shape(tuple(tensor.shape), spec, axes, index)
        typed = tensor.HasField("contents") and is_filled(tensor.contents)
        if raw and typed:
            raise InvalidRequest(
                f"input {tensor.name!r}: got both raw and typed contents, expected one of them",
                field=f"inputs[{index}].contents",
            )
        if not raw and not typed and 0 not in shape:
            raise InvalidRequest(
                f"input {tensor.name!r}: expected {datatype.name}{list(shape)} in raw_input_contents or contents, got "
                "neither",
                field=f"inputs[{index}].contents",
            )
        try:
            array = from_raw(raw[index], datatype, shape) if raw else from_typed(tensor.contents, datatype, shape)
        except ValueError as error:
            raise InvalidRequest(f"input {tensor.name!r}: {error}", field=_contents(index, raw=bool(raw))) from error
        if datatype.is_float and not allow_non_finite:
            check_finite(array, tensor.name, _contents(index, raw=bool(raw)))
        feeds[tensor.name] = array
    wanted, classes = _wanted(request, outputs)
    return DecodedRequest(feeds, wanted, bool(raw) or not request.inputs, classes)


def encode(
    request: ModelInferRequest,
    version: str,
    asked: DecodedRequest,
    arrays: Sequence[np.ndarray],
    labels: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> ModelInferResponse:
    """The response to ``request`` by version ``version``; ``arrays`` in the order of ``asked.outputs``.

    ``labels`` are the class labels of each output that has some; they name the classes of outputs wanted as classes.
    """
    response = ModelInferResponse(model_name=request.model_name, model_version=version, id=request.id)
    raw = asked.is_raw or any(spec.datatype not in FIELDS for spec in asked.outputs if spec.name not in asked.classes)
    for spec, array in zip(asked.outputs, arrays, strict=True):
        name, datatype = spec.name, DATATYPES[spec.datatype]
        if name in asked.classes:
            has_batch_axis = spec.batch_axis is not None
            array = classify(array, asked.classes[name], labels.get(name, ()), has_batch_axis=has_batch_axis)
            datatype = DATATYPES["BYTES"]
        tensor = response.outputs.add(name=name, datatype=datatype.name, shape=array.shape)
        if raw:
            response.raw_output_contents.append(to_raw(array, datatype))
        else:
            add_typed(tensor.contents, array, datatype)
    return response


def _check_names(request: ModelInferRequest, inputs: Mapping[str, TensorSpec]) -> None:
    seen: set[str] = set()
    for index, tensor in enumerate(request.inputs):
        if tensor.name not in inputs:
            raise InvalidRequest(
                f"input {tensor.name!r} is unknown; the model takes {_names(inputs)}", field=f"inputs[{index}].name"
            )
        if tensor.name in seen:
            raise InvalidRequest(f"input {tensor.name!r} is given twice", field=f"inputs[{index}].name")
        seen.add(tensor.name)
    missing = [spec for name, spec in inputs.items() if name not in seen]
    if missing:
        raise InvalidRequest(
            f"input {missing[0].name!r} is missing; the model takes {', '.join(str(spec) for spec in inputs.values())}",
            field="inputs",
        )


def _check_datatype(datatype: str, spec: TensorSpec, index: int) -> Datatype:
    if datatype != spec.datatype:
        raise InvalidRequest(
            f"input {spec.name!r}: expected datatype {spec.datatype}, got {datatype or 'none'}",
            field=f"inputs[{index}].datatype",
        )
    return DATATYPES[datatype]


def _check_shape(
    shape: tuple[int, ...], spec: TensorSpec, axes: dict[str, tuple[int, str]], index: int
) -> tuple[int, ...]:
    """Check one shape; ``axes`` remembers the length of each named axis, and the input it was seen in."""

    def wrong(why: str) -> InvalidRequest:
        expected = f"input {spec.name!r}: expected shape {list(spec.wire_shape)}, got {list(shape)}"
        return InvalidRequest(f"{expected}: {why}", field=f"inputs[{index}].shape")

    if len(shape) != len(spec.shape):
        raise wrong(f"rank {len(spec.shape)} expected, rank {len(shape)} given")
    for position, (length, declared) in enumerate(zip(shape, spec.shape, strict=True)):
        if isinstance(declared, int):
            if length != declared:
                raise wrong(f"axis {position} must be {declared}")
            continue
        if length < 0 or (position == 0 and length == 0):
            raise wrong("the batch axis must be at least 1" if position == 0 else f"axis {position} must be at least 0")
        if not declared:
            continue
        bound, where = axes.setdefault(declared, (length, spec.name))
        if bound != length:
            raise wrong(f"axis {position} ({declared!r}) is {length} here and {bound} in input {where!r}")
    return shape


def check_finite(array: np.ndarray, name: str, field: str) -> None:
    """Raise InvalidRequest for the first NaN or infinite value of an input; ``field`` is where its contents are."""
    finite = np.isfinite(array)
    if finite.all():
        return
    index = tuple(int(i) for i in np.argwhere(~np.atleast_1d(finite))[0])
    raise InvalidRequest(
        f"input {name!r}: expected finite values, got {np.atleast_1d(array)[index]} at {list(index)} "
        "(--allow-non-finite accepts NaN and Inf)",
        field=field,
    )


def _wanted(
    request: ModelInferRequest, outputs: Mapping[str, TensorSpec]
) -> tuple[tuple[TensorSpec, ...], dict[str, int]]:
    """The wanted outputs in order, and the number of classes for those wanted as classes."""
    if not request.outputs:
        return tuple(outputs.values()), {}
    wanted: dict[str, TensorSpec] = {}
    classes: dict[str, int] = {}
    for index, output in enumerate(request.outputs):
        if output.name not in outputs:
            raise InvalidRequest(
                f"requested output {output.name!r} is unknown; the model has {_names(outputs)}",
                field=f"outputs[{index}].name",
            )
        if output.name in wanted:
            raise InvalidRequest(f"requested output {output.name!r} is given twice", field=f"outputs[{index}].name")
        owner = f"outputs[{index}]."
        parameters.check(output.parameters, f"requested output {output.name!r}", owner)
        count = parameters.integer(
            output.parameters, parameters.CLASSIFICATION, 0, low=1, high=parameters.MAX_CLASSES, owner=owner
        )
        if count:  # absent otherwise: as a parameter it is at least 1
            check_classifiable(outputs[output.name])
            classes[output.name] = count
        wanted[output.name] = outputs[output.name]
    return tuple(wanted.values()), classes


def _contents(index: int, *, raw: bool) -> str:
    return f"raw_input_contents[{index}]" if raw else f"inputs[{index}].contents"


def _names(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(repr(name) for name in specs)
