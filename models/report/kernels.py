"""The learned weights: kernels of a convolutional net, and first layers as matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from models.data.dataset import SAMPLES
from models.networks.convolution import toeplitz
from models.report.chart import picture
from models.report.heatmap import image
from models.report.markup import Markup, element, join
from models.report.section import Section, figure, paragraph, side_by_side
from models.report.subject import LAYER

if TYPE_CHECKING:
    from models.networks.convolution import Array
    from models.report.subject import Pair, Subject

_KERNEL: Final = 84
_TAP: Final = 20


def section(pair: Pair) -> Section:
    """The section with the kernels, if there are any, and the first layers as matrices."""
    parts: list[Markup] = []
    if pair.own.role == "conv":
        parts += _kernels(pair.own)
    else:
        parts.append(
            paragraph(
                "A fully connected net has no kernels: each unit has a weight of its own for each of the 40 samples, "
                "and no weight is used twice. So there is its first layer to be looked at, and no kernels."
            )
        )
    parts += _first_layers(pair)
    return Section("kernels", "What is learnt", join(*parts))


def _kernels(conv: Subject) -> list[Markup]:
    first, *further = (conv.weights[f"conv{layer}.weight"] for layer in (1, 2, 3))
    channels = len(first)
    text = (
        f"All that the first layer knows: {channels} kernels of 3 numbers, the same ones at every position. Equal "
        "signs make a kernel that smooths, opposite ones a kernel that answers to a slope."
    )
    caption = (
        f"A row for each of the {channels} outputs, a column for each tap of each input: green for positive, purple "
        "for negative weights."
    )
    return [
        paragraph(text),
        figure(_bars(first[:, 0, :]), title=f"Layer 1: {channels} kernels", role="conv"),
        side_by_side(
            *(
                figure(
                    _taps(weight, layer),
                    caption,
                    title=f"Layer {layer}: {channels} × {channels} kernels",
                    role="conv",
                )
                for layer, weight in zip((2, 3), further, strict=True)
            )
        ),
    ]


def _bars(kernels_KT: Array) -> Markup:
    """Draw each kernel as three bars, as many kernels side by side as there is room for."""
    largest = float(np.abs(kernels_KT).max(initial=1e-12))
    return element("div", *(_bar(*each, largest) for each in enumerate(kernels_KT)), class_="kernels")


def _bar(channel: int, kernel_T: Array, largest: float) -> Markup:
    middle = 42
    marks = [
        element("title", f"the kernel of channel {channel}"),
        element("line", x1=4, y1=middle, x2=_KERNEL - 14, y2=middle, class_="axis"),
    ]
    for tap, value in enumerate(kernel_T):
        size = 36 * abs(float(value)) / largest
        marks.append(
            element(
                "rect",
                element("title", f"kernel {channel}, tap {tap}: {float(value):.3f}"),
                x=7 + tap * _TAP,
                y=middle - size if value > 0 else middle,
                width=_TAP - 3,
                height=size,
                class_="plus" if value > 0 else "minus",
            )
        )
    marks.append(element("text", str(channel), x=35, y=92, text_anchor="middle", class_="soft"))
    return picture(_KERNEL, 96, marks)


def _taps(weight_KCT: Array, layer: int) -> Markup:
    """Draw weights (outputs, inputs, taps) as one image, with a gap between inputs."""
    outputs, inputs, taps = weight_KCT.shape
    gapped = np.full((outputs, inputs, taps + 1), np.nan)
    gapped[:, :, :taps] = weight_KCT
    values_RC = gapped.reshape(outputs, -1)[:, :-1]
    title = element("title", f"weights of layer {layer}, {outputs} outputs by {inputs} inputs by {taps} taps")
    width, height = 440, 440 * outputs * 2.4 / values_RC.shape[1]
    return picture(width, height, [title, image(values_RC, left=0, top=0, width=width, height=height)])


def _first_layers(pair: Pair) -> list[Markup]:
    figures = []
    if pair.conv is not None:
        weight, bias = pair.conv.weights["conv1.weight"], pair.conv.weights["conv1.bias"]
        matrix, _ = toeplitz(weight, bias, SAMPLES, stride=LAYER.stride)
        caption = (
            f"{matrix.shape[0]} units × {SAMPLES} samples, made of {weight.size} numbers and {bias.size} biases: the "
            "kernel of a channel, moved by 2 samples from row to row, and zeros everywhere else."
        )
        figures.append(figure(_matrix(matrix, "conv"), caption, title="convolutional", role="conv"))
    if pair.fc is not None:
        weight, bias = pair.fc.weights["hidden1.weight"], pair.fc.weights["hidden1.bias"]
        caption = (
            f"{weight.shape[0]} units × {weight.shape[1]} samples, every one of the {weight.size:,} weights and "
            f"{bias.size} biases learnt for itself. Its rows have no order."
        )
        figures.append(figure(_matrix(weight, "fully connected"), caption, title="fully connected", role="fc"))
    text = (
        "A convolution is a special case of a fully connected layer: these are the first layers of both nets as "
        "matrices of the same size."
        if len(figures) > 1
        else "The first layer as a matrix, a row for each unit, a column for each sample."
    )
    return [element("h3", "The first layer as a matrix"), paragraph(text), side_by_side(*figures)]


def _matrix(values_RC: Array, name: str) -> Markup:
    title = element("title", f"first layer of the {name} net as a matrix, {len(values_RC)} by {values_RC.shape[1]}")
    frame = element("rect", x=0.5, y=0.5, width=439, height=419, class_="frame")
    return picture(440, 420, [title, frame, image(values_RC, left=0, top=0, width=440, height=420)])
