"""``mnist1d sweep``: what it runs, what it shows, and its exit codes. Trials are real but for a few steps."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from models.errors import TrainingDiverged
from models.sweeps import processes
from models.sweeps.outcome import TrialFailure
from models.sweeps.sweep import SweepOutcome
from models.sweeps.trial import Trial
from models.training.recipes import recipe
from service.cli import main
from service.cli.commands import sweep as sweep_module
from service.cli.display import console

pytestmark = pytest.mark.needs_torch
pytest.importorskip("torch")


ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def here(monkeypatch):
    """Trials run in this process, which has torch already; those with a learning rate of 99 fail."""
    began = []

    class Here:
        def __init__(self, count):
            self.count = count

        def __call__(self, trials, *, on_progress, stop):
            from models.sweeps.running import run_trial

            for trial in trials:
                began.append(trial)
                if trial.recipe.learning_rate == 99:
                    yield TrialFailure(trial, "TrainingDiverged", str(TrainingDiverged(7, 99)))
                else:
                    yield run_trial(trial)

    monkeypatch.setattr(processes, "Processes", Here)
    return began


def sweep(*arguments: object):
    return CliRunner().invoke(main, ["sweep", "--recipe", "quick", "--steps", "20", *map(str, arguments)])


def test_a_sweep_for_people_adds_what_is_missing(here, tmp_path):
    result = sweep("--network", "conv", "--network", "fc", "--seeds", "0-1", "--plot", "picture.svg")
    assert result.exit_code == 0, result.output
    assert "4 trials to run" in result.stderr
    assert "fc quick steps=20 seed 1: test " in result.stderr
    assert "the test set is only reported" in result.stderr
    for word in ("Accuracy over seeds", "59,065", "95 % interval", "quick steps=20"):
        assert word in result.stdout
    assert "validation" not in result.stdout
    assert (tmp_path / "picture.svg").read_text().startswith("<svg ")
    files = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert files == sorted(Trial(recipe("quick", network=network, steps=20, seed=seed)).file_name
                           for network in ("conv", "fc") for seed in (0, 1))  # fmt: skip

    again = sweep("--network", "conv", "--network", "fc", "--seeds", "0-2")
    assert "2 trials to run, 4 more are there already" in again.stderr
    assert len(here) == 6


def test_a_sweep_for_programs(here):
    result = sweep("--grid", "learning_rate=0.01,99", "--seeds", "3", "--set", "validation=100", "--json")
    assert result.exit_code == 1
    started, done, failed, last = map(json.loads, result.stdout.splitlines())
    assert started == {"event": "started", "missing": 2, "present": 0}
    assert done["event"] == "finished"
    assert set(done["accuracy"]) == {"train", "validation", "test"}
    assert failed["error"] == "TrainingDiverged"
    assert last["cells"][0]["recipe"] == "quick steps=20 validation=100"
    assert last["cells"][0]["accuracy"]["test"]["interval"] is None
    assert (last["trials"], last["added"], last["present"], last["stopped"]) == (2, 1, 0, False)
    assert last["failed"][0]["file"] == failed["file"]
    assert f"1 of 2 trials failed, see results/failed: {failed['file']}" in result.stderr
    assert Path("results", "failed", failed["file"]).is_file()

    quiet = sweep("--grid", "learning_rate=0.01,99", "--seeds", "3", "--set", "validation=100", "--json", "--quiet")
    (line,) = quiet.stdout.splitlines()
    assert json.loads(line)["present"] == 1
    assert len(here) == 3


def test_the_recipe_that_is_best_on_held_out_examples_has_a_star(here):
    result = sweep("--grid", "learning_rate=0.0001,0.01", "--seeds", "0", "--set", "validation=500", "--markdown")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("| network | parameters | recipe | seeds | test % |")
    assert len(lines) == 4
    figures = {line.split(" | ")[2]: line.split(" | ")[8] for line in lines[2:]}
    (starred,) = [name for name, figure in figures.items() if figure.endswith(" *")]
    best = max(figures, key=lambda name: float(figures[name].removesuffix(" *")))
    assert starred == best


def test_what_a_folder_holds_is_shown_without_running_anything(here):
    Path("results").mkdir()
    nothing = sweep("--show")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "there are no results" in nothing.stderr
    sweep("--network", "fc", "--seeds", "5")
    shown = sweep("--show", "--json")
    (cell,) = json.loads(shown.stdout)["cells"]
    assert (cell["network"], cell["seeds"]) == ("fc", [5])
    assert len(here) == 1


def test_on_a_narrow_terminal_the_table_has_fewer_columns_and_says_which(here, monkeypatch):
    sweep("--grid", "learning_rate=0.001,0.01", "--seeds", "0-1", "--set", "validation=100")
    monkeypatch.setattr(console, "_PIPE_COLUMNS", 80)
    result = sweep("--show")
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    assert {"network", "recipe", "interval", "validation", "steps=20", "learning_rate=0.001"} < set(
        result.stdout.split()
    )
    assert "left out on this narrow terminal: range, parameters, train %" in result.stderr
    assert "parameters" not in result.stdout
    assert "left out" not in sweep("--show", "--markdown").stderr


def test_an_engine_can_be_asked_for(here):
    assert sweep("--seeds", "0").exit_code == 0
    result = sweep("--seeds", "0", "--engine", "torch", "--json", "--quiet")
    assert [trial.engine for trial in here] == ["auto", "torch"]
    assert json.loads(result.stdout)["cells"][0]["recipe"] == "quick steps=20 engine=torch"


def test_shards_share_the_trials(here, monkeypatch):
    assert sweep("--seeds", "0-2", "--shard", "0/2").exit_code == 0
    assert [trial.recipe.seed for trial in here] == [0, 2]
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert sweep("--seeds", "0-2", "--shard", "job/2").exit_code == 0
    assert [trial.recipe.seed for trial in here] == [0, 2, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "x"], "seeds: got 'x', must be numbers and ranges"),
        (["--grid", "stepz=3"], "recipe field 'stepz'"),
        (["--grid", "steps=3,4"], "grid: steps is set to 20 for all trials already"),
        (["--grid", "seed=3,4"], "seed cannot be overridden or in a grid: the sweep has a list of seeds"),
        (["--set", "network=fc"], "network cannot be overridden"),
        (["--set", "steps=30"], "'--set steps=30' and '--steps 20' contradict each other"),
        (["--shard", "2/2"], "shard: got 2/2"),
        (["--shard", "job/2"], "JOB_COMPLETION_INDEX is not set"),
        (["--show"], "--out results: there is no such folder"),
        (["--show", "--out", "mistyped", "--json"], "--out mistyped: there is no such folder"),
        (["--jobs", "0"], "0 is not in the range"),
        (["--markdown", "--json"], "exclude each other"),
    ],
)
def test_what_cannot_be_swept_is_a_usage_error(here, arguments, message, tmp_path):
    result = sweep(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert here == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_used_is_an_error(here, tmp_path):
    Path("file").write_text("")
    result = sweep("--out", "file/below")
    assert result.exit_code == 1
    assert "error: file/below/conv-seed0-" in result.stderr
    assert "Not a directory" in result.stderr
    assert here == []
    assert sweep("--seeds", "0", "--plot", "nowhere/picture.svg").exit_code == 1


def test_the_pods_of_the_kubernetes_job_share_the_trials_of_its_command(here, monkeypatch):
    yaml = pytest.importorskip("yaml")
    documents = yaml.safe_load_all((ROOT / "deploy/kubernetes/sweep-job.yaml").read_text())
    (job,) = [document["spec"] for document in documents if document["kind"] == "Job"]
    assert job["completionMode"] == "Indexed"
    (container,) = job["template"]["spec"]["containers"]
    command = [word for word in container["args"] if not word.startswith("--out")]
    ran = []

    def run(asked, *_, **__):
        ran.extend(asked)
        return SweepOutcome((), {}, 0, (), stopped=False)

    monkeypatch.setattr(sweep_module, "_run", run)
    for index in range(job["completions"]):
        monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
        assert CliRunner().invoke(main, command).exit_code == 0
    assert len(ran) == len({trial.digest for trial in ran}) == 2 * 2 * 10


def test_ctrl_c_leaves_what_is_done_and_says_how_to_go_on(tmp_path):
    command = [sys.executable, "-m", "service.cli", "sweep", "--recipe", "lecture", "--jobs", "1", "--seeds", "0"]
    command += ["--grid", "steps=30,90000000", "--set", "evaluate_every=0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert "2 trials to run" in running.stderr.readline()
        assert "seed 0: test " in running.stderr.readline()
        running.send_signal(signal.SIGINT)
        output, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "error: stopped with 1 of 2 trials to do; the same command goes on" in errors
    assert "lecture steps=30 evaluate_every=0" in output
    assert [path.name for path in (tmp_path / "results").iterdir()] == [
        Trial(recipe("lecture", steps=30, evaluate_every=0)).file_name
    ]
