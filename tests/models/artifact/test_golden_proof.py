"""Any ONNX file against goldens, without torch: models of several inputs and dtypes, and everything that can be off."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from onnx import TensorProto, helper

from models.artifact.golden_proof import prove_against_goldens
from models.artifact.goldens import Golden, Tolerance
from models.errors import ArtifactError

NAMES = ["file", "names", "dtypes", "shapes", "values", "bit identity"]
CLOSE = Tolerance(absolute=1e-6)


def serialised(nodes, inputs, outputs) -> bytes:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*entry) for entry in inputs],
        [helper.make_tensor_value_info(*entry) for entry in outputs],
    )
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def mixed(axis="n") -> bytes:
    """total = a + float(b), same = text."""
    return serialised(
        [
            helper.make_node("Cast", ["b"], ["b_float"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["a", "b_float"], ["total"]),
            helper.make_node("Identity", ["text"], ["same"]),
        ],
        [
            ("a", TensorProto.FLOAT, [axis, 2]),
            ("b", TensorProto.INT64, [axis, 2]),
            ("text", TensorProto.STRING, [axis]),
        ],
        [("total", TensorProto.FLOAT, [axis, 2]), ("same", TensorProto.STRING, [axis])],
    )


def golden(batch: int = 3) -> Golden:
    a = np.arange(2 * batch, dtype=np.float32).reshape(batch, 2) / 4
    b = np.arange(2 * batch).reshape(batch, 2)
    text = np.array([f"é{i}" for i in range(batch)], np.object_)
    return Golden("test_data_set_0", {"a": a, "b": b, "text": text}, {"total": a + b.astype(np.float32), "same": text})


def failed(report) -> list[str]:
    json.dumps(report.to_dict(), allow_nan=False)
    return [check.name for check in report.failed]


def with_outputs(**outputs) -> Golden:
    honest = golden()
    return dataclasses.replace(honest, outputs={**honest.outputs, **outputs})


def with_inputs(**inputs) -> Golden:
    honest = golden()
    return dataclasses.replace(honest, inputs={**honest.inputs, **inputs})


def test_a_model_of_several_inputs_and_dtypes_is_proven():
    report = prove_against_goldens(mixed(), [golden(), golden(1)], {}, default=CLOSE)
    assert report.passed, report.summary
    assert [check.name for check in report.checks] == NAMES
    assert (report.examples, report.batch_sizes) == (4, (1, 3))
    assert report.tolerances == {"total": CLOSE, "same": Tolerance()}


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        (with_outputs(total=golden().outputs["total"] + np.float32(1e-3)), ["values"]),
        (with_outputs(same=np.array(["é0", "é1", "e2"], np.object_)), ["values"]),
        (with_outputs(total=golden().outputs["total"].astype(np.float64)), ["dtypes", "values"]),
        (with_outputs(total=golden().outputs["total"][:2]), ["shapes", "values"]),
        (with_outputs(other=np.zeros(1, np.float32)), ["names", "values"]),
        (with_outputs(total=np.full((3, 2), np.nan, np.float32)), ["values"]),
        (with_inputs(b=golden().inputs["b"].astype(np.int32)), ["dtypes", "values", "bit identity"]),
        (with_inputs(a=np.zeros((3, 5), np.float32)), ["shapes", "values", "bit identity"]),
        (with_inputs(extra=np.zeros(3, np.float32)), ["names", "values", "bit identity"]),
    ],
    ids=[
        "value",
        "string",
        "output dtype",
        "output shape",
        "unknown output",
        "NaN recorded",
        "input dtype",
        "input shape",
        "unknown input",
    ],
)
def test_what_is_wrong_fails_at_the_check_named_after_it(recorded, expected):
    report = prove_against_goldens(mixed(), [recorded], {}, default=CLOSE)
    assert failed(report) == expected


def test_a_golden_may_leave_outputs_out_that_another_records():
    honest = golden()
    total, same = (dataclasses.replace(honest, outputs={name: honest.outputs[name]}) for name in ("total", "same"))
    assert prove_against_goldens(mixed(), [total, same], {}, default=CLOSE).passed


def test_an_output_that_no_golden_records_is_not_proven():
    honest = golden()
    partial = dataclasses.replace(honest, outputs={"total": honest.outputs["total"]})
    report = prove_against_goldens(mixed(), [partial, partial], {}, default=CLOSE)
    assert failed(report) == ["names"]
    assert "no golden records output 'same'" in report.summary


def test_a_tolerance_by_name_goes_before_the_default():
    off = with_outputs(total=golden().outputs["total"] + np.float32(1e-3))
    assert failed(prove_against_goldens(mixed(), [off], {"total": Tolerance(0.01)}, default=CLOSE)) == []
    assert failed(prove_against_goldens(mixed(), [golden()], {})) == []  # exact by default, and exact it is


def test_integers_must_be_equal_whatever_the_default():
    model_bytes = serialised(
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", TensorProto.INT32, ["batch"])],
        [("y", TensorProto.INT32, ["batch"])],
    )
    x = np.array([5, 6], np.int32)
    off = Golden("test_data_set_0", {"x": x}, {"y": x + np.int32(1)})
    assert failed(prove_against_goldens(model_bytes, [off], {}, default=Tolerance(10.0))) == ["values"]


def test_a_model_that_mixes_rows_is_refuted_although_its_values_are_right():
    model_bytes = serialised(
        [helper.make_node("Softmax", ["x"], ["y"], axis=0)],
        [("x", TensorProto.FLOAT, ["batch", 2])],
        [("y", TensorProto.FLOAT, ["batch", 2])],
    )
    recorded = Golden("test_data_set_0", {"x": np.zeros((2, 2), np.float32)}, {"y": np.full((2, 2), 0.5, np.float32)})
    assert failed(prove_against_goldens(model_bytes, [recorded], {}, default=CLOSE)) == ["bit identity"]


def test_bits_do_not_apply_where_rows_cannot_be_batched():
    report = prove_against_goldens(mixed(axis=3), [golden()], {}, default=CLOSE)
    assert report.passed
    assert report.checks[-1].detail == "does not apply: the first axis of input 'a' is not free"


def test_a_named_axis_has_one_length():
    model_bytes = serialised(
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        [("a", TensorProto.FLOAT, ["m", "k"]), ("b", TensorProto.FLOAT, ["k", "n"])],
        [("c", TensorProto.FLOAT, ["m", "n"])],
    )
    a, b = np.ones((2, 3), np.float32), np.ones((3, 4), np.float32)
    good = Golden("test_data_set_0", {"a": a, "b": b}, {"c": a @ b})
    assert prove_against_goldens(model_bytes, [good], {}).passed
    bad = Golden("test_data_set_0", {"a": a, "b": b[:2]}, {"c": a @ b})
    assert "shapes" in failed(prove_against_goldens(model_bytes, [bad], {}))


def test_without_goldens_nothing_is_proven():
    report = prove_against_goldens(mixed(), [], {})
    assert failed(report) == ["names", "dtypes", "shapes", "values", "bit identity"]


def test_a_file_that_is_no_model_cannot_be_proven():
    with pytest.raises(ArtifactError, match="not an ONNX model"):
        prove_against_goldens(b"\xff\xff", [golden()], {})
