from __future__ import annotations

import copy
import dataclasses

import pytest

from models.report.proof import section
from tests.models.report.subjects import PARITY, pair


def with_parity(parity):
    alone = pair("conv", None)
    own = dataclasses.replace(alone.own, manifest=dataclasses.replace(alone.own.manifest, parity=parity))
    return section(dataclasses.replace(alone, own=own)).body


def test_every_check_is_told():
    body = with_parity(PARITY)
    assert "Proven: all 2 checks passed on 1000 examples" in body
    for told in ("values: PyTorch", "valid ONNX", "Values, in batches of 1, 2", "5e-05", "0.0001 + 1e-06|v|", "✓"):
        assert told in body


def test_what_failed_is_told():
    report = copy.deepcopy(PARITY)
    report["passed"] = False
    report["checks"][1]["comparisons"][0] |= {"argmax_mismatches": 3, "max_absolute": None, "passed": False}
    body = with_parity(report)
    for told in ("Refuted: ", "3 differ", "✗ failed"):
        assert told in body


@pytest.mark.parametrize(
    ("parity", "told"),
    [({}, "keeps no proof"), ({"checks": [1]}, "in a form unknown here"), ({"checks": {"a": 1}}, "in a form unknown")],
)
def test_a_manifest_may_say_anything(parity, told):
    assert told in with_parity(parity)
