"""Export a torch network as one self-contained ONNX file.

The file computes the network, then a softmax, as in the lecture. ``probabilities`` is the first output, the ``logits``
it was made from the second. The input is ``x``, float32, and its first axis is free and called ``batch``.

The bytes depend on the weights, the provenance and the library versions alone, and the graph on the architecture
alone: everything that torch writes about where it was exported (stack traces, file paths, symbol names) is removed.
Parameters keep their PyTorch names, see ``weights``; ``lowering`` describes what convolution layers become.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from typing import TYPE_CHECKING, Final

import onnx
import onnxscript  # noqa: F401  (torch's exporter needs it: fail now, not after minutes of training)
import torch
from torch import Tensor, nn

from models.export.lowering import DEFAULT_LOWERING, Lowering, to_gemm
from models.networks.modules import LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

INPUT: Final = "x"
"""Name of the input, (B, 40) float32."""
OUTPUTS: Final = ("probabilities", "logits")
"""Names of the outputs in file order, both (B, 10) float32."""
BATCH_AXIS: Final = "batch"
"""Name of the free first axis of the input and of both outputs."""

_WRAPPED = "network"  # the attribute of _WithSoftmax below, and so the prefix of every exported name
_EXAMPLE_BATCH = 2  # the exporter treats 0 and 1 as constants


class _WithSoftmax(nn.Module):
    """The network as it is served: both outputs, in the order of ``OUTPUTS``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BL: Tensor) -> tuple[Tensor, Tensor]:
        logits_BK = self.network(x_BL)
        return torch.softmax(logits_BK, dim=-1), logits_BK


def export(network: nn.Module, *, provenance: Mapping[str, str], lowering: Lowering = DEFAULT_LOWERING) -> bytes:
    """Export a network as the bytes of one ONNX file.

    ``network`` maps (B, 40) float32 to logits (B, 10); it is not changed. ``provenance`` goes into the file's
    ``metadata_props``, sorted by key. ``lowering`` says what convolution layers become, and does not affect other
    networks. The result passes onnx's full check. Takes 1 to 4 s, mostly in torch's exporter.
    """
    with _quiet_exporter():
        program = torch.onnx.export(
            _WithSoftmax(_with_placeholder_weights(network)).eval(),
            (torch.zeros(_EXAMPLE_BATCH, LENGTH),),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim(BATCH_AXIS)},),
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program; dynamo=True promises one")
    model = program.model_proto
    _keep_parameter_names(model.graph)
    _write_weights(model.graph, network)
    _strip(model)
    if lowering == "gemm":
        to_gemm(model)
    onnx.helper.set_model_props(model, {key: provenance[key] for key in sorted(provenance)})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _with_placeholder_weights(network: nn.Module) -> nn.Module:
    """A copy of the network with weights that are all different and none of them zero.

    The exporter drops a bias that is zero and merges weights that are equal, which would make the graph depend on the
    values. With placeholders it depends on the architecture alone, and every parameter keeps a separate tensor.
    """
    placeholder = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in placeholder.state_dict().values():
            tensor.uniform_(0.5, 1.0, generator=generator)
    return placeholder


def _write_weights(graph: onnx.GraphProto, network: nn.Module) -> None:
    """Replace the placeholders in the graph by the network's weights."""
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    for name, weight in network.state_dict().items():
        tensor = initializers.get(name)
        if tensor is None or tuple(tensor.dims) != tuple(weight.shape):
            raise RuntimeError(f"the exporter has no tensor {name} of shape {list(weight.shape)}")
        tensor.CopyFrom(onnx.numpy_helper.from_array(weight.detach().cpu().numpy(), name))


def _keep_parameter_names(graph: onnx.GraphProto) -> None:
    """Remove the wrapper's prefix from every name: ``network.conv1.weight`` -> ``conv1.weight``."""
    prefix = f"{_WRAPPED}."
    for tensor in graph.initializer:
        tensor.name = tensor.name.removeprefix(prefix)
    for node in graph.node:
        node.input[:] = [name.removeprefix(prefix) for name in node.input]
    # Initializers have their own shape: the entries that repeat it would have to be renamed as well.
    weights = {tensor.name for tensor in graph.initializer}
    inner = [info for info in graph.value_info if info.name.removeprefix(prefix) not in weights]
    del graph.value_info[:]
    graph.value_info.extend(inner)


def _strip(model: onnx.ModelProto) -> None:
    """Remove documentation strings and metadata at every level: half the file, and full of paths."""
    graph = model.graph
    described: Iterable[onnx.ModelProto | onnx.GraphProto | onnx.NodeProto | onnx.ValueInfoProto | onnx.TensorProto] = (
        model,
        graph,
        *graph.node,
        *graph.value_info,
        *graph.input,
        *graph.output,
        *graph.initializer,
    )
    for element in described:
        element.ClearField("doc_string")
        element.ClearField("metadata_props")


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Suppress two messages of torch's exporter; all others still appear.

    They are a warning of a deprecated class that torch itself uses, and a log entry that torchvision is not installed.
    """
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addFilter(_no_torchvision)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*LeafSpec.* is deprecated", category=FutureWarning)
            yield
    finally:
        logger.removeFilter(_no_torchvision)


def _no_torchvision(record: logging.LogRecord) -> bool:
    return "torchvision is not installed" not in record.getMessage()
