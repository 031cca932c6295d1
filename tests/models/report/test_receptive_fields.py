"""The fields that are drawn are those that the networks have: whatever lies outside changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from models.data.dataset import canonical
from models.report.receptive_fields import field_of, section, units
from tests.models.report.subjects import pair, subject


def test_units_and_widths():
    assert [units(layer) for layer in (1, 2, 3)] == [19, 9, 4]
    assert [field_of(layer, 0).width for layer in (1, 2, 3)] == [3, 7, 15]
    assert (field_of(3, 3).first, field_of(3, 3).last) == (24, 38)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_unit_answers_to_the_samples_of_its_field_and_to_no_other(layer):
    conv, x_L = subject("conv"), canonical().test.x_BL[0]
    changed_LL = np.tile(x_L, (41, 1))
    changed_LL[np.arange(40), np.arange(40)] += 5  # row i has sample i changed, the last row none
    maps = conv.hidden(changed_LL)[layer - 1]
    for unit in range(units(layer)):
        field = field_of(layer, unit)
        answers = np.abs(maps[:40, :, unit] - maps[40, :, unit]).max(axis=1) > 1e-4
        assert answers[: field.first].sum() == answers[field.last + 1 :].sum() == 0
        assert answers[field.first : field.last + 1].any()


def test_the_sample_that_nobody_sees_is_told():
    assert "Sample 39, the last, is seen by none of them" in section(pair()).body
