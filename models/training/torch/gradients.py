"""Forward and backward pass by hand: the loss of a batch and its gradient, without autograd.

These nets are so small that autograd's bookkeeping and the general convolution kernels cost more than the arithmetic.
Here a convolution is one matrix product over overlapping windows, every weight lives in one flat vector and every
gradient in another, so that an optimiser is a handful of operations on one array. The numbers are those of autograd up
to rounding; the tests compare them for every architecture.

Signals are kept channel-last, so that the window of an output position is one contiguous stretch of memory, and a batch
of windows is a view. Weights are kept in the layout that the products need, and transposed on the way in and out.

Shapes: B batch, L length, C channels in, K channels out (K classes at the end), T taps, I and O units in and out; N
rows, one for each output position of each example.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from models.networks.modules import CLASSES, LAYER, ConvNet, FullyConnected, conv_lengths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn


class Gradients(Protocol):
    """A network as two flat vectors, weights and gradient, and the function that computes the gradient of a batch."""

    weights: Tensor
    """All weights, (P,)."""
    gradient: Tensor
    """Gradient of the mean loss over the last batch, (P,)."""

    def step(self, x_BL: Tensor, onehot_BK: Tensor) -> Tensor:
        """Log-probabilities (B, K) of a batch; overwrites ``gradient``. ``onehot_BK`` holds the true classes."""
        ...

    def store(self, weights: Tensor, network: nn.Module) -> None:
        """Write a flat vector, ``weights`` or an average of several, into the parameters of ``network``."""
        ...


def gradients_of(network: nn.Module) -> Gradients:
    """The hand-written passes for ``network``, starting at a copy of its weights. TypeError for other modules."""
    if isinstance(network, ConvNet):
        return ConvGradients(network)
    if isinstance(network, FullyConnected):
        return FullyConnectedGradients(network)
    raise TypeError(f"no hand-written gradient for {type(network).__name__}; use ConvNet or FullyConnected")


@dataclass(frozen=True)
class _Entry:
    """One parameter: its place in the flat vector, and how its layout is converted."""

    name: str
    start: int
    shape: torch.Size
    """Shape in the flat vector."""
    turn: Callable[[Tensor], Tensor]
    """Converts the module's layout to that of the flat vector; ``turn_back`` is the inverse."""
    turn_back: Callable[[Tensor], Tensor]


class _Flat:
    """The two flat vectors and named views into them."""

    def __init__(
        self,
        network: nn.Module,
        turns: Mapping[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]],
    ) -> None:
        self._entries: list[_Entry] = []
        turned = []
        start = 0
        for name, parameter in network.named_parameters():
            turn, turn_back = turns.get(name, (_same, _same))
            value = turn(parameter.detach()).contiguous()
            self._entries.append(_Entry(name, start, value.shape, turn, turn_back))
            turned.append(value.flatten())
            start += value.numel()
        self.weights = torch.cat(turned)
        self.gradient = torch.zeros_like(self.weights)
        self._w = self._views(self.weights)
        self._g = self._views(self.gradient)

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        return {
            entry.name: flat[entry.start : entry.start + entry.shape.numel()].view(entry.shape)
            for entry in self._entries
        }

    def store(self, weights: Tensor, network: nn.Module) -> None:
        """Write a flat vector into the parameters of ``network``."""
        views = self._views(weights)
        with torch.no_grad():
            for entry in self._entries:
                network.get_parameter(entry.name).copy_(entry.turn_back(views[entry.name]))


class FullyConnectedGradients(_Flat):
    """The passes of a fully connected net: h = relu(W h + beta) layer by layer, and the chain rule backwards."""

    def __init__(self, network: FullyConnected) -> None:
        super().__init__(network, {})
        self._layers = (*network.hidden_names, "output")

    def step(self, x_BL: Tensor, onehot_BK: Tensor) -> Tensor:
        """Log-probabilities and gradient of one batch, as ``Gradients.step`` describes."""
        w, g = self._w, self._g
        inputs: list[Tensor] = []
        h_BI = x_BL
        for name in self._layers:
            if inputs:
                h_BI.relu_()
            inputs.append(h_BI)
            h_BI = torch.addmm(w[f"{name}.bias"], h_BI, w[f"{name}.weight"].t())
        log_p_BK = torch.log_softmax(h_BI, 1)

        d_BO = _logit_gradient(log_p_BK, onehot_BK)
        for name, h_in_BI in zip(reversed(self._layers), reversed(inputs), strict=True):
            torch.mm(d_BO.t(), h_in_BI, out=g[f"{name}.weight"])
            torch.sum(d_BO, 0, out=g[f"{name}.bias"])
            if h_in_BI is not x_BL:
                d_BO = _through_relu(torch.mm(d_BO, w[f"{name}.weight"]), h_in_BI)
        return log_p_BK


class ConvGradients(_Flat):
    """The passes of a convolutional net: three strided convolutions as products over windows, then a linear layer."""

    def __init__(self, network: ConvNet) -> None:
        channels = network.channels
        turns: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]]
        turns = {f"conv{i}.weight": (_windows_first, _windows_last) for i in (1, 2, 3)}
        # The module flattens channel by channel, the passes here position by position.
        turns["linear.weight"] = (
            lambda w: w.view(CLASSES, channels, -1).permute(2, 1, 0).reshape(-1, CLASSES),
            lambda w: w.view(-1, channels, CLASSES).permute(2, 1, 0).reshape(CLASSES, -1),
        )
        super().__init__(network, turns)
        self._channels = channels
        self._matrices = {i: (self._matrix(self._w, i), self._matrix(self._g, i)) for i in (1, 2, 3)}

    def _matrix(self, views: Mapping[str, Tensor], layer: int) -> Tensor:
        return views[f"conv{layer}.weight"].flatten(0, 1)

    def step(self, x_BL: Tensor, onehot_BK: Tensor) -> Tensor:
        """Log-probabilities and gradient of one batch, as ``Gradients.step`` describes."""
        w, g, batch = self._w, self._g, len(x_BL)
        lengths = conv_lengths()

        windows, outputs = {}, {}
        h = x_BL
        for i in (1, 2, 3):
            windows[i] = _windows(h, batch, lengths[i - 1], lengths[i])
            h = torch.addmm(w[f"conv{i}.bias"], windows[i], self._matrices[i][0]).relu_()
            outputs[i] = h
        features_BI = h.view(batch, -1)
        log_p_BK = torch.log_softmax(torch.addmm(w["linear.bias"], features_BI, w["linear.weight"]), 1)

        d_BK = _logit_gradient(log_p_BK, onehot_BK)
        torch.mm(features_BI.t(), d_BK, out=g["linear.weight"])
        torch.sum(d_BK, 0, out=g["linear.bias"])
        d_NK = torch.mm(d_BK, w["linear.weight"].t()).view(-1, self._channels)
        for i in (3, 2, 1):
            d_NK = _through_relu(d_NK, outputs[i])
            matrix, matrix_gradient = self._matrices[i]
            torch.mm(windows[i].t(), d_NK, out=matrix_gradient)
            torch.sum(d_NK, 0, out=g[f"conv{i}.bias"])
            if i > 1:
                d_NK = _merge_windows(torch.mm(d_NK, matrix.t()), batch, lengths[i - 1], lengths[i])
        return log_p_BK


def _same(weight: Tensor) -> Tensor:
    return weight


def _windows_first(weight_KCT: Tensor) -> Tensor:
    return weight_KCT.permute(2, 1, 0)


def _windows_last(weight_TCK: Tensor) -> Tensor:
    return weight_TCK.permute(2, 1, 0)


def _logit_gradient(log_p_BK: Tensor, onehot_BK: Tensor) -> Tensor:
    """Gradient of the mean cross-entropy: (softmax - one hot) / B."""
    return log_p_BK.exp().sub_(onehot_BK).mul_(1 / len(log_p_BK))


def _through_relu(d: Tensor, h: Tensor) -> Tensor:
    """The gradient through ReLU: ``d`` where the unit was positive, 0 elsewhere."""
    masked: Tensor = torch.ops.aten.threshold_backward(d, h, 0)
    return masked


def _windows(h: Tensor, batch: int, length: int, out_length: int) -> Tensor:
    """All windows of channel-last signals as rows, (N, T*C): position i of an example reads samples 2i to 2i + 2."""
    channels = h.numel() // (batch * length)
    strides = (length * channels, LAYER.stride * channels, 1)
    return h.as_strided((batch, out_length, LAYER.kernel * channels), strides, h.storage_offset()).reshape(
        batch * out_length, -1
    )


def _merge_windows(d_windows: Tensor, batch: int, length: int, out_length: int) -> Tensor:
    """The reverse of ``_windows``: every sample's gradient is the sum over the windows that read it, (B*L, C).

    With kernel 3 and stride 2 the first two taps of all windows tile the signal without overlap; the third falls on the
    first tap of the next window.
    """
    channels = d_windows.shape[1] // LAYER.kernel
    d_BMW = d_windows.view(batch, out_length, -1)
    d_BLC = d_windows.new_zeros(batch, length, channels)
    tiles = d_BLC[:, : LAYER.stride * out_length].view(batch, out_length, LAYER.stride * channels)
    tiles.copy_(d_BMW[:, :, : LAYER.stride * channels])
    d_BLC[:, LAYER.stride :: LAYER.stride][:, :out_length].add_(d_BMW[:, :, LAYER.stride * channels :])
    return d_BLC.view(batch * length, channels)
