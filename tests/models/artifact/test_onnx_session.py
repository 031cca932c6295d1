"""What open_model opens, what it refuses, and that it says so only in the exception."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from models.artifact.datatypes import DATATYPES
from models.artifact.onnx_session import open_model
from models.artifact.tensor_spec import TensorSpec
from models.errors import ArtifactError
from tests.conftest import affine_model, conv2d_model, identity_model, mixed_model, onnx_model

VALUES = {
    "BOOL": [True, False, True, False],
    **{f"UINT{bits}": [0, 1, 2, 2**bits - 1] for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": [-(2 ** (bits - 1)), -1, 0, 2 ** (bits - 1) - 1] for bits in (8, 16, 32, 64)},
    **{name: [-0.0, 1.5, float("nan"), float("-inf")] for name in ("FP16", "BF16", "FP32", "FP64")},
    "BYTES": ["", "Grüße\x00", "a\x00b", "\U0001f40d"],
}


def parsed(model_bytes: bytes) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model_bytes)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes()


@pytest.fixture(autouse=True)
def quiet(capfd):
    """Errors reach the caller as exceptions, never the terminal."""
    yield
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


class TestRun:
    @pytest.mark.parametrize("name", DATATYPES)
    @pytest.mark.parametrize("axes", [["batch", 2], [None, None], [2, 2]], ids=str)
    def test_every_datatype_passes_bit_for_bit(self, name, axes):
        x = np.array(VALUES[name], DATATYPES[name].numpy).reshape(2, 2)
        (y,) = open_model(identity_model(DATATYPES[name].onnx, axes)).run(["y"], {"x": x})
        assert same_bits(y, x)

    @pytest.mark.parametrize("name", DATATYPES)
    @pytest.mark.parametrize("shape", [(0, 2), (3, 0), (0, 0)], ids=str)
    def test_free_axes_may_have_no_length(self, name, shape):
        x = np.empty(shape, DATATYPES[name].numpy)
        (y,) = open_model(identity_model(DATATYPES[name].onnx, ["n", "m"])).run(["y"], {"x": x})
        assert same_bits(y, x)

    @pytest.mark.parametrize("name", DATATYPES)
    def test_a_scalar_stays_a_scalar(self, name):
        x = np.array(VALUES[name][1], DATATYPES[name].numpy)
        (y,) = open_model(identity_model(DATATYPES[name].onnx, [])).run(["y"], {"x": x})
        assert same_bits(y, x)

    @pytest.mark.parametrize("name", ["FP32", "BF16"])
    def test_an_array_with_gaps_is_taken_as_it_reads(self, name):
        x = np.arange(8).astype(DATATYPES[name].numpy).reshape(2, 4)[:, ::2]
        (y,) = open_model(identity_model(DATATYPES[name].onnx)).run(["y"], {"x": x})
        assert y.astype(float).tolist() == [[0, 2], [4, 6]]

    @pytest.mark.parametrize("name", ["FP32", "BF16"])
    def test_an_array_over_received_bytes_needs_no_copy(self, name):
        dtype = DATATYPES[name].numpy
        x = np.frombuffer(np.ones((2, 2), dtype).tobytes(), dtype).reshape(2, 2)
        (y,) = open_model(identity_model(DATATYPES[name].onnx)).run(["y"], {"x": x})
        assert same_bits(y, x)

    def test_bf16_beside_other_datatypes(self):
        model = open_model(
            onnx_model(
                [
                    helper.make_node("Cast", ["a"], ["wide"], to=TensorProto.FLOAT),
                    helper.make_node("Not", ["flag"], ["flipped"]),
                    helper.make_node("Cast", ["flag"], ["text"], to=TensorProto.STRING),
                    helper.make_node("Identity", ["a"], ["same"]),
                ],
                [("a", TensorProto.BFLOAT16, ["n"]), ("flag", TensorProto.BOOL, ["n"])],
                [
                    ("wide", TensorProto.FLOAT, ["n"]),
                    ("flipped", TensorProto.BOOL, ["n"]),
                    ("text", TensorProto.STRING, ["n"]),
                    ("same", TensorProto.BFLOAT16, ["n"]),
                ],
            )
        )
        feeds = {"a": np.array([1.5, -2], ml_dtypes.bfloat16), "flag": np.array([True, False])}
        flipped, same, wide, text = model.run(("flipped", "same", "wide", "text"), feeds)
        assert flipped.tolist() == [False, True]
        assert same_bits(same, feeds["a"])
        assert same_bits(wide, np.array([1.5, -2], np.float32))
        assert text.tolist() == ["1", "0"]

    def test_outputs_come_as_asked_and_in_that_order(self):
        feeds = {
            "a": np.ones((2, 2), np.float32),
            "b": np.full((2, 2), 3, np.int64),
            "flag": np.array([True, False]),
            "text": np.array(["x", "y"], object),
        }
        size, same, total = open_model(mixed_model()).run(["size", "same", "total"], feeds)
        assert same_bits(size, np.array(4, np.int64))
        assert same.tolist() == ["x", "y"]
        assert total.tolist() == [[4, 4], [4, 4]]

    @pytest.mark.parametrize(
        ("feeds", "message"),
        [({}, "missing: a, b, flag, text; got none"), ({"flag": np.array([True])}, "missing: a, b, text; got flag")],
    )
    def test_missing_inputs_are_named(self, feeds, message):
        """onnxruntime's inner part would begin to compute without them."""
        with pytest.raises(ValueError, match=message):
            open_model(mixed_model()).run(["total"], feeds)

    def test_a_release_without_the_inner_part_is_run_through_the_outer_one(self):
        class Outer:
            def __init__(self, session):
                self.run = session.run

        model = open_model(affine_model())
        feeds = {"x": np.ones((2, 3), np.float32)}
        (expected,) = model.run(["y"], feeds)
        (got,) = dataclasses.replace(model, session=Outer(model.session)).run(("y",), MappingProxyType(feeds))
        assert same_bits(got, expected)

    def test_threads_may_run_at_once(self):
        model = open_model(affine_model())
        questions = [np.full((rows, 3), rows, np.float32) for rows in range(1, 40)]
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda x: model.run(["y"], {"x": x})[0], questions * 5))
        for x, y in zip(questions * 5, answers, strict=True):
            assert same_bits(y, model.run(["y"], {"x": x})[0])

    def test_one_thread_and_no_arena(self):
        options = open_model(affine_model()).session.get_session_options()
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
        assert options.enable_cpu_mem_arena is False


class TestInterface:
    def test_names_datatypes_and_axes(self):
        model = open_model(conv2d_model()[0])
        assert model.inputs == (TensorSpec("image", "FP32", ("batch", 3, "height", "width")),)
        assert model.outputs == (TensorSpec("features", "FP32", ("batch", 4, "height", "width")),)

    def test_a_free_axis_without_a_name_has_an_empty_one(self):
        assert open_model(identity_model(TensorProto.FLOAT, [None, 2])).inputs[0].shape == ("", 2)

    def test_metadata_is_the_models(self):
        nodes = [helper.make_node("Identity", ["x"], ["y"])]
        x, y = (("x", TensorProto.FLOAT, ["n"]), ("y", TensorProto.FLOAT, ["n"]))
        assert open_model(onnx_model(nodes, [x], [y], metadata={"seed": "0"})).metadata == {"seed": "0"}

    def test_constants_listed_among_the_inputs_are_no_inputs(self):
        # Exporters of IR version 3 listed every initializer as an input, some without its shape.
        model = open_model(
            onnx_model(
                [helper.make_node("Add", ["x", "w"], ["y"])],
                [("x", TensorProto.FLOAT, ["n"]), ("w", TensorProto.FLOAT, None)],
                [("y", TensorProto.FLOAT, ["n"])],
                [numpy_helper.from_array(np.ones(1, np.float32), "w")],
            )
        )
        assert [spec.name for spec in model.inputs] == ["x"]

    def test_a_producers_name_cannot_pass_the_file_off_as_onnxruntimes_own_format(self):
        # With this name the bytes 4 to 8 of the file are ORTM, the mark of onnxruntime's own format.
        proto = parsed(affine_model())
        proto.producer_name = "ORTM of Vienna"
        assert proto.SerializeToString()[4:8] == b"ORTM"
        (y,) = open_model(proto.SerializeToString()).run(["y"], {"x": np.ones((1, 3), np.float32)})
        assert y.tolist() == [[3, 3, 3]]


def external(name: str = "weights") -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.ones(3, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return tensor


def sparse(values: onnx.TensorProto, indices: onnx.TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[3])


def with_external_initializer() -> onnx.ModelProto:
    model = parsed(affine_model())
    model.graph.initializer.append(external())
    return model


def with_external_sparse_initializer(part: str) -> onnx.ModelProto:
    model = parsed(affine_model())
    inline = numpy_helper.from_array(np.arange(3, dtype=np.int64), "inline")
    pair = (external(), inline) if part == "values" else (inline, external())
    model.graph.sparse_initializer.append(sparse(*pair))
    return model


def with_external_attribute(**attribute: object) -> onnx.ModelProto:
    model = parsed(affine_model())
    model.graph.node.append(helper.make_node("Constant", [], ["constant"], **attribute))
    return model


def with_external_subgraph() -> onnx.ModelProto:
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=external())],
        "inner",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [3])],
    )
    outer = helper.make_graph(
        [helper.make_node("If", ["flag"], ["c2"], then_branch=inner, else_branch=inner)],
        "outer",
        [],
        [helper.make_tensor_value_info("c2", TensorProto.FLOAT, [3])],
    )
    model = parsed(affine_model())
    model.graph.node.append(helper.make_node("If", ["flag"], ["z"], then_branch=outer, else_branch=outer))
    return model


def with_external_function() -> onnx.ModelProto:
    model = parsed(affine_model())
    body = [helper.make_node("Constant", [], ["c"], value=external())]
    opsets = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function("local", "F", [], ["c"], body, opsets))
    return model


class TestExternalData:
    @pytest.mark.parametrize(
        "build",
        [
            with_external_initializer,
            lambda: with_external_sparse_initializer("values"),
            lambda: with_external_sparse_initializer("indices"),
            lambda: with_external_attribute(value=external()),
            lambda: with_external_attribute(tensors=[external()]),
            lambda: with_external_attribute(sparse_value=sparse(external(), external("i"))),
            lambda: with_external_attribute(several=[sparse(external(), external("i"))]),
            lambda: with_external_attribute(graphs=[with_external_initializer().graph]),
            with_external_subgraph,
            with_external_function,
        ],
        ids=[
            "initializer",
            "sparse initializer's values",
            "sparse initializer's indices",
            "attribute",
            "attribute, several tensors",
            "attribute, sparse tensor",
            "attribute, several sparse tensors",
            "attribute, several graphs",
            "subgraph of a subgraph",
            "function",
        ],
    )
    def test_weights_in_another_file_are_refused_by_name(self, build, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "weights.bin").write_bytes(np.ones(3, np.float32).tobytes())
        with pytest.raises(ArtifactError, match=r"tensor '(weights|i)' lies in another file \(external data\)"):
            open_model(build().SerializeToString())


def with_node(op_type: str, domain: str, *, version: int | None = 1) -> bytes:
    model = parsed(identity_model(TensorProto.FLOAT))
    model.graph.node[0].op_type = op_type
    model.graph.node[0].domain = domain
    if version is not None:
        model.opset_import.append(helper.make_opsetid(domain, version))
    return model.SerializeToString()


def with_sequence_output() -> bytes:
    model = parsed(
        onnx_model(
            [helper.make_node("SequenceConstruct", ["x", "x"], ["parts"])], [("x", TensorProto.FLOAT, ["n"])], []
        )
    )
    model.graph.output.append(helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, ["n"]))
    return model.SerializeToString()


def with_map_output() -> bytes:
    model = parsed(
        onnx_model(
            [helper.make_node("ZipMap", ["x"], ["scores"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])],
            [("x", TensorProto.FLOAT, ["n", 2])],
            [],
        )
    )
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    one = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    model.graph.output.append(onnx.ValueInfoProto(name="scores", type=helper.make_sequence_type_proto(one)))
    return model.SerializeToString()


def with_metadata() -> bytes:
    model = parsed(affine_model())
    model.metadata_props.add(key="note", value="text")
    return model.SerializeToString()


def with_unknown_rank() -> bytes:
    model = parsed(identity_model(TensorProto.FLOAT))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    return model.SerializeToString()


def with_text_and_bf16() -> bytes:
    return onnx_model(
        [helper.make_node("Identity", ["a"], ["b"]), helper.make_node("Identity", ["text"], ["same"])],
        [("a", TensorProto.BFLOAT16, ["n"]), ("text", TensorProto.STRING, ["n"])],
        [("b", TensorProto.BFLOAT16, ["n"]), ("same", TensorProto.STRING, ["n"])],
    )


class TestRefused:
    @pytest.mark.parametrize(
        ("model_bytes", "named"),
        [
            (b"", "not an ONNX model: it has no graph"),
            (onnx.ModelProto(ir_version=10).SerializeToString(), "not an ONNX model: it has no graph"),
            (b"\x80\x04\x95 a pickle", "not an ONNX model: its protobuf cannot be parsed"),
            (b"version https://git-lfs.github.com/spec/v1\n", "not an ONNX model: its protobuf cannot be parsed"),
            (affine_model()[:-20], "not an ONNX model: its protobuf cannot be parsed"),
            (identity_model(TensorProto.FLOAT8E4M3FN), r"input 'x' has the type tensor\(float8e4m3fn\)"),
            (identity_model(TensorProto.COMPLEX64), "complex64"),
            (identity_model(TensorProto.INT4), "int4"),
            (identity_model(TensorProto.UNDEFINED), "Invalid tensor data type"),
            (with_sequence_output(), r"output 'parts' has the type seq\(tensor\(float\)\); served are tensors of BOOL"),
            (
                with_map_output(),
                r"output 'scores' has the type seq\(map\(int64,tensor\(float\)\)\).*\{'zipmap': False\}$",
            ),
            (with_unknown_rank(), "input 'x' has no shape; declare its axes"),
            (with_node("Fancy", "com.example"), r"onnxruntime cannot load the model: .*com\.example:Fancy"),
            (with_node("Fancy", "com.example", version=None), r"onnxruntime cannot load the model: .*com\.example"),
            (with_node("Fancy", "", version=None), "onnxruntime cannot load the model: .*Fancy"),
            (with_text_and_bf16(), "input 'text' is BYTES and 'a' is BF16"),
            (affine_model().replace(b"batch", b"b\xfftch"), r"a name in the model is not UTF-8: b'b\\xfftch'"),
            (with_metadata().replace(b"note", b"n\xffte"), "a name in the model is not UTF-8: "),
        ],
        ids=[
            "empty",
            "no graph",
            "pickle",
            "text",
            "truncated",
            "float8",
            "complex",
            "int4",
            "undefined type",
            "sequence",
            "map",
            "unknown rank",
            "custom operator",
            "unknown domain",
            "unknown operator",
            "text beside bf16",
            "axis that is no UTF-8",
            "metadata that are no UTF-8",
        ],
    )
    def test_what_cannot_be_served_is_named_in_one_line(self, model_bytes, named):
        with pytest.raises(ArtifactError, match=named) as raised:
            open_model(model_bytes)
        assert "\n" not in str(raised.value)

    def test_every_truncation_is_refused(self):
        whole = affine_model()
        for length in range(0, len(whole), 7):
            with pytest.raises(ArtifactError):
                open_model(whole[:length])

    @settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.sampled_from([affine_model(), mixed_model()]), st.data())
    def test_no_damage_raises_anything_else(self, whole, data):
        damaged = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 3))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        with contextlib.suppress(ArtifactError):
            model = open_model(bytes(damaged))
            assert {spec.datatype for spec in (*model.inputs, *model.outputs)} <= set(DATATYPES)

    def test_a_model_longer_than_a_protobuf_can_be(self, monkeypatch):
        monkeypatch.setattr("models.artifact.onnx_session.MAX_MODEL_BYTES", 10)
        with pytest.raises(ArtifactError, match="at most 10 can be loaded"):
            open_model(affine_model())


@pytest.mark.parametrize("home", ["home", "nowhere"])
def test_onnxruntime_writes_nothing_into_the_home_directory_nor_to_standard_error(tmp_path, home) -> None:
    (tmp_path / "home").mkdir()
    where = {"HOME": str(tmp_path / "home") if home == "home" else "/proc/nowhere"}
    left_out = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    done = subprocess.run(
        [sys.executable, "-c", "import models.artifact.onnx_session"],
        env={**{name: value for name, value in os.environ.items() if name not in left_out}, **where},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not list((tmp_path / "home").iterdir())
