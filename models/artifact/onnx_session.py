"""Open a model as an onnxruntime session, with the same options wherever this project runs a model.

The proof and the server must run a model with the same options, otherwise the proof says nothing about the server. A
model is passed as bytes that were read once. Weights in other files are refused: onnxruntime would map them, and a
mapped file that shrinks kills the process with SIGBUS.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import ml_dtypes
import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto
from onnx.external_data_helper import uses_external_data

from models.artifact.datatypes import BY_ORT, DATATYPES
from models.artifact.graph_values import time_follows_from_shapes
from models.artifact.tensor_spec import TensorSpec
from models.errors import ArtifactError

# Since 1.32 onnxruntime has telemetry: it keeps a database in the home directory, sends it from a thread, and writes to
# standard error if it cannot. The variable is read on import; 0 leaves telemetry on.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

MAX_MODEL_BYTES = 2**31 - 1
"""Protobuf's own limit for one message."""

_BF16 = DATATYPES["BF16"]
RunOptions: TypeAlias = ort.RunOptions
"""Passed to a run so that another thread can end it by setting ``terminate``. onnxruntime checks it between two nodes,
so a single node always runs to completion."""
_UNENDED = RunOptions()
"""Options of runs that are never ended, shared because making one takes a microsecond; they must not be changed."""


@dataclass(frozen=True)
class Model:
    """An open session with the interface it declares."""

    session: ort.InferenceSession
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]
    """The model's ``metadata_props``."""
    time_follows_from_shapes: bool = True
    """Whether the shapes of the inputs bound the time of a run (`models.artifact.graph_values`)."""
    run_options: RunOptions = _UNENDED
    """Default options of `run`."""

    def run(
        self, outputs: Sequence[str], feeds: Mapping[str, np.ndarray], options: RunOptions | None = None
    ) -> list[np.ndarray]:
        """Run the model once.

        ``outputs`` names the outputs to return, in order; ``feeds`` maps every input to an array of its spec's dtype;
        ``options`` replace `run_options` for this run.
        Raises ValueError if an input is missing, and onnxruntime's exceptions for inputs that do not fit and for a run
        that was ended through its options.
        """
        chosen = self.run_options if options is None else options
        if not feeds.keys() >= self._input_names:  # the private session below does not check it
            missing = sorted(self._input_names - feeds.keys())
            raise ValueError(f"inputs missing: {', '.join(missing)}; got {', '.join(sorted(feeds)) or 'none'}")
        if self._has_bf16:
            return self._run_with_bf16(outputs, feeds, chosen)
        return self._run(outputs, feeds if isinstance(feeds, dict) else dict(feeds), chosen)

    @cached_property
    def _run(self) -> Callable[[Sequence[str], dict[str, np.ndarray], RunOptions], list[np.ndarray]]:
        # InferenceSession.run validates its arguments in Python on each call, which takes a tenth of the time of one
        # example through a small model (benchmarks/session_options.py). The session that it wraps is private, so
        # another release may not have it.
        inner = getattr(self.session, "_sess", None)
        run: Callable[..., list[np.ndarray]] = (self.session if inner is None else inner).run
        return run

    @cached_property
    def _input_names(self) -> frozenset[str]:
        return frozenset(spec.name for spec in self.inputs)

    @cached_property
    def _has_bf16(self) -> bool:
        return any(spec.datatype == "BF16" for spec in (*self.inputs, *self.outputs))

    def _run_with_bf16(
        self, outputs: Sequence[str], feeds: Mapping[str, np.ndarray], options: RunOptions
    ) -> list[np.ndarray]:
        # onnxruntime's NumPy bridge has no bfloat16: such tensors pass as OrtValues over the same 16 bits.
        values = {name: _to_ort_value(array) for name, array in feeds.items()}
        return [_to_numpy(value) for value in self.session.run_with_ort_values(list(outputs), values, options)]


def _to_ort_value(array: np.ndarray) -> ort.OrtValue:
    contiguous = np.asarray(array, order="C")  # np.ascontiguousarray would give a scalar an axis
    if array.dtype != _BF16.numpy:
        return ort.OrtValue.ortvalue_from_numpy(contiguous)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(contiguous.view(np.uint16), TensorProto.BFLOAT16)


def _to_numpy(value: ort.OrtValue) -> np.ndarray:
    if value.data_type() != _BF16.ort:
        return np.asarray(value.numpy())
    shape = value.shape()
    data = ctypes.string_at(value.data_ptr(), 2 * int(np.prod(shape))) if 0 not in shape else b""
    return np.frombuffer(data, dtype=ml_dtypes.bfloat16).reshape(shape)


def open_model(model_bytes: bytes) -> Model:
    """Open a one-file ONNX model.

    Raises:
        ArtifactError: the bytes are no ONNX model, refer to external data, need a custom operator, have an input of
            unknown rank, or have an input or output that is no tensor of a served datatype.
    """
    try:
        return _open(model_bytes)
    except UnicodeDecodeError as error:  # names are decoded when they are read, up to the metadata below
        raise ArtifactError(f"a name in the model is not UTF-8: {error.object!r}") from error


def _open(model_bytes: bytes) -> Model:
    proto = _parse(model_bytes)
    _refuse_external_data(proto)
    _refuse_unknown_rank(proto)
    try:
        # enable_fallback=0: on an error the wrapper would print to stdout and build the session a second time.
        session = ort.InferenceSession(model_bytes, _options(), providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions have no common base below Exception
        raise ArtifactError(f"onnxruntime cannot load the model: {_one_line(error)}") from error
    inputs = tuple(_spec(arg, "input") for arg in session.get_inputs())
    outputs = tuple(_spec(arg, "output") for arg in session.get_outputs())
    _refuse_text_beside_bf16(inputs, outputs)
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    return Model(session, inputs, outputs, metadata, time_follows_from_shapes=time_follows_from_shapes(proto))


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    # These models run in microseconds: a second thread costs more than it gains, and one thread keeps the order of
    # every sum, hence every bit of the answer, the same.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # The arena of each model would keep the memory of the largest batch until the model is unloaded.
    options.enable_cpu_mem_arena = False
    # Otherwise a producer name "ORTM..." at the right offset makes onnxruntime read the file as its own format, which
    # this module has not checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.log_severity_level = 4  # errors reach the caller as exceptions; onnxruntime need not print them too
    return options


def _spec(arg: ort.NodeArg, role: str) -> TensorSpec:
    datatype = BY_ORT.get(arg.type)
    if datatype is None:
        hint = "; convert from scikit-learn with options={'zipmap': False}" if "map(" in arg.type else ""
        raise ArtifactError(
            f"{role} {arg.name!r} has the type {arg.type}; served are tensors of {', '.join(DATATYPES)}{hint}"
        )
    # An unnamed free axis comes as None, an unknown rank as an empty shape.
    return TensorSpec(arg.name, datatype.name, tuple("" if axis is None else axis for axis in arg.shape))


def _parse(model_bytes: bytes) -> onnx.ModelProto:
    if len(model_bytes) > MAX_MODEL_BYTES:
        raise ArtifactError(f"the model has {len(model_bytes)} bytes, at most {MAX_MODEL_BYTES} can be loaded")
    try:
        model = onnx.ModelProto.FromString(model_bytes)
    except DecodeError as error:
        raise ArtifactError("the file is not an ONNX model: its protobuf cannot be parsed") from error
    if not model.HasField("graph"):
        raise ArtifactError("the file is not an ONNX model: it has no graph")
    return model


def _refuse_unknown_rank(model: onnx.ModelProto) -> None:
    # onnxruntime reports an unknown rank as [], like that of a scalar, so the server could not check the shape.
    # An input with an initializer is a constant with a default, which no caller sends.
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name in constants:
            continue
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            raise ArtifactError(f"input {value.name!r} has no shape; declare its axes (free axes may be symbolic)")


def _refuse_text_beside_bf16(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
    # BF16 tensors pass only as OrtValues, and onnxruntime's Python API cannot make an OrtValue of strings.
    text = next((spec.name for spec in inputs if spec.datatype == "BYTES"), None)
    bf16 = next((spec.name for spec in (*inputs, *outputs) if spec.datatype == "BF16"), None)
    if text is not None and bf16 is not None:
        raise ArtifactError(
            f"input {text!r} is BYTES and {bf16!r} is BF16: onnxruntime's Python API cannot run a model with both"
        )


def _refuse_external_data(model: onnx.ModelProto) -> None:
    for tensor in _tensors(model):
        if uses_external_data(tensor):
            raise ArtifactError(
                f"tensor {tensor.name!r} lies in another file (external data); export the model as one file"
            )


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield sparse.values
                yield sparse.indices
            nodes.extend(graph.node)
            continue
        for attribute in nodes.pop().attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                yield attribute.sparse_tensor.values
                yield attribute.sparse_tensor.indices
            for sparse in attribute.sparse_tensors:
                yield sparse.values
                yield sparse.indices
            if attribute.HasField("g"):
                graphs.append(attribute.g)
            graphs.extend(attribute.graphs)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
