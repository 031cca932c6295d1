"""Models whose answers depend on the batch, and models whose answers do not. No torch."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from models.artifact.batch_identity import CannotRun, batchable, bit_identity, differing_rows, run, run_batched
from models.artifact.onnx_session import open_model

FLOAT = TensorProto.FLOAT
X = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
SIZES = (1, 2, 7, 20)


def model(nodes, *, axis="batch", out_axis="batch", out=(3,), dtype=FLOAT, initializers=()):
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", dtype, [axis, 3])],
        [helper.make_tensor_value_info("y", dtype, [out_axis, *out])],
        list(initializers),
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return open_model(proto.SerializeToString())


def constant(name: str, value: object, dtype=np.float32):
    return numpy_helper.from_array(np.array(value, dtype), name)


def node(op: str, inputs: str, output: str, **attributes):
    return helper.make_node(op, inputs.split(), [output], **attributes)


IDENTITY = [node("Identity", "x", "y")]
ZERO_AXIS = constant("axes", [0], np.int64)


def tiny_leak():
    """y = x + 1e-6 of the batch's mean: within any sensible tolerance, and not the same bits."""
    return model(
        [
            node("ReduceMean", "x axes", "mean", keepdims=1),
            node("Mul", "mean tiny", "leak"),
            node("Add", "x leak", "y"),
        ],
        initializers=[ZERO_AXIS, constant("tiny", 1e-6)],
    )


def running_sum():
    """A row depends on the rows before it, however they are cut."""
    return model([node("CumSum", "x axis", "y")], initializers=[constant("axis", 0, np.int64)])


def overflow_leak():
    """y = x, unless some companion is very large: only extreme companions show it."""
    return model(
        [
            node("ReduceMax", "x axes", "top", keepdims=1),
            node("Sub", "top limit", "over"),
            node("Relu", "over", "excess"),
            node("Add", "x excess", "y"),
        ],
        initializers=[ZERO_AXIS, constant("limit", 100)],
    )


def test_a_model_that_treats_rows_alone_passes():
    check = bit_identity(model(IDENTITY), {"x": X}, SIZES)
    assert check.passed
    assert "20 examples have the same bits" in check.detail


@pytest.mark.parametrize(
    ("leaky", "situation"),
    [
        (tiny_leak, "in batches of 2 from 0"),
        (running_sum, "in batches of 2 from 0"),
        (overflow_leak, "larger companions"),
    ],
)
def test_a_model_that_mixes_rows_fails(leaky, situation):
    check = bit_identity(leaky(), {"x": X}, SIZES)
    assert not check.passed
    assert situation in check.detail


def test_signed_zeros_are_other_bits():
    """y = x - x * sign: 0.0 or -0.0, equal in value."""
    sums = model(
        [
            node("ReduceSum", "x axes", "sum", keepdims=1),
            node("Sign", "sum", "sign"),
            node("Mul", "sign zero", "signed"),
            node("Mul", "x zero", "nothing"),
            node("Mul", "nothing signed", "y"),
        ],
        initializers=[ZERO_AXIS, constant("zero", 0)],
    )
    assert not bit_identity(sums, {"x": X}, SIZES).passed


def test_a_model_that_cannot_be_batched_fails_with_the_reason():
    check = bit_identity(model(IDENTITY, axis=1, out_axis=1), {"x": X}, SIZES)
    assert not check.passed
    assert check.detail.startswith("cannot run: ")


def test_answers_without_a_row_for_each_example_fail():
    total = model([node("ReduceSum", "x axes", "y", keepdims=1)], out_axis="one", initializers=[ZERO_AXIS])
    check = bit_identity(total, {"x": X}, SIZES)
    assert not check.passed
    assert "2 rows in, but output 'y' has shape [1, 3]" in check.detail


def test_no_examples_prove_nothing():
    assert not bit_identity(model(IDENTITY), {"x": X[:0]}, SIZES).passed


def test_strings_are_compared_by_value():
    text = np.array([["a", "b", "c"], ["d", "e", "f"]], np.object_)
    assert bit_identity(model(IDENTITY, dtype=TensorProto.STRING), {"x": text}, (1, 2)).passed


@given(batch=st.integers(1, 25), offset=st.integers(0, 25), count=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_every_row_is_asked_once_and_in_order(batch, offset, count):
    sizes: list[int] = []

    class Recorder:
        outputs = model(IDENTITY).outputs

        def run(self, outputs, feeds):
            sizes.append(len(feeds["x"]))
            return [feeds["x"]]

    answers = run_batched(Recorder(), {"x": X[:count]}, batch, offset)
    np.testing.assert_array_equal(answers["y"], X[:count])
    assert sum(sizes) == count
    assert all(size == batch for size in sizes[1:-1])
    assert sizes[0] == min(offset or batch, count)


def test_what_onnxruntime_says_is_kept_on_one_line():
    with pytest.raises(CannotRun, match=r"^[^\n]+$"):
        run(model(IDENTITY), {"x": X[:, :2]})


@pytest.mark.parametrize(
    ("axis", "out_axis", "reason"),
    [
        ("batch", "batch", None),
        (None, None, None),
        (2, 2, "the first axis of input 'x' is not free"),
        ("batch", 2, "the first axis of output 'y' is not free"),
        ("batch", "n", "different names"),
    ],
)
def test_batchable(axis, out_axis, reason):
    found = batchable(model(IDENTITY, axis=axis, out_axis=out_axis))
    assert (found is None) if reason is None else reason in found


def test_nan_is_nan_whatever_its_payload():
    """onnxruntime's vectorised Log makes another NaN than its scalar one, so that bits depend on the batch's length."""
    log = model([node("Log", "x", "y")])
    x = np.array([[-1, 0, 1], [2, -3, 4], [-1, -1, -1], [1, 1, 1], [-5, 0, -7]], np.float32)
    assert bit_identity(log, {"x": x}, (1, 2, 5)).passed


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_rows_differ_in_bits_but_for_the_payload_of_nan(dtype):
    bits = f"u{np.dtype(dtype).itemsize}"
    quiet = np.full((2, 2), np.nan, dtype)
    other = (quiet.view(bits) | 1).view(dtype)
    assert (quiet.view(bits) != other.view(bits)).all()
    assert list(differing_rows(quiet, other)) == []
    zero = np.zeros((2, 2), dtype)
    assert list(differing_rows(zero, -zero)) == [0, 1]
    assert list(differing_rows(np.array([[0, 1], [0, 1]], dtype), np.array([[0, 1], [0, np.nan]], dtype))) == [1]
