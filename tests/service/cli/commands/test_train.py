"""``mnist1d train``: what it prints, where it publishes, and its exit codes."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli import main

pytestmark = pytest.mark.needs_torch
pytest.importorskip("torch")

from models import pipeline  # noqa: E402
from models.artifact.artifact import Artifact  # noqa: E402
from models.training import interruption  # noqa: E402  (torch may be missing)
from models.training.checkpoint import path_in  # noqa: E402

TINY = ("--recipe", "quick", "--steps", "60", "--set", "warmup_steps=5")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def quick_export(published_conv, monkeypatch):
    """The file of another run in place of an export: saves a second, and the proof must fail."""
    model_bytes = (published_conv / "model.onnx").read_bytes()
    monkeypatch.setattr(pipeline, "export", lambda network, **_: model_bytes)


def train(*arguments: object):
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


def stop_after(questions: int, monkeypatch) -> None:
    """As if Ctrl-C came before that step."""

    @contextlib.contextmanager
    def interruptible():
        asked = iter(range(10**9))
        yield lambda: next(asked) >= questions

    monkeypatch.setattr(interruption, "interruptible", interruptible)


def test_a_run_for_people(tmp_path):
    result = train(*TINY, "--seed", 3)
    assert result.exit_code == 0, result.output
    assert "mnist1d-conv version 1" in result.stdout
    for word in (
        "2,050 parameters",
        "test accuracy",
        "all 12 checks passed on 1000 examples",
        "allowed 0.0001 + 1e-06",
    ):
        assert word in result.stdout
    for word in (
        "loading PyTorch ...",
        "load      PyTorch is loaded",
        "prepare   engine ",
        "training conv with recipe quick, 60 steps",
        "step 60: test accuracy",
        "publish   mnist1d-conv version 1",
    ):
        assert word in result.stderr
    artifact = Artifact.load(tmp_path / "repository" / "mnist1d-conv" / "1")
    assert artifact.manifest.provenance["recipe"]["seed"] == 3
    assert path_in(tmp_path / "runs" / "conv-quick-seed3").is_file()


@pytest.mark.slow
def test_a_run_for_programs_and_one_that_is_quiet(tmp_path):
    result = train(*TINY, "--network", "fc", "--repository", "models", "--name", "baseline", "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    stages = [line["stage"] for line in lines if line["event"] == "stage_started"]
    assert lines[0] == {"event": "stage_started", "stage": "load"}
    assert stages == ["load", "data", "train", "prepare", "evaluate", "export", "prove", "publish"]
    assert {"started", "evaluated", "finished", "stage_finished", "checkpoint_saved"} <= {
        line["event"] for line in lines
    }
    assert lines[-1]["event"] == "result"
    assert lines[-1]["path"] == "models/baseline/1"
    assert lines[-1]["parity"]["passed"] is True
    assert (tmp_path / "models" / "baseline" / "1" / "model.onnx").is_file()

    quiet = train(*TINY, "--network", "fc", "--repository", "models", "--name", "baseline", "--quiet")
    assert quiet.exit_code == 0
    assert quiet.stderr == ""
    assert "baseline version 2" in quiet.stdout


def test_quiet_for_programs_is_one_line_whatever_comes_of_it(monkeypatch):
    (line,) = train(*TINY, "--quiet", "--json").stdout.splitlines()
    assert json.loads(line)["event"] == "result"
    stop_after(0, monkeypatch)
    (line,) = train(*TINY, "--quiet", "--json").stdout.splitlines()
    assert json.loads(line)["event"] == "failed"


@pytest.mark.slow
def test_a_run_whose_listener_leaves_stops_with_a_checkpoint_and_says_so(tmp_path):
    command = [sys.executable, "-m", "service.cli", "train", "--recipe", "best", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        while '"progress"' not in running.stdout.readline():
            assert running.poll() is None
        running.stdout.close()
        said = running.stderr.read()
    assert running.returncode == 1
    assert said.startswith("error: standard output: nobody reads it any more; training stopped after step ")
    assert "go on with: mnist1d train" in said
    assert path_in(tmp_path / "runs" / "conv-best-seed0").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "stepz=3"], "recipe field 'stepz'"),
        (["--set", "steps"], "must be written field=value"),
        (["--set", "steps=many"], "recipe field 'steps': got 'many'"),
        (["--steps", "0"], "recipe field 'steps': got 0, must be between 1"),
        (["--seed", "-1"], "recipe field 'seed'"),
        (["--set", "early_stopping_patience=3"], "must be 0 unless validation is above 0"),
        (["--set", "network=resnet"], "recipe field 'network': got 'resnet', must be one of conv, fc"),
        (["--set", "validation=4000", "--quiet"], "recipe field 'validation'"),
        (["--network", "resnet"], "'resnet' is not one of"),
        (["--recipe", "perfect"], "'perfect' is not one of"),
        (["--steps", "20", "--set", "steps=-1"], "'--set steps=-1' and '--steps 20' contradict each other"),
        (["--set", "learning_rate=nan"], "'learning_rate': got nan, must be above 0"),
        (
            ["--recipe", "quick", "--steps", "200", "--set", "warmup_steps=500"],
            "'warmup_steps': got 500, must be at least 0 and below 200, the steps",
        ),
        (["--set", "steps=20", "--set", "steps=21"], "'--set steps=20' and '--set steps=21' contradict each other"),
        (["--seed", "1", "--set", "seed=2"], "'--set seed=2' and '--seed 1' contradict each other"),
        (["--set", "network=fc", "--network", "conv"], "'--set network=fc' and '--network conv' contradict"),
        (
            ["--set", "name=foo"],
            "recipe field 'name': got 'foo', cannot be set: --recipe chooses a recipe",
        ),
        (["--network", "fc", "--lowering", "conv"], "--lowering conv: the network fc has no convolution layers"),
        (["--engine", "jax"], "'jax' is not one of 'auto', 'fused', 'torch'"),
        (["--lowering", "winograd"], "'winograd' is not one of 'gemm', 'conv'"),
        (["--name", "a/b"], "error: model name: got 'a/b', expected 1 to 128 letters"),
        (["--name", ""], "error: model name: got ''"),
    ],
)
def test_an_unusable_recipe_is_a_usage_error(arguments, message, tmp_path):
    result = train(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_field_may_be_given_twice_where_both_mean_the_same(monkeypatch):
    stop_after(0, monkeypatch)
    for arguments in (["--set", "steps=6e1"], ["--set", "network=conv", "--network", "conv"]):
        assert "training stopped after step 0" in train(*TINY, *arguments).stderr
    assert "training fc" in train(*TINY, "--set", "network=fc").stderr


def test_a_lowering_from_the_environment_is_for_whatever_is_trained(monkeypatch):
    monkeypatch.setenv("MNIST1D_TRAIN_LOWERING", "conv")
    stop_after(0, monkeypatch)
    assert "training stopped after step 0" in train(*TINY, "--network", "fc").stderr


@pytest.mark.parametrize("option", ["--checkpoint-dir", "--repository"])
def test_a_directory_that_cannot_be_written_is_noticed_before_training(option):
    result = train(*TINY, option, "/proc/x")
    assert result.exit_code == 1
    assert "nothing can be made in /proc: " in result.stderr
    assert "training conv" not in result.stderr


def test_a_checkpoint_directory_that_may_not_be_entered_is_no_traceback(monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    stop_after(0, monkeypatch)
    monkeypatch.setattr(Path, "exists", refuse)
    assert "training stopped" in train(*TINY).stderr


def test_nothing_to_resume():
    result = train(*TINY, "--resume")
    assert result.exit_code == 1
    assert "there is no checkpoint at runs/conv-quick-seed0" in result.stderr


def test_a_run_that_diverges_fails_and_publishes_nothing(tmp_path):
    result = train(*TINY, "--set", "optimiser=sgd", "--set", "learning_rate=1e6", "--json")
    assert result.exit_code == 1
    last = json.loads(result.stdout.splitlines()[-1])
    assert (last["event"], last["error"]) == ("failed", "TrainingDiverged")
    assert not (tmp_path / "repository").exists()


@pytest.mark.usefixtures("quick_export")
def test_a_refuted_proof_shows_the_report_and_publishes_nothing(tmp_path):
    result = train(*TINY)
    assert result.exit_code == 3
    assert "Proof of the exported model" in result.stderr
    assert "FAILED" in result.stderr
    assert "nothing was published" in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "repository").exists()

    as_json = train(*TINY, "--json")
    assert as_json.exit_code == 3
    last = json.loads(as_json.stdout.splitlines()[-1])
    assert (last["event"], last["error"], last["parity"]["passed"]) == ("failed", "ProofFailed", False)


def test_ctrl_c_leaves_a_checkpoint_and_the_command_that_goes_on(tmp_path, monkeypatch):
    arguments = [*TINY, "--set", "learning_rate=0.02", "--name", "my-net", "--repository", "a folder"]
    arguments += ["--lowering", "conv", "--engine", "torch"]
    with monkeypatch.context() as patch:
        stop_after(25, patch)
        stopped = train(*arguments)
    assert stopped.exit_code == 130
    assert "training stopped after step 25: checkpoint left at" in stopped.stderr.replace("\n", " ")
    assert not (tmp_path / "a folder").exists()

    (line,) = (line for line in stopped.stderr.splitlines() if line.startswith("go on with: "))
    program, *again = shlex.split(line.removeprefix("go on with: "))
    assert program == "mnist1d"
    resumed = CliRunner().invoke(main, [*again, "--json"])
    assert resumed.exit_code == 0, resumed.output
    lines = [json.loads(line) for line in resumed.stdout.splitlines()]
    (started,) = (line for line in lines if line["event"] == "started")
    assert started["start_step"] == 25
    assert lines[-1]["path"] == "a folder/my-net/1"
    origin = Artifact.load(Path(lines[-1]["path"])).manifest.provenance
    assert (origin["lowering"], origin["engine"]) == ("conv", "torch")

    straight = train(*arguments, "--json", "--checkpoint-dir", "another")
    assert json.loads(straight.stdout.splitlines()[-1])["weights_sha256"] == lines[-1]["weights_sha256"]


@pytest.mark.slow
def test_the_fused_engine_is_stopped_and_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    with monkeypatch.context() as patch:
        stop_after(1, patch)
        stopped = train(*TINY)
    assert "training stopped after step 1: checkpoint left at" in stopped.stderr.replace("\n", " ")  # the curve's first
    refused = train(*TINY, "--resume", "--engine", "torch")
    assert refused.exit_code == 1
    assert "the checkpoint was made by the engine fused, this run uses torch" in refused.stderr.replace("\n", " ")

    resumed = json.loads(train(*TINY, "--resume", "--json").stdout.splitlines()[-1])
    straight = json.loads(train(*TINY, "--json", "--checkpoint-dir", "another").stdout.splitlines()[-1])
    assert resumed["weights_sha256"] == straight["weights_sha256"]
    assert Artifact.load(Path(resumed["path"])).manifest.provenance["engine"] == "fused"


def test_ctrl_c_tells_programs_how_to_go_on(monkeypatch):
    stop_after(0, monkeypatch)
    result = train(*TINY, "--json")
    assert result.exit_code == 130
    last = json.loads(result.stdout.splitlines()[-1])
    assert (last["event"], last["error"]) == ("failed", "TrainingInterrupted")
    assert last["resume_with"].endswith("--checkpoint-dir runs/conv-quick-seed0 --resume")


def test_a_second_ctrl_c_stops_at_once(monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", interrupted)
    result = train(*TINY)
    assert result.exit_code == 130
    assert "stopped at once" in result.stderr


def test_an_old_checkpoint_is_not_replaced_unannounced(monkeypatch):
    stop_after(0, monkeypatch)
    assert "will be replaced" not in train(*TINY).stderr
    assert "the checkpoint in runs/conv-quick-seed0 will be replaced" in train(*TINY).stderr
    assert "will be replaced" not in train(*TINY, "--resume").stderr


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("library", ["torch", "onnxscript"])
def test_what_is_not_installed_is_noticed_before_training(library):
    done = run_python(f"import sys; sys.modules['{library}'] = None; from service.cli import main; main(['train'])")
    assert done.returncode == 1
    loading, error = done.stderr.splitlines()
    assert loading == "  loading PyTorch ..."
    assert error.startswith(f"error: training needs {library}, which is not installed: pip install")


def test_help_lists_the_fields_and_does_not_import_torch():
    done = run_python(
        "import sys\nfrom service.cli import main\n"
        "try: main(['train', '--help'])\n"
        "finally: print('torch' in sys.modules or 'onnxruntime' in sys.modules)"
    )
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith("False")
    for word in ("conv25", "lecture", "augmentation.noise", "warmup_steps", "2,050 parameters"):
        assert word in " ".join(done.stdout.split())
