"""Goldens on disk in ONNX's layout."""

from __future__ import annotations

import contextlib

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from models.artifact.datatypes import DATATYPES
from models.artifact.goldens import (
    Golden,
    is_golden_name,
    read_golden,
    read_goldens,
    write_golden,
)
from models.errors import ArtifactError

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
