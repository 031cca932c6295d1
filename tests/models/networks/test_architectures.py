from __future__ import annotations

import pytest

from models.errors import InvalidRecipe
from models.networks.architectures import ARCHITECTURES, architecture
from models.networks.convolution import ConvLayer, weight_count


@pytest.mark.parametrize(
    ("name", "parameters"), [("conv", 2_050), ("fc", 59_065), ("conv25", 4_910), ("fc-slide", 150_185)]
)
def test_parameter_counts(name, parameters):
    spec = architecture(name)

    assert spec.name == name
    assert spec.parameters == parameters
    if spec.channels is not None:
        convolutions = weight_count(1, spec.channels, 3) + 2 * weight_count(spec.channels, spec.channels, 3)
        assert convolutions + weight_count(4 * spec.channels, 10, 1) == parameters
    else:
        layers = zip(spec.widths, spec.widths[1:], strict=False)
        assert sum(weight_count(fan_in, fan_out, 1) for fan_in, fan_out in layers) == parameters


@pytest.mark.parametrize("name", ["conv", "conv25"])
def test_a_baseline_has_one_unit_for_each_hidden_unit(name):
    spec = architecture(name)
    lengths, layer = [40], ConvLayer(3, stride=2)
    for _ in range(3):
        lengths.append(layer.output_length(lengths[-1]))

    assert architecture(spec.baseline).widths == (40, *(spec.channels * length for length in lengths[1:]), 10)


def test_every_baseline_is_known_and_has_none_itself():
    for spec in ARCHITECTURES.values():
        assert (spec.kind == "conv") == (spec.baseline is not None)
        if spec.baseline is not None:
            assert architecture(spec.baseline).kind == "fully_connected"
            assert architecture(spec.baseline).baseline is None


@pytest.mark.parametrize("name", ["", "Conv", "transformer"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(InvalidRecipe, match="conv, fc, conv25, fc-slide") as caught:
        architecture(name)

    assert (caught.value.field, caught.value.value) == ("network", name)
