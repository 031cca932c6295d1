from __future__ import annotations

import json

from click.testing import CliRunner

from service.cli.commands.models import command
from service.cli.display import console
from service.runtime.row_independence import UNKNOWN
from tests.conftest import affine_model, publish_affine, put_plain

PROVENANCE = {
    "network": {"name": "conv", "parameters": 2050},
    "recipe": {"name": "quick", "seed": 3},
}


def invoke(*arguments: object):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_the_table_tells_versions_accuracy_proof_and_recipe(repository) -> None:
    publish_affine(repository, "proven", metrics={"test": {"accuracy": 0.9561}}, provenance=PROVENANCE)
    put_plain(repository, "plain", affine_model())
    damaged = publish_affine(repository, "damaged")
    (damaged / "manifest.json").write_text("{")
    result = invoke(repository)
    assert result.exit_code == 0
    rows = {line.split()[0]: line for line in result.output.splitlines() if line.strip()}
    for expected in ("1", "95.6 %", "2,050", "3 goldens", "quick, seed 3", "2026-01-01"):
        assert expected in rows["proven"]
    assert "none" in rows["plain"]
    assert "manifest.json is not JSON" in rows["damaged"]


def test_json_has_everything_for_programs(repository) -> None:
    publish_affine(repository, "proven", metrics={"test": {"accuracy": 0.9561}}, provenance=PROVENANCE)
    publish_affine(repository, "proven")
    put_plain(repository, "plain", affine_model())
    result = invoke(repository, "--json")
    entries = json.loads(result.output)
    assert [(entry["model"], entry["version"], entry["proof"]) for entry in entries] == [
        ("plain", 1, "none"),
        ("proven", 1, "3 goldens"),
        ("proven", 2, "3 goldens"),
    ]
    assert entries[1]["provenance"] == PROVENANCE
    assert entries[1]["test_accuracy"] == 0.9561
    assert entries[1]["inputs"] == ["x FP32[batch, 3]"]


def test_it_tells_whose_requests_are_batched_and_why_others_are_not(repository) -> None:
    claims = {"network": {"name": "conv", "parameters": 2050}}
    publish_affine(repository, "claims", provenance=claims)
    (repository / "claims" / "model.json").unlink()
    publish_affine(repository, "declared")
    put_plain(repository, "foreign", affine_model())
    put_plain(repository, "stranger", affine_model())
    put_plain(repository, "alone", affine_model())
    (repository / "alone" / "model.json").write_text('{"rows_are_independent": false}')
    put_plain(repository, "odd", affine_model())
    (repository / "odd" / "model.json").write_text('{"rows_are_independent": 1}')
    batching = {entry["model"]: entry.get("batching") for entry in json.loads(invoke(repository, "--json").output)}
    assert batching["claims"] == batching["foreign"] == UNKNOWN._asdict()
    assert batching["declared"] == {
        "is_known": True,
        "reason": "declared by the operator: rows_are_independent is true",
    }
    assert batching["odd"] is None
    printed = " ".join(invoke(repository).output.split())
    assert "may be batched: declared version 1: declared by the operator: rows_are_independent is true" in printed
    assert (
        "not batched: claims version 1, foreign version 1, stranger version 1: it is not known whether its rows"
        in printed
    )
    assert "not batched: alone version 1: declared by the operator: rows_are_independent is false" in printed
    assert "odd version 1: model.json, rows_are_independent: got 1, expected true or false" in printed


def test_an_empty_repository_says_what_to_do(repository) -> None:
    result = invoke(repository)
    assert result.exit_code == 0
    assert "`mnist1d train` publishes one" in result.output
    assert json.loads(invoke(repository, "--json").output) == []


def test_no_repository_is_a_usage_error(tmp_path) -> None:
    result = invoke(tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "is no directory" in result.output


def test_provenance_of_another_shape_is_no_obstacle(repository) -> None:
    publish_affine(repository, "odd", provenance={"network": "conv", "recipe": ["quick"]}, metrics={"test": 0.9})
    result = invoke(repository)
    assert result.exit_code == 0
    assert "odd" in result.output


def broken(repository):
    """A repository with everything that can be wrong with a folder in it, and one model that is fine."""
    publish_affine(repository, "fine")
    (publish_affine(repository, "missing") / "model.onnx").unlink()
    put_plain(repository, "plain", affine_model()).joinpath("model.onnx").unlink()
    directory = publish_affine(repository, "directory")
    (directory / "model.onnx").unlink()
    (directory / "model.onnx").mkdir()
    truncated = publish_affine(repository, "truncated") / "model.onnx"
    truncated.write_bytes(truncated.read_bytes()[:-1])
    other = publish_affine(repository, "other") / "model.onnx"
    other.write_bytes(other.read_bytes()[:-1] + b"!")
    (repository / "empty" / "v1").mkdir(parents=True)
    (repository / "my model" / "1").mkdir(parents=True)
    (repository / "[red]\n").mkdir()
    (repository / ".git").mkdir()
    (repository / "README").write_text("")


def test_what_is_wrong_with_a_folder_is_told_below_the_table_and_harms_no_other(repository) -> None:
    broken(repository)
    result = invoke(repository)
    assert result.exit_code == 0, result.output
    table, _, problems = result.output.partition("\n'[red]")
    assert "3 goldens" in table
    assert all(len(line.rstrip()) < 110 for line in table.splitlines())
    told = ("\n'[red]" + problems).strip().splitlines()
    size = (repository / "fine" / "1" / "model.onnx").stat().st_size
    for line, expected in zip(
        told,
        (
            "'[red]\\n': ignored: model name: got '[red]\\n', expected 1 to 128 letters,",
            "directory version 1: model.onnx is a directory",
            "empty: no version; a server looks for empty/1/model.onnx",
            "missing version 1: model.onnx is missing",
            "my model: ignored: model name: got 'my model', expected 1 to 128 letters,",
            "other version 1: model.onnx is not what was proven: sha256 is ",
            "plain version 1: model.onnx is missing",
            f"truncated version 1: model.onnx has {size - 1} bytes, the manifest says {size}",
        ),
        strict=True,
    ):
        assert line.startswith(expected)


def test_problems_are_for_programs_too(repository) -> None:
    broken(repository)
    entries = {entry["model"]: entry for entry in json.loads(invoke(repository, "--json").output)}
    assert entries["fine"]["problem"] is None
    assert (entries["my model"]["version"], entries["my model"]["proof"]) == (None, "ignored")
    assert (entries["truncated"]["version"], entries["truncated"]["proof"]) == (1, "damaged")
    assert entries["truncated"]["sha256"] == entries["fine"]["sha256"]


def test_a_model_that_cannot_be_read_is_one_row(repository, lock) -> None:
    publish_affine(repository, "fine")
    publish_affine(repository, "locked")
    lock("locked")
    result = invoke(repository)
    assert result.exit_code == 0
    assert "locked: cannot be read: Permission denied" in result.output
    assert "3 goldens" in result.output


def test_a_narrow_terminal_gets_no_recipe_and_a_narrower_one_a_block_for_each_version(repository, monkeypatch) -> None:
    publish_affine(repository, "a-model-with-a-name", metrics={"test": {"accuracy": 0.9561}}, provenance=PROVENANCE)
    monkeypatch.setattr(console, "_PIPE_COLUMNS", 80)
    row = next(line for line in invoke(repository).output.splitlines() if "a-model-with-a-name" in line)
    assert len(row) <= 80
    for whole in ("a-model-with-a-name  1 ", "95.6 %", "2,050", "3 goldens", "2026-01-01"):
        assert whole in row
    assert "quick" not in row
    monkeypatch.setattr(console, "_PIPE_COLUMNS", 40)
    block = invoke(repository).output
    for pair in (["accuracy", "95.6", "%"], ["recipe", "quick,", "seed", "3"], ["published", "2026-01-01"]):
        assert pair in [line.split() for line in block.splitlines()]
