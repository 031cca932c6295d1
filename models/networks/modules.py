"""The networks of ``architectures`` as torch modules, and the proof by construction that conv is a special case of fc.

A network maps x_BL, (B, 40) float32, to logits_BK, (B, 10); the softmax belongs to the loss and to the exported model.
Parameter names are part of the contract with exported models and checkpoints: ``conv1.weight`` ... ``linear.bias``, and
``hidden1.weight`` ... ``output.bias``.

Shapes: B batch, C channels, L length, K classes, I and O units in and out.
"""

from __future__ import annotations

import hashlib
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the name that all torch code uses)

from models.errors import InvalidRecipe
from models.networks.architectures import architecture
from models.networks.convolution import ConvLayer, toeplitz

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Init: TypeAlias = Literal["he", "pytorch"]

LENGTH: Final = 40
"""Samples of one input signal."""
CLASSES: Final = 10
"""Number of digits."""
LAYER: Final = ConvLayer(kernel=3, stride=2)
"""The geometry of all three convolution layers: lengths 40, 19, 9, 4."""


class ConvNet(nn.Module):
    """Three convolutions 1 -> C -> C -> C with ReLU, then a linear layer from all 4 C units to the classes."""

    def __init__(self, channels: int = 15) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        self.channels = channels
        self.conv1 = nn.Conv1d(1, channels, LAYER.kernel, stride=LAYER.stride)
        self.conv2 = nn.Conv1d(channels, channels, LAYER.kernel, stride=LAYER.stride)
        self.conv3 = nn.Conv1d(channels, channels, LAYER.kernel, stride=LAYER.stride)
        self.linear = nn.Linear(channels * conv_lengths()[-1], CLASSES)

    def forward(self, x_BL: Tensor) -> Tensor:
        """Map signals (B, 40) to logits (B, 10)."""
        h_BCL = x_BL.unsqueeze(1)
        h_BCL = F.relu(self.conv1(h_BCL))
        h_BCL = F.relu(self.conv2(h_BCL))
        h_BCL = F.relu(self.conv3(h_BCL))
        logits_BK: Tensor = self.linear(h_BCL.flatten(1))
        return logits_BK


class FullyConnected(nn.Module):
    """Linear layers of the given widths, input and output included, with ReLU between them."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(f"widths must be at least two positive numbers, input and output included, got {widths}")
        self.widths = tuple(widths)
        *hidden, output = pairwise(self.widths)
        self.hidden_names = tuple(f"hidden{i}" for i in range(1, len(hidden) + 1))
        for name, (fan_in, fan_out) in zip(self.hidden_names, hidden, strict=True):
            self.add_module(name, nn.Linear(fan_in, fan_out))
        self.output = nn.Linear(*output)

    def forward(self, x_BL: Tensor) -> Tensor:
        """Map signals (B, first width) to logits (B, last width)."""
        h_BI = x_BL
        for name in self.hidden_names:
            h_BI = F.relu(self.get_submodule(name)(h_BI))
        logits_BK: Tensor = self.output(h_BI)
        return logits_BK


def conv_lengths() -> tuple[int, ...]:
    """Length of the signal before, between and after the three convolutions: (40, 19, 9, 4)."""
    lengths = [LENGTH]
    for _ in range(3):
        lengths.append(LAYER.output_length(lengths[-1]))
    return tuple(lengths)


def build(name: str, *, seed: int, init: Init = "he") -> nn.Module:
    """The network called ``name`` with fresh weights that depend on ``seed`` and ``init`` only.

    ``he`` draws weights from N(0, 2 / fan_in) with zero biases (He et al., 2015); ``pytorch`` draws both from
    U(-1, 1) / sqrt(fan_in), the distribution of PyTorch's own default. torch's global random state is left as it was.
    InvalidRecipe for a name that is not in ``ARCHITECTURES`` and for an unknown ``init``.
    """
    spec = architecture(name)
    if init not in ("he", "pytorch"):
        raise InvalidRecipe("init", init, "must be he or pytorch")
    network: nn.Module
    with torch.random.fork_rng(devices=[]):  # the constructors of torch's layers draw weights that are overwritten here
        if spec.channels is not None:
            network = ConvNet(spec.channels)
        elif spec.widths is not None:
            network = FullyConnected(spec.widths)
        else:
            raise ValueError(f"architecture {name} has neither channels nor widths")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in network.children():
            _initialise(layer, init, generator)
    return network


def _initialise(layer: nn.Module, init: Init, generator: torch.Generator) -> None:
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    fan_in = weight[0].numel()
    if init == "he":
        weight.normal_(0.0, math.sqrt(2 / fan_in), generator=generator)
        bias.zero_()
    else:
        bound = 1 / math.sqrt(fan_in)
        weight.uniform_(-bound, bound, generator=generator)
        bias.uniform_(-bound, bound, generator=generator)


def dense_twin(conv: ConvNet) -> FullyConnected:
    """The fully connected network that is the same function as ``conv``: its kernels written as Toeplitz matrices.

    It has one unit for each hidden unit of ``conv``, so it is the architecture's ``baseline`` with particular weights:
    most of them zero and the rest shared (10,720 of 59,065 are non-zero for 15 channels, if no weight or bias of
    ``conv`` happens to be 0). The dtype is that of ``conv``.
    """
    lengths = conv_lengths()
    widths = (LENGTH, *(conv.channels * length for length in lengths[1:]), CLASSES)
    with torch.random.fork_rng(devices=[]):
        twin = FullyConnected(widths).to(conv.linear.weight.dtype)
    layers = (conv.conv1, conv.conv2, conv.conv3)
    with torch.no_grad():
        for name, layer, in_length in zip(twin.hidden_names, layers, lengths, strict=False):
            matrix, bias = toeplitz(
                layer.weight.detach().cpu().numpy(),
                layer.get_parameter("bias").detach().cpu().numpy(),
                in_length,
                stride=LAYER.stride,
            )
            dense = twin.get_submodule(name)
            dense.get_parameter("weight").copy_(torch.from_numpy(matrix))
            dense.get_parameter("bias").copy_(torch.from_numpy(bias))
        twin.output.weight.copy_(conv.linear.weight)
        twin.output.bias.copy_(conv.linear.bias)
    return twin.train(conv.training)


def parameter_count(module: nn.Module) -> int:
    """Number of trainable parameters, weights and biases."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def state_arrays(module: nn.Module) -> dict[str, NDArray[Any]]:
    """The parameters by name, as NumPy copies that later training does not touch."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in module.state_dict().items()}


def weights_sha256(module_or_state: nn.Module | Mapping[str, NDArray[Any] | Tensor]) -> str:
    """One hash for a set of weights: over names in sorted order, shapes, and little-endian float32 bytes."""
    if isinstance(module_or_state, nn.Module):
        state: Mapping[str, NDArray[Any] | Tensor] = module_or_state.state_dict()
    else:
        state = module_or_state
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        digest.update(f"{name}{list(array.shape)}".encode())
        digest.update(np.ascontiguousarray(array, "<f4").tobytes())
    return digest.hexdigest()
