from __future__ import annotations

import asyncio
import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from models.data.dataset import canonical
from service.cli.commands.predict import command, sparkline
from tests.conftest import mixed_model, onnx_model, publish_affine, put_plain


def digit_model() -> bytes:
    """Probabilities from a fixed random matrix: enough to have a digit, torch-free."""
    weight = np.random.default_rng(5).standard_normal((40, 10)).astype(np.float32)
    return onnx_model(
        [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["probabilities"])],
        [("x", TensorProto.FLOAT, ["batch", 40])],
        [("probabilities", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(weight, "w")],
    )


def expected_digits(x_BL: np.ndarray) -> list[int]:
    weight = np.random.default_rng(5).standard_normal((40, 10)).astype(np.float32)
    return [int(k) for k in (x_BL @ weight).argmax(-1)]


ELEMENT_TYPES = {
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "fp64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
    "bytes": TensorProto.STRING,
}


@pytest.fixture
async def predict(repository, serving):
    put_plain(repository, "mnist1d-conv", digit_model())
    publish_affine(repository)
    put_plain(repository, "mixed", mixed_model())
    put_plain(repository, "refused", b"no model")
    for name, datatype in ELEMENT_TYPES.items():
        identity = helper.make_node("Identity", ["x"], ["y"])
        put_plain(repository, name, onnx_model([identity], [("x", datatype, ["n", 3])], [("y", datatype, ["n", 3])]))
    async with serving(repository) as server:

        async def run(*arguments: object, stdin: str | None = None):
            line = [str(argument) for argument in arguments]
            if "--server" not in line:
                line += ["--server", f"127.0.0.1:{server.port}"]
            return await asyncio.to_thread(CliRunner().invoke, command, line, stdin)

        yield run


async def test_without_files_test_examples_are_sent_and_compared_with_the_truth(predict) -> None:
    result = await predict("--json")
    told = json.loads(result.output)
    test = canonical().test
    assert (told["model"], told["version"]) == ("mnist1d-conv", "1")
    assert [p["digit"] for p in told["predictions"]] == expected_digits(test.x_BL[:10])
    assert [p["truth"] for p in told["predictions"]] == [int(y) for y in test.y_B[:10]]
    assert told["predictions"][0]["example"] == "test[0]"
    assert sum(told["predictions"][0]["probabilities"]) == pytest.approx(1, abs=1e-5)


async def test_the_table_shows_signal_digit_probability_and_verdict(predict) -> None:
    result = await predict("--example", 3, "--example", 999)
    assert result.exit_code == 0
    lines = [line for line in result.output.splitlines() if line.strip().startswith("test[")]
    digits = expected_digits(canonical().test.x_BL[[3, 999]])
    for line, digit, truth in zip(lines, digits, canonical().test.y_B[[3, 999]], strict=True):
        assert f" {digit} " in line
        assert ("right" if digit == truth else f"wrong, it is {truth}") in line


@pytest.mark.parametrize("form", ["npy", "npy-1d", "csv", "stdin"])
async def test_files_of_each_form_give_the_same_digits(predict, tmp_path, form) -> None:
    x_BL = canonical().test.x_BL[:1] if form == "npy-1d" else canonical().test.x_BL[:3]
    text = "\n".join(",".join(repr(float(value)) for value in row) for row in x_BL) + "\n"
    if form.startswith("npy"):
        np.save(tmp_path / "x.npy", x_BL[0] if form == "npy-1d" else x_BL.astype(np.float64))
        result = await predict(tmp_path / "x.npy", "--json")
    elif form == "csv":
        (tmp_path / "x.csv").write_text(text)
        result = await predict(tmp_path / "x.csv", "--json")
    else:
        result = await predict("-", "--json", stdin=text)
    predictions = json.loads(result.output)["predictions"]
    assert [p["digit"] for p in predictions] == expected_digits(x_BL)
    assert "truth" not in predictions[0]


async def test_a_model_that_is_no_digit_classifier_has_its_outputs_printed(predict, tmp_path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1, 2, 3]]))
    result = await predict(tmp_path / "x.npy", "--model", "affine")
    assert result.exit_code == 0
    assert "[[3. 5. 7.]]" in result.output
    told = json.loads((await predict(tmp_path / "x.npy", "--model", "affine", "--json")).output)
    assert told["outputs"] == {"y": [[3, 5, 7]]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("1,2\n3,x\n", "x.csv: line 2: could not convert"),
        ("1,2\n3\n", "line 2 has 1 numbers, the first has 2"),
        ("", "x.csv: there are no numbers in it"),
        ("1_0,2\n", "x.csv: line 1: could not convert string to float: '1_0'"),
        ("1,2,3\n", r"INVALID_ARGUMENT: input 'x': expected shape \[-1, 40\], got \[1, 3\]"),
        (",".join(["nan"] * 40), "expected finite values, got nan"),
    ],
)
async def test_a_file_that_does_not_fit_is_said(predict, tmp_path, content, says) -> None:
    (tmp_path / "x.csv").write_text(content)
    result = await predict(tmp_path / "x.csv")
    assert result.exit_code in (1, 2)
    assert re.search(says, result.output), result.output
    assert result.output.count("x.csv") <= 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--server", "127.0.0.1:1", "--timeout-s", "2"], 4, "127.0.0.1:1 does not answer"),
        (["--model", "nope"], 1, "NOT_FOUND"),
        (["--model", "mixed"], 2, "has 4 inputs; predict fills one"),
        (["nowhere.npy"], 2, "nowhere.npy"),
        (["x.csv", "--example", "1"], 2, "give FILES or --example, not both"),
        (["--example", "1000"], 2, "not in the range 0<=x<=999"),
        (["--model", "refused"], 1, "UNAVAILABLE: Request for model 'refused'"),
        (["--timeout-s", "0"], 2, "0.0 is not in the range x>0"),
        (["--timeout-s", "-1"], 2, "-1.0 is not in the range x>0"),
        (["--timeout-s", "nan"], 2, "'nan' is not a finite number"),
    ],
)
async def test_exit_codes(predict, arguments, code, says) -> None:
    result = await predict(*arguments)
    assert result.exit_code == code, result.output
    assert says in result.output


async def test_arrays_of_objects_are_not_unpickled(predict, tmp_path) -> None:
    np.save(tmp_path / "x.npy", np.array([object()]), allow_pickle=True)
    result = await predict(tmp_path / "x.npy")
    assert result.exit_code == 2
    assert "allow_pickle=False" in result.output


def test_a_sparkline_spans_its_own_range() -> None:
    assert sparkline(np.array([0, 1, 2, 7])) == "▁▂▃█"
    assert sparkline(np.zeros(3)) == "▁▁▁"
    assert len(sparkline(np.arange(40.0))) == 24


@pytest.mark.parametrize(
    ("model", "given", "answered"),
    [
        ("fp16", "1,2.5,0.1", [1, 2.5, 0.0999755859375]),
        ("bf16", "1,2.5,0.5", [1, 2.5, 0.5]),
        ("fp64", "1,2.5,0.1", [1, 2.5, 0.1]),
        ("int64", "1,-2,3", [1, -2, 3]),
        ("uint8", "1,2,255", [1, 2, 255]),
        ("bool", "1,0,1", [True, False, True]),
    ],
)
async def test_numbers_are_sent_in_the_datatype_of_the_model(predict, model, given, answered) -> None:
    result = await predict("-", "--model", model, "--json", stdin=given)
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["outputs"]["y"] == [answered]


@pytest.mark.parametrize(
    ("model", "given", "says"),
    [
        ("int64", "1,2.5,3", "input 'x' takes INT64, which cannot be 2.5"),
        ("int64", "1,nan,3", "input 'x' takes INT64, which cannot be nan"),
        ("uint8", "1,2,256", "input 'x' takes UINT8, which cannot be 256.0"),
        ("bool", "1,2,0", "input 'x' takes BOOL, which cannot be 2.0"),
        ("bytes", "1,2,3", "input 'x' takes BYTES; predict sends numbers"),
    ],
)
async def test_numbers_that_the_datatype_does_not_have_are_refused(predict, model, given, says) -> None:
    result = await predict("-", "--model", model, stdin=given)
    assert (result.exit_code, result.output) == (2, f"error: {says}\n")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.npy", b"", "the file is empty"),
        ("several.npz", None, "an archive of arrays; expected one array, as numpy.save writes it"),
        ("several.npy", None, "an archive of arrays; expected one array, as numpy.save writes it"),
        ("noise.bin", b"\xff\xfe\x00", "expected text, one example a line, or an array in a file that ends in .npy"),
        ("folder.csv", ..., "Is a directory"),
    ],
)
async def test_a_file_that_is_none_is_named_once_with_what_it_is(predict, tmp_path, name, content, says) -> None:
    path = tmp_path / name
    if content is None:
        with path.open("wb") as file:
            np.savez(file, a=np.zeros(40), b=np.ones(40))
    elif content is ...:
        path.mkdir()
    else:
        path.write_bytes(content)
    result = await predict(path)
    assert (result.exit_code, result.output.replace("\n", "")) == (2, f"error: {path}: {says}")
