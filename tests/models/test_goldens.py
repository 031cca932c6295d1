"""Goldens on disk in ONNX's layout, and what their replay calls equal."""

from __future__ import annotations

import contextlib
import json
import math

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from models.datatypes import DATATYPES
from models.errors import ArtifactError, GoldenMismatch
from models.goldens import (
    Difference,
    Golden,
    ReplayReport,
    Tolerance,
    is_golden_name,
    read_golden,
    read_goldens,
    replay,
    write_golden,
)

NAN, INF = float("nan"), float("inf")
F32_MAX = np.finfo(np.float32).max
F64_MAX = np.finfo(np.float64).max

SAMPLES = {
    "BOOL": [True, False, True],
    **{f"UINT{bits}": [0, 1, 2**bits - 1] for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": [-(2 ** (bits - 1)), 0, 2 ** (bits - 1) - 1] for bits in (8, 16, 32, 64)},
    **{name: [-0.0, NAN, -INF] for name in ("FP16", "BF16", "FP32", "FP64")},
    "BYTES": ["", "Grüße\x00", "\U0001f40d\x00\x00"],
}


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes()


def golden(number: int = 0, *, x: object = 1.0, y: object = 2.0) -> Golden:
    return Golden(f"test_data_set_{number}", {"x": np.asarray(x)}, {"y": np.asarray(y)})


def difference(expected: object, got: object, tolerance: Tolerance | None = None) -> Difference:
    """Replay one golden with one output; None as the answer means none."""
    tolerances = {} if tolerance is None else {"y": tolerance}
    answers = {} if got is None else {"y": np.asarray(got)}
    (only,) = replay([golden(y=expected)], tolerances, lambda feeds: answers).differences
    return only


class TestFiles:
    @pytest.mark.parametrize("name", DATATYPES)
    @pytest.mark.parametrize("shape", [(3,), (1, 3, 1), ()], ids=str)
    def test_every_datatype_comes_back_bit_for_bit(self, tmp_path, name, shape):
        samples = np.array(SAMPLES[name], DATATYPES[name].numpy)
        written = samples[2] if not shape else samples.reshape(shape)
        written = np.array(written, samples.dtype)
        write_golden(tmp_path, Golden("test_data_set_0", {"x": written}, {"y": written}))
        (read,) = read_goldens(tmp_path)
        assert same_bits(read.inputs["x"], written)
        assert same_bits(read.outputs["y"], written)

    @pytest.mark.parametrize("name", DATATYPES)
    def test_arrays_without_elements_keep_their_shape(self, tmp_path, name):
        empty = np.empty((0, 4), DATATYPES[name].numpy)
        write_golden(tmp_path, golden(x=empty, y=empty))
        assert same_bits(read_goldens(tmp_path)[0].outputs["y"], empty)

    def test_an_array_with_gaps_is_written_as_it_reads(self, tmp_path):
        x = np.arange(6.0).reshape(2, 3).T
        write_golden(tmp_path, golden(x=x))
        assert read_goldens(tmp_path)[0].inputs["x"].tolist() == x.tolist()

    def test_onnx_reads_the_same_files(self, tmp_path):
        x, y = np.arange(6, dtype=np.float32).reshape(2, 3), np.array(["a", "b"], object)
        write_golden(tmp_path, Golden("test_data_set_3", {"image": x}, {"digit": y, "copy": x}))
        folder = tmp_path / "test_data_set_3"
        assert sorted(path.name for path in folder.iterdir()) == ["input_0.pb", "output_0.pb", "output_1.pb"]
        tensors = [onnx.load_tensor(str(folder / name)) for name in ("input_0.pb", "output_0.pb", "output_1.pb")]
        assert [tensor.name for tensor in tensors] == ["image", "digit", "copy"]
        assert same_bits(numpy_helper.to_array(tensors[0]), x)
        assert numpy_helper.to_array(tensors[1]).tolist() == ["a", "b"]

    def test_goldens_come_by_number(self, tmp_path):
        for number in (10, 9, 2, 0):
            write_golden(tmp_path, golden(number))
        names = [read.name for read in read_goldens(tmp_path)]
        assert names == [f"test_data_set_{number}" for number in (0, 2, 9, 10)]

    def test_tensors_come_by_number(self, tmp_path):
        outputs = {f"y{index}": np.full(1, index) for index in range(11)}
        write_golden(tmp_path, Golden("test_data_set_0", {"x": np.ones(1)}, outputs))
        assert list(read_goldens(tmp_path)[0].outputs) == list(outputs)

    def test_a_tensor_without_a_name_is_named_after_its_file(self, tmp_path):
        folder = tmp_path / "test_data_set_0"
        folder.mkdir()
        for role in ("input", "output"):
            (folder / f"{role}_0.pb").write_bytes(numpy_helper.from_array(np.ones(1)).SerializeToString())
        read = read_golden(folder)
        assert (list(read.inputs), list(read.outputs)) == (["input_0"], ["output_0"])

    def test_a_model_may_have_no_inputs(self, tmp_path):
        write_golden(tmp_path, Golden("test_data_set_0", {}, {"y": np.ones(2)}))
        (read,) = read_goldens(tmp_path)
        assert (read.inputs, read.batch) == ({}, 1)

    def test_no_goldens(self, tmp_path):
        assert read_goldens(tmp_path) == ()

    def test_what_is_no_golden_is_left_alone(self, tmp_path):
        write_golden(tmp_path, golden())
        folder = tmp_path / "test_data_set_0"
        for name in ("._input_0.pb", "input_0.pb~", "input_a.pb", "input_.pb", "inputs_0.pb", "README"):
            (folder / name).write_bytes(b"\xff")
        for name in ("test_data_set_", "test_data_set_x", "test_data_set_1.bak", "xtest_data_set_1", "data"):
            (tmp_path / name).mkdir()
        (tmp_path / "test_data_set_5").write_bytes(b"a file")
        assert [read.name for read in read_goldens(tmp_path)] == ["test_data_set_0"]

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("test_data_set_0", True),
            ("test_data_set_12", True),
            ("test_data_set_", False),
            ("test_data_set_-1", False),
            ("test_data_set_1\n", False),
            ("test_data_set_\u0661", False),
            ("../test_data_set_0", False),
            ("test_data_set_0/..", False),
            ("", False),
        ],
    )
    def test_golden_names(self, name, expected):
        assert is_golden_name(name) is expected

    @pytest.mark.parametrize(
        ("first", "batch"), [(np.ones((7, 2)), 7), (np.ones(()), 1), (np.ones((0, 2)), 0)], ids=["7", "scalar", "0"]
    )
    def test_the_batch_is_the_length_of_the_first_axis(self, first, batch):
        assert Golden("test_data_set_0", {"x": first}, {}).batch == batch


class TestNotWritten:
    @pytest.mark.parametrize("name", ["../x", "test_data_set_", "golden", ""])
    def test_another_name(self, tmp_path, name):
        with pytest.raises(ArtifactError, match=f"golden name: got {name!r}"):
            write_golden(tmp_path, Golden(name, {}, {"y": np.ones(1)}))
        assert not list(tmp_path.iterdir())

    def test_nothing_to_compare(self, tmp_path):
        with pytest.raises(ArtifactError, match="test_data_set_0 records no outputs"):
            write_golden(tmp_path, Golden("test_data_set_0", {"x": np.ones(1)}, {}))

    @pytest.mark.parametrize("array", [np.ones(2, complex), np.array(["text"]), np.ones(1, ml_dtypes.float8_e5m2)])
    def test_what_could_not_be_read_back(self, tmp_path, array):
        with pytest.raises(ArtifactError, match=r"test_data_set_0, output 'y': .* is no served datatype"):
            write_golden(tmp_path, golden(y=array))


class TestDamaged:
    @pytest.fixture
    def folder(self, tmp_path):
        """A golden of two inputs and two outputs."""
        one = np.ones(2, np.float32)
        write_golden(tmp_path, Golden("test_data_set_0", {"a": one, "b": one}, {"c": one, "d": one}))
        return tmp_path / "test_data_set_0"

    @pytest.mark.parametrize(
        ("removed", "named"),
        [
            (["input_0.pb"], "test_data_set_0 has no input_0.pb, but input_1.pb"),
            (["output_0.pb"], "test_data_set_0 has no output_0.pb, but output_1.pb"),
            (["output_0.pb", "output_1.pb"], "test_data_set_0 has no output_0.pb"),
        ],
    )
    def test_a_missing_file_is_named(self, folder, removed, named):
        for name in removed:
            (folder / name).unlink()
        with pytest.raises(ArtifactError, match=named):
            read_golden(folder)

    def test_a_number_with_zeros_in_front_is_another_name(self, folder):
        (folder / "input_1.pb").rename(folder / "input_01.pb")
        with pytest.raises(ArtifactError, match=r"has no input_1.pb, but input_0.pb, input_01.pb"):
            read_golden(folder)

    def test_two_tensors_of_one_name(self, folder):
        (folder / "output_1.pb").write_bytes((folder / "output_0.pb").read_bytes())
        with pytest.raises(ArtifactError, match="test_data_set_0: two outputs are named 'c'"):
            read_golden(folder)

    @pytest.mark.parametrize(
        ("content", "named"),
        [
            (b"", "is not a tensor: the file is empty"),
            (onnx.TensorProto(name="x").SerializeToString(), "is not a tensor: it has no element type"),
            (b"\xff\xff\xff", "is not a tensor"),
            (b"not a tensor", "is not a tensor"),
            (
                numpy_helper.from_array(np.ones(2, np.complex64), "c").SerializeToString(),
                f"tensors of type {TensorProto.COMPLEX64} are not served",
            ),
            (
                onnx.TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[3], raw_data=b"\0" * 8),
                "is not a tensor: cannot reshape",
            ),
            (
                onnx.TensorProto(name="c", data_type=TensorProto.STRING, dims=[1], string_data=[b"\xff"]),
                "is not a tensor: 'utf-8' codec",
            ),
            (
                onnx.TensorProto(name="c", data_type=TensorProto.STRING, dims=[2], string_data=[b"a"]),
                "is not a tensor: cannot reshape",
            ),
            (
                numpy_helper.from_array(np.ones(2), "name").SerializeToString().replace(b"name", b"na\xffe"),
                r"is not a tensor: its name is not UTF-8: b'na\\xffe'",
            ),
        ],
        ids=[
            "empty",
            "no type",
            "junk",
            "text",
            "complex",
            "too short",
            "no UTF-8",
            "too few strings",
            "name that is no UTF-8",
        ],
    )
    def test_a_damaged_file_is_named(self, folder, content, named):
        data = content if isinstance(content, bytes) else content.SerializeToString()
        (folder / "output_0.pb").write_bytes(data)
        with pytest.raises(ArtifactError, match=f"test_data_set_0/output_0.pb:? {named}"):
            read_golden(folder)

    def test_numbers_in_another_file_are_not_fetched(self, folder, monkeypatch):
        monkeypatch.chdir(folder)
        (folder / "elsewhere.bin").write_bytes(np.ones(2, np.float32).tobytes())
        tensor = onnx.TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="elsewhere.bin")
        (folder / "output_0.pb").write_bytes(tensor.SerializeToString())
        with pytest.raises(ArtifactError, match=r"output_0.pb keeps its numbers in another file \(external data\)"):
            read_golden(folder)

    def test_a_directory_in_a_files_place(self, folder):
        (folder / "input_0.pb").unlink()
        (folder / "input_0.pb").mkdir()
        with pytest.raises(ArtifactError, match=r"test_data_set_0/input_0.pb is no regular file"):
            read_golden(folder)

    @pytest.mark.parametrize("read", [read_golden, read_goldens])
    def test_a_directory_that_is_not_there(self, tmp_path, read):
        with pytest.raises(ArtifactError, match=r"nowhere cannot be read: No such file"):
            read(tmp_path / "nowhere")

    @settings(deadline=None)
    @given(st.data())
    def test_no_damage_raises_anything_else(self, tmp_path_factory, data):
        name = data.draw(st.sampled_from(list(DATATYPES)))
        array = np.array(SAMPLES[name], DATATYPES[name].numpy)
        content = bytearray(numpy_helper.from_array(array, "c").SerializeToString())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        folder = tmp_path_factory.mktemp("damaged")
        (folder / "output_0.pb").write_bytes(content)
        with contextlib.suppress(ArtifactError):
            (array,) = read_golden(folder).outputs.values()
            assert array.dtype in [datatype.numpy for datatype in DATATYPES.values()]


class TestReplay:
    @pytest.mark.parametrize("name", DATATYPES)
    def test_the_recorded_answer_passes_bit_for_bit(self, name):
        recorded = np.array(SAMPLES[name], DATATYPES[name].numpy)
        found = difference(recorded, recorded.copy())
        assert found.passed
        assert found.max_absolute == 0

    @pytest.mark.parametrize(
        ("expected", "got", "tolerance", "passed"),
        [
            # absolute: the bound itself is allowed, the next float is not
            (1.0, 1.5, Tolerance(absolute=0.5), True),
            (1.0, 0.5, Tolerance(absolute=0.5), True),
            (1.0, np.nextafter(1.5, 2), Tolerance(absolute=0.5), False),
            (1.0, 0.5 - 2**-53, Tolerance(absolute=0.5), False),
            # relative to the reference, not to the answer
            (-8.0, -10.0, Tolerance(relative=0.25), True),
            (-10.0, -8.0, Tolerance(relative=0.1875), False),
            (8.0, np.nextafter(10.0, 11), Tolerance(relative=0.25), False),
            (0.0, 1e-300, Tolerance(relative=1e9), False),
            # the two add up
            (4.0, 5.5, Tolerance(absolute=0.5, relative=0.25), True),
            (4.0, np.nextafter(5.5, 6), Tolerance(absolute=0.5, relative=0.25), False),
            # none at all: one bit counts, the sign of a zero does not
            (1.0, np.nextafter(1.0, 2), None, False),
            (np.float32(1), np.nextafter(np.float32(1), np.float32(2)), None, False),
            (np.float16(1), np.nextafter(np.float16(1), np.float16(2)), None, False),
            (ml_dtypes.bfloat16(1), ml_dtypes.bfloat16(1.0078125), None, False),
            (5e-324, 0.0, None, False),
            (0.0, -0.0, None, True),
            # not a number, not finite
            (NAN, NAN, None, True),
            (INF, INF, None, True),
            (-INF, INF, Tolerance(1e300, 1e300), False),
            (NAN, 1.0, Tolerance(1e300, 1e300), False),
            (1.0, NAN, Tolerance(1e300, 1e300), False),
            (INF, 1.0, Tolerance(1e300, 1e300), False),
            (1.0, INF, Tolerance(1e300, 1e300), False),
            (F32_MAX, -F32_MAX, Tolerance(absolute=1.0), False),
            # float64 overflows in the difference, and in the allowance
            (F64_MAX, -F64_MAX, Tolerance(absolute=1.0), False),
            (F64_MAX, F64_MAX / 2, Tolerance(relative=10.0), True),
            # whole numbers, exactly
            (np.int64(2**63 - 1), np.int64(2**63 - 2), None, False),
            (np.int64(2**63 - 1), np.int64(2**63 - 2), Tolerance(absolute=1), True),
            (np.int64(2**62), np.int64(2**62 + 1), None, False),
            (np.int64(-(2**63)), np.int64(2**63 - 1), Tolerance(absolute=1), False),
            (np.int64(-(2**63)), np.int64(2**63 - 1), Tolerance(absolute=2.0**64), True),
            (np.uint64(2**64 - 1), np.uint64(2**64 - 2), None, False),
            (np.uint64(0), np.uint64(2**64 - 1), Tolerance(absolute=2), False),
            (np.int8(-128), np.int8(127), Tolerance(absolute=254), False),
            (np.int8(-128), np.int8(127), Tolerance(absolute=255), True),
            (np.uint8(1), np.uint8(2), Tolerance(absolute=0.99), False),
            # yes, no and text are the same or they are not: no tolerance makes them so
            (True, False, Tolerance(absolute=10), False),
            (np.array("a", object), np.array("b", object), Tolerance(absolute=10), False),
            (np.array("a", object), np.array("a\x00", object), None, False),
        ],
    )
    def test_what_is_within_tolerance(self, expected, got, tolerance, passed):
        dtype = np.asarray(expected).dtype
        for shape in ((), (1,), (2, 1)):
            found = difference(
                np.full(shape, expected, dtype), np.full(shape, got, dtype), *([tolerance] if tolerance else [])
            )
            assert found.passed is passed
            assert bool(found.detail) is not passed

    @pytest.mark.parametrize(
        ("expected", "got", "detail"),
        [
            (np.zeros((2, 3)), np.zeros((2, 4)), "expected float64[2, 3], got float64[2, 4]"),
            (np.zeros((2, 3)), np.zeros(6), "expected float64[2, 3], got float64[6]"),
            (np.zeros(()), np.zeros(1), "expected float64[], got float64[1]"),
            (np.zeros((0, 3)), np.zeros((0, 4)), "expected float64[0, 3], got float64[0, 4]"),
            (np.zeros(2), np.zeros(2, np.float32), "expected float64[2], got float32[2]"),
            (np.zeros(2, np.int64), np.zeros(2, np.uint64), "expected int64[2], got uint64[2]"),
            (np.zeros(2), None, "the model has no such output"),
            (np.array([True, False]), np.array([True, True]), "expected np.False_ at (1,), got np.True_"),
            (np.array([["a", "b"]], object), np.array([["a", ""]], object), "expected 'b' at (0, 1), got ''"),
        ],
    )
    def test_what_cannot_be_compared_says_why(self, expected, got, detail):
        found = difference(expected, got, Tolerance(absolute=1e9))
        assert not found.passed
        assert found.detail == detail

    @pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_, object, ml_dtypes.bfloat16])
    def test_empty_answers_are_equal(self, dtype):
        assert difference(np.empty((0, 3), dtype), np.empty((0, 3), dtype)).passed

    def test_the_worst_place_is_the_one_farthest_outside_its_own_bound(self):
        expected, got = np.array([[1000.0, 1.0], [NAN, 2.0]]), np.array([[1001.0, 1.5], [NAN, 2.0]])
        found = difference(expected, got, Tolerance(relative=0.01))
        assert (found.max_absolute, found.worst_index) == (1.0, (0, 1))
        assert found.detail == "difference 0.5 at (0, 1): expected 1.0, got 1.5, allowed 0 + 0.01 x |reference|"

    def test_an_output_without_a_tolerance_must_be_equal(self):
        recorded = Golden("test_data_set_0", {}, {"loose": np.ones(1), "strict": np.ones(1)})
        report = replay(
            [recorded],
            {"loose": Tolerance(1.0), "other": Tolerance(9.0)},
            lambda _: dict.fromkeys(("loose", "strict"), np.full(1, 1.5)),
        )
        assert [(item.output, item.passed) for item in report.differences] == [("loose", True), ("strict", False)]

    def test_every_golden_is_asked_with_its_own_inputs(self):
        recorded = [golden(number, x=np.full(number + 1, 1.0), y=np.full(number + 1, 2.0)) for number in range(3)]
        report = replay(recorded, {}, lambda feeds: {"y": 2 * feeds["x"]})
        assert report.passed
        assert [(item.golden, item.batch) for item in report.differences] == [
            ("test_data_set_0", 1),
            ("test_data_set_1", 2),
            ("test_data_set_2", 3),
        ]

    def test_what_the_model_raises_passes_through(self):
        def infer(feeds):
            raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            replay([golden()], {}, infer)

    def test_a_model_that_changes_its_feeds_does_not_change_the_golden(self):
        recorded = golden()
        replay([recorded], {}, lambda feeds: {"y": feeds.pop("x")})
        assert list(recorded.inputs) == ["x"]


class TestReport:
    def test_no_goldens_prove_nothing(self):
        report = replay([], {}, lambda feeds: {})
        assert not report.passed
        assert report.max_absolute == 0
        with pytest.raises(GoldenMismatch, match="there are no goldens to replay"):
            report.raise_if_failed()

    def test_a_pass_raises_nothing_and_keeps_the_largest_difference(self):
        report = ReplayReport((difference(1.0, 1.5, Tolerance(1)), difference(1.0, 1.25, Tolerance(1))))
        report.raise_if_failed()
        assert report.passed
        assert report.max_absolute == 0.5
        assert str(report.differences[0]) == (
            "test_data_set_0 (batch 1), output 'y': largest difference 0.5, allowed 1 + 0 x |reference|"
        )

    def test_a_failure_names_golden_output_place_and_both_numbers(self):
        report = ReplayReport((difference(1.0, 1.0), difference([1.0], [1.5], Tolerance(0.25)), difference(1.0, None)))
        with pytest.raises(GoldenMismatch) as raised:
            report.raise_if_failed()
        assert str(raised.value) == (
            "golden mismatch: test_data_set_0 (batch 1), output 'y': difference 0.5 at (0,): expected 1.0, got 1.5, "
            "allowed 0.25 + 0 x |reference| (and 1 more)"
        )

    @pytest.mark.parametrize(
        ("expected", "got", "max_absolute"),
        [([1.0], [1.25], 0.25), ([1.0], [NAN], None), ([INF], [-INF], None), ([1.0], None, 0.0), (["a"], ["b"], 1.0)],
    )
    def test_every_difference_is_json(self, expected, got, max_absolute):
        dtype = object if expected == ["a"] else float
        found = difference(np.array(expected, dtype), None if got is None else np.array(got, dtype))
        data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert data["max_absolute"] == max_absolute
        assert data["passed"] is False
        assert data["worst_index"] == (None if got is None else [0])
        assert data["tolerance"] == {"absolute": 0.0, "relative": 0.0}


class TestTolerance:
    @pytest.mark.parametrize("field", ["absolute", "relative"])
    @pytest.mark.parametrize(
        "value", [NAN, INF, -INF, -1e-9, -1, 10**400, True, None, "0.1", np.float32(0.1)], ids=repr
    )
    def test_only_finite_numbers_of_at_least_0(self, field, value):
        with pytest.raises(ArtifactError, match=f"tolerance, {field}: got .*, expected a finite number of at least 0"):
            Tolerance(**{field: value})

    @settings(deadline=None)
    @given(st.floats(0, allow_infinity=False) | st.integers(0, 2**1000), st.floats(0, allow_infinity=False))
    def test_json_keeps_it(self, absolute, relative):
        tolerance = Tolerance(absolute, relative)
        assert Tolerance(**json.loads(json.dumps(tolerance.to_dict(), allow_nan=False))) == tolerance

    @settings(deadline=None)
    @given(st.floats(width=32), st.floats(width=32), st.floats(0, 1e6), st.floats(0, 1e6))
    def test_it_is_the_documented_formula(self, expected, got, absolute, relative):
        found = difference(np.float32(expected), np.float32(got), Tolerance(absolute, relative))
        if math.isfinite(expected) and math.isfinite(got):
            assert found.passed is (abs(got - expected) <= absolute + relative * abs(expected))
        else:
            assert found.passed is (expected == got or (math.isnan(expected) and math.isnan(got)))
