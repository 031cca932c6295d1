"""The comparison as a user runs it, with short loads and what is installed everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.comparison import __main__ as comparison
from benchmarks.serving_footprint import publish_models

ROOT = Path(__file__).parents[3]


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    publish_models(folder)
    return folder


@pytest.mark.slow
def test_ours_and_the_plain_server_answer_rightly_under_every_load(repository, tmp_path) -> None:
    command = [sys.executable, "-m", "benchmarks.comparison", "--quick", "--seconds", "0.15", "--no-install"]
    command += ["--contenders", "grpcio,plain,plain-typed,null", "--loads", "ATSCD", "--repository", str(repository)]
    command += ["--model", "model-0", "--output", str(tmp_path / "results")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    told = json.loads((tmp_path / "results" / "serving_comparison.json").read_text())
    seen = {(each["contender"], each["load"]): each for each in told["measurements"]}
    ours = {(key, load) for key in ("grpcio", "plain", "plain-typed") for load in "ATSCD"}
    assert seen.keys() == ours | {("null", load) for load in "ATS"}
    for each in seen.values():
        assert (each["failed"], each["problems"]) == (0, []), each
        assert each["done"] > 0
        assert 0 < each["p50_us"] <= each["p99_us"]
    assert seen["plain", "C"]["samples_rate"] == pytest.approx(64 * seen["plain", "C"]["rate"], rel=1e-3)
    assert (told["absent"], told["run"]["wrong"]) == ({}, 0)
    assert "| ours, grpcio |" in (tmp_path / "results" / "serving_comparison.md").read_text()
    assert "<svg" in (tmp_path / "results" / "serving_comparison.svg").read_text()
    # And from the document alone again.
    again = tmp_path / "again"
    assert comparison.main(["--report", str(tmp_path / "results/serving_comparison.json"), "--output", str(again)]) == 0
    for name in ("md", "svg", "json"):
        first, second = (folder / f"serving_comparison.{name}" for folder in (tmp_path / "results", again))
        assert first.read_text() == second.read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--contenders", "plain,nobody"], "no contender is called nobody"),
        (["--loads", "AX"], "got 'AX', expected letters of ABTSCDH"),
    ],
)
def test_what_there_is_not_is_refused(arguments, says, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        comparison.main(arguments)
    assert says in capsys.readouterr().err


def test_a_repository_without_the_model_is_refused(tmp_path) -> None:
    with pytest.raises(SystemExit, match="has no version of mnist1d-conv"):
        comparison.questions(tmp_path, "mnist1d-conv")
