from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner

from service.cli.commands.report import command
from tests.conftest import affine_model, put_plain
from tests.models.report.subjects import publish_random


def invoke(*arguments: object):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_the_report_of_the_latest_version_lies_in_its_directory(repository) -> None:
    publish_random(repository, "conv")
    latest = publish_random(repository, "conv", seed=1)
    result = invoke(repository / "mnist1d-conv")
    assert result.exit_code == 0, result.output
    assert "mnist1d-conv version 2: " in result.output
    assert "no published version of its counterpart fc" in result.output
    assert "<h1>mnist1d-conv, version 2</h1>" in (latest / "report.html").read_text()
    assert sorted(path.name for path in latest.iterdir()) == [
        "history.json", "manifest.json", "model.onnx", "report.html"
    ]  # fmt: skip


def test_a_version_of_before_there_were_reports_and_a_file_of_ones_own(repository, tmp_path) -> None:
    publish_random(repository, "fc")
    old = publish_random(repository, "conv", kept=False)
    target = tmp_path / "lesson.html"
    result = invoke(old, "--output", target, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output) == {
        "path": str(target),
        "name": "mnist1d-conv",
        "version": 1,
        "counterpart": {
            "name": "mnist1d-fc",
            "version": 1,
            "why": "the only one by the same recipe and number of steps",
        },
    }
    assert "The convolutional one kept no history" in target.read_text()
    assert not (old / "report.html").exists()


def test_a_path_relative_to_the_repository_is_understood(repository, monkeypatch) -> None:
    publish_random(repository, "fc")
    directory = publish_random(repository, "conv")
    monkeypatch.chdir(directory)
    assert "beside mnist1d-fc version 1" in invoke(".").output


def test_the_counterpart_can_be_chosen(repository) -> None:
    for _ in range(2):
        publish_random(repository, "fc")
    directory = publish_random(repository, "conv")
    assert "beside mnist1d-fc version 2: the newest of 2 by the same recipe and number of steps" in (
        invoke(directory).output
    )
    assert "beside mnist1d-fc version 1: as it was asked for" in (invoke(directory, "--beside", "mnist1d-fc/1").output)
    assert "Beside it is mnist1d-fc version 1, as it was asked for." in (directory / "report.html").read_text()
    refused = invoke(directory, "--beside", "mnist1d-conv", "--json")
    assert refused.exit_code == 1
    assert "a conv, expected a version of fc" in json.loads(refused.output.splitlines()[0])["message"]


def test_what_cannot_be_reported_on_is_told(repository) -> None:
    plain = put_plain(repository, "plain", affine_model())
    result = invoke(plain)
    assert result.exit_code == 1
    assert "has no manifest" in result.output
    (repository / "empty").mkdir()
    failed = invoke(repository / "empty", "--json")
    assert failed.exit_code == 1
    assert json.loads(failed.output.splitlines()[0])["error"] == "ArtifactError"
    assert invoke(repository / "nowhere").exit_code == 2


def test_a_file_that_cannot_be_written_leaves_the_old_report(repository, monkeypatch) -> None:
    directory = publish_random(repository, "conv")
    (directory / "report.html").write_text("the old one")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = invoke(directory)
    assert result.exit_code == 1
    assert "report.html could not be written: No space left on device" in result.output
    assert (directory / "report.html").read_text() == "the old one"
    assert not [path for path in directory.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("output", ["nowhere/report.html"])
def test_a_folder_that_is_not_there_is_told(output, repository, tmp_path) -> None:
    publish_random(repository, "conv")
    result = invoke(repository / "mnist1d-conv", "--output", tmp_path / output)
    assert result.exit_code == 1
    assert "could not be written: No such file or directory" in result.output
