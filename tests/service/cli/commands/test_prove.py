"""``mnist1d prove``: what is proven, what is refuted, and what cannot be proven at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from models.artifact.goldens import write_golden
from service.cli import main
from tests.conftest import affine_model, goldens_for, publish_affine, put_plain


def prove(*arguments: object):
    return CliRunner().invoke(main, ["prove", *map(str, arguments)])


def report(*arguments: object) -> tuple[int, dict]:
    """Exit code and the one JSON document on standard output."""
    result = prove(*arguments, "--json")
    (line,) = result.stdout.splitlines()
    return result.exit_code, json.loads(line)


def failed(data: dict) -> list[str]:
    return [check["name"] for check in data["checks"] if not check["passed"]]


# ---- published versions


def test_a_version_is_proven_by_its_goldens(repository):
    directory = publish_affine(repository)
    result = prove(directory)
    assert result.exit_code == 0, result.output
    assert "proven: all 7 checks passed on 11 examples" in result.stdout
    assert "goldens only" in result.stderr
    for word in ("manifest", "bit identity", "difference", "1e-06"):
        assert word in result.stdout


def test_the_latest_version_of_a_model_is_taken(repository):
    publish_affine(repository)
    publish_affine(repository, scale=3.0)
    code, data = report(repository / "affine")
    assert (code, data["path"]) == (0, str(repository / "affine" / "2"))
    assert data["passed"] is True


@pytest.mark.parametrize("options", [[], ["--replay-only"]])
def test_goldens_that_do_not_replay_refute_a_version(repository, options):
    directory = publish_affine(repository, goldens=goldens_for(affine_model(), shift=1e-3))
    result = prove(directory, *options)
    assert result.exit_code == 3
    assert "refuted: 1 of 7 checks failed; values: y at batch" in result.stdout
    assert "FAILED" in result.stdout
    code, data = report(directory, *options)
    assert (code, failed(data)) == (3, ["values"])


def test_a_file_that_is_not_what_was_proven_is_refuted(repository):
    directory = publish_affine(repository)
    (directory / "model.onnx").write_bytes(affine_model(scale=2.5))
    result = prove(directory)
    assert result.exit_code == 3
    title, verdict = result.stdout.splitlines()  # and no empty table
    assert title == f"Proof of {directory}"
    assert verdict.startswith("refuted: model.onnx is not what was proven")
    code, data = report(directory)
    assert (code, data["passed"], data["checks"]) == (3, False, [])


def test_lost_goldens_refute(repository):
    directory = publish_affine(repository)
    shutil.rmtree(directory / "test_data_set_1")
    code, data = report(directory)
    assert code == 3
    assert "missing: test_data_set_1" in data["summary"]


def test_a_damaged_manifest_leaves_nothing_to_prove(repository):
    directory = publish_affine(repository)
    (directory / "manifest.json").write_text("{")
    result = prove(directory)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: manifest.json is not JSON")


def test_a_version_without_its_model_leaves_nothing_to_prove(repository):
    directory = publish_affine(repository)
    (directory / "model.onnx").unlink()
    assert prove(directory).exit_code == 1


def test_a_directory_without_models_leaves_nothing_to_prove(tmp_path):
    result = prove(tmp_path)
    assert result.exit_code == 1
    assert "neither a model.onnx nor versions" in result.stderr
    code, data = report(tmp_path)
    assert (code, data["error"]) == (1, "ArtifactError")


def test_a_version_has_its_own_tolerance(repository):
    directory = publish_affine(repository)
    result = prove(directory, "--atol", 1)
    assert result.exit_code == 2
    assert "are for plain ONNX files" in result.stderr


@pytest.mark.needs_torch
def test_the_whole_proof_is_made_again_with_torch(published_conv):
    code, data = report(published_conv)
    assert (code, data["passed"], data["examples"]) == (0, True, 1000)
    assert "values: dense twin" in [check["name"] for check in data["checks"]]
    result = prove(published_conv.parent)
    assert result.exit_code == 0
    assert "proven: all 14 checks passed on 1000 examples" in result.stdout
    assert "in batches of 1, 2, 7, 64, 1000" in result.stdout


@pytest.mark.needs_torch
def test_replay_only_does_not_import_torch(published_conv):
    program = (
        "import sys; sys.modules['torch'] = None; from service.cli import main; "
        f"main(['prove', {str(published_conv)!r}, '--replay-only', '--json'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["examples"] == 67


# ---- any ONNX file


@pytest.fixture
def model(tmp_path):
    """A file of a user's, with goldens in a folder of their own."""
    file = tmp_path / "mine.onnx"
    file.write_bytes(affine_model())
    folder = tmp_path / "goldens"
    folder.mkdir()
    for golden in goldens_for(affine_model()):
        write_golden(folder, golden)
    return file, folder


def test_an_onnx_file_is_proven_by_goldens(model):
    file, folder = model
    code, data = report(file, "--goldens", folder)
    assert (code, data["passed"], data["examples"]) == (0, True, 11)
    assert data["tolerances"] == {"y": {"absolute": 1e-5, "relative": 1e-5}}
    code, data = report(file, "--goldens", folder / "test_data_set_0", "--goldens", folder / "test_data_set_2")
    assert (code, data["examples"]) == (0, 9)


def test_the_tolerance_decides(model):
    file, folder = model
    file.write_bytes(affine_model(offset=1.001))
    assert report(file, "--goldens", folder)[0] == 3
    assert report(file, "--goldens", folder, "--atol", 0.01)[0] == 0
    assert report(file, "--goldens", folder, "--atol", 0, "--rtol", 0)[0] == 3


def test_zero_is_a_tolerance_and_not_the_default(model):
    _, data = report(model[0], "--goldens", model[1], "--atol", 0, "--rtol", 0)
    assert data["tolerances"] == {"y": {"absolute": 0.0, "relative": 0.0}}


def test_goldens_beside_the_file_are_found(repository):
    directory = put_plain(repository, "plain", affine_model())
    for golden in goldens_for(affine_model()):
        write_golden(directory, golden)
    assert report(directory / "model.onnx")[0] == 0
    assert report(repository / "plain")[0] == 0


def test_without_goldens_there_is_no_proof(repository):
    directory = put_plain(repository, "plain", affine_model())
    result = prove(directory)
    assert result.exit_code == 1
    assert "name some with --goldens" in result.stderr
    assert report(directory)[1]["error"] == "ArtifactError"


def test_a_difference_that_is_not_finite_is_shown(model):
    file, folder = model
    file.write_bytes(affine_model(scale=float("nan")))
    result = prove(file, "--goldens", folder)
    assert result.exit_code == 3
    assert report(file, "--goldens", folder)[1]["max_absolute"] == {"y": None}


@pytest.mark.parametrize("content", [b"", b"\xff\xff", b"hello"])
def test_a_file_that_is_no_model_leaves_nothing_to_prove(model, content):
    file, folder = model
    file.write_bytes(content)
    result = prove(file, "--goldens", folder)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


def test_damaged_goldens_leave_nothing_to_prove(model):
    file, folder = model
    (folder / "test_data_set_0" / "input_0.pb").write_bytes(b"\xff")
    result = prove(file, "--goldens", folder)
    assert result.exit_code == 1
    assert "test_data_set_0/input_0.pb is not a tensor" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["no/such/path"],
        [],
        ["{file}", "--atol", "-1"],
        ["{file}", "--atol", "nan"],
        ["{file}", "--rtol", "inf"],
        ["{file}", "--goldens", "no/such/folder"],
    ],
)
def test_unusable_arguments(model, arguments):
    assert prove(*(argument.format(file=model[0]) for argument in arguments)).exit_code == 2
