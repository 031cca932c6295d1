from __future__ import annotations

import json

from click.testing import CliRunner

from service.cli.models import command
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
