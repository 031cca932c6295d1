"""``mnist1d runs`` against a server process whose training is a fake."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli import main
from service.cli.display.console import Exit
from tests.conftest import publish_affine
from tests.processes import serve

FAKE_SERVER = (sys.executable, str(Path(__file__).parents[2] / "training" / "fake_server.py"))


@pytest.fixture(scope="module")
def fake_server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("fake-training")
    (directory / "repository").mkdir()
    patch = pytest.MonkeyPatch()
    patch.setenv("FAKE_TEMPLATE", str(publish_affine(directory / "template")))
    with serve(directory / "repository", directory / "log", "--training-slots", "1", program=FAKE_SERVER) as server:
        yield server
    patch.undo()


@pytest.fixture
def runs(fake_server):
    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, ["runs", *words, "--server", f"127.0.0.1:{fake_server.port}"])
        assert done.exit_code == code, done.output
        return done.output

    return run


def create(runs, *words: str, name: str = "ok") -> str:
    return json.loads(runs("create", "--name", name, "--steps", "40", *words, "--json"))["name"]


def test_a_run_is_created_watched_listed_shown_and_forgotten(runs) -> None:
    printed = runs("create", "--network", "fc", "--recipe", "quick", "--name", "ok", "--seed", "4", "--watch",
                   "--set", "steps=40", "--set", "validation=500", "--gate", "serving")  # fmt: skip
    for line in ("step 40: validation accuracy 75.00%, loss 0.5000", "gate", "publish   ok version", "served", "READY"):
        assert line in printed
    listed = json.loads(runs("list", "--json", "--filter", "network = fc"))
    (run,) = listed
    assert (run["done"], run["metadata"]["state"], run["metadata"]["seed"]) == (True, "SUCCEEDED", "4")
    assert run["response"]["gate"]["met"]
    table = runs("list")
    identity = run["name"].partition("/")[2]
    assert identity in table
    assert "SUCCEEDED" in table
    assert json.loads(runs("get", identity, "--json")) == run
    assert "weights" in runs("get", identity)
    assert "forgotten" in runs("delete", identity)
    assert "NOT_FOUND" in runs("get", identity, code=Exit.FAILED)


def test_the_name_is_printed_for_scripts(runs) -> None:
    name = runs("create", "--name", "ok", "--steps", "20").splitlines()[0]
    assert name.startswith("operations/")
    lines = [json.loads(line) for line in runs("watch", name, "--json").splitlines()]
    assert [line["number"] for line in lines[:-1]] == [str(number) for number in range(1, len(lines))]
    assert lines[-2]["done"]["state"] == "SUCCEEDED"
    assert lines[-1]["response"]["model_name"] == "ok"


@pytest.mark.parametrize(
    ("name", "code", "says", "reason"),
    [
        ("refuted", Exit.REFUTED, "1 of 12 checks failed", "PROOF_FAILED"),
        ("diverges", Exit.FAILED, "training diverged", "TRAINING_DIVERGED"),
        ("not-met", Exit.FAILED, "nothing was published: compared", "GATE_NOT_MET"),
    ],
)
def test_a_run_that_fails_says_why_and_leaves_with_its_code(runs, name, code, says, reason) -> None:
    run = create(runs, name=name)
    printed = runs("watch", run, code=code)
    assert "FAILED" in printed
    assert says in printed
    for words in (("watch", run), ("create", "--name", name, "--steps", "40", "--watch")):
        *_, done, operation = map(json.loads, runs(*words, "--json", code=code).splitlines())
        assert done["done"]["state"] == operation["metadata"]["state"] == "FAILED"
        assert done["done"]["error"]["details"][0]["reason"] == operation["error"]["reason"] == reason
        assert says in operation["error"]["message"]


def test_a_run_is_cancelled(runs) -> None:
    run = create(runs, name="hangs")
    assert runs("cancel", run).startswith(f"{run}: ")
    assert "CANCELLED" in runs("watch", run, code=Exit.FAILED)
    *_, done, operation = map(json.loads, runs("watch", run, "--json", code=Exit.FAILED).splitlines())
    assert done["done"]["state"] == operation["metadata"]["state"] == operation["error"]["code"] == "CANCELLED"
    assert runs("cancel", run) == f"{run}: CANCELLED\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--gate", "serving"), "overrides.validation: got 0"),
        (("--set", "validation=500", "--gate", "absent"), "there is no absent"),
        (("--set", "steps=1", "--steps", "2"), "'--set steps=1' and '--steps 2' contradict each other"),
        (("--set", "seed=1", "--seed", "2"), "'--set seed=1' and '--seed 2' contradict each other"),
        (("--set", "network=fc", "--network", "conv"), "'--set network=fc' and '--network conv' contradict"),
        (("--set", "learning_rate=nan"), "overrides.learning_rate: got nan, must be"),
        (("--set", "colour=red"), "got 'red', no such field"),
        (("--set", "name=x"), "--recipe chooses a recipe"),
        (("--set", "augmentation=none", "--set", "augmentation.noise=1"), "cannot be set while augmentation is none"),
        (("--engine", "abacus"), "'abacus' is not one of"),
        (("--seed", str(2**70)), "seed: got"),
    ],
)
def test_what_cannot_be_is_a_usage_error_that_names_the_field(runs, words, says) -> None:
    assert says in runs("create", *words, code=Exit.USAGE)


def test_what_asks_for_no_run_is_not_told_that_its_run_cannot_be(runs) -> None:
    told = runs("list", "--filter", "colour=1", code=Exit.USAGE)
    assert told.startswith("error: filter: got 'colour=1', not understood at 'colour'")
    run = create(runs)
    told += runs("watch", run, "--from-event", "99999", code=Exit.USAGE)
    assert "\nerror: from_event: got 99999, expected 0 to " in told
    assert "cannot be as it was asked for" not in told
    assert told.count("filter: ") == told.count("from_event: ") == 1


def test_parts_of_an_augmentation_are_overrides_too(runs) -> None:
    run = create(runs, "--set", "augmentation.noise=0.5", "--recipe", "best", name="hangs")
    fields = json.loads(runs("get", run, "--json"))["metadata"]["recipe_fields"]
    assert fields["augmentation"]["noise"] == 0.5
    assert fields["augmentation"]["stretch"] == 0.15
    runs("cancel", run)
    runs("watch", run, code=Exit.FAILED)


def test_an_address_without_a_port_is_told_the_port_of_runs() -> None:
    done = CliRunner().invoke(main, ["runs", "list", "--server", "localhost"])
    assert done.exit_code == Exit.USAGE
    assert "--server: got 'localhost', expected host:port such as 127.0.0.1:8003 or [::1]:8003" in done.output


def test_where_nobody_answers_and_where_there_is_no_training_it_is_told(tmp_path) -> None:
    nobody = CliRunner().invoke(main, ["runs", "list", "--server", "127.0.0.1:1"])
    assert nobody.exit_code == Exit.UNREACHABLE
    assert "mnist1d serve --training-slots 1" in nobody.output
    (tmp_path / "repository").mkdir()
    with serve(tmp_path / "repository", tmp_path / "log") as server:
        without = CliRunner().invoke(main, ["runs", "list", "--server", f"127.0.0.1:{server.port}"])
    assert without.exit_code == Exit.FAILED
    assert "offers no training: start it with --training-slots 1" in without.output


def test_who_watches_outlives_a_restart_of_the_server_and_misses_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_TEMPLATE", str(publish_affine(tmp_path / "template")))
    repository = tmp_path / "repository"
    repository.mkdir()
    options = ("--training-slots", "1")
    with serve(repository, tmp_path / "log", *options, program=FAKE_SERVER) as server:
        address = f"127.0.0.1:{server.port}"
        created = CliRunner().invoke(main, ["runs", "create", "--name", "ok", "--steps", "400", "--server", address])
        name = created.output.splitlines()[0]
        command = [sys.executable, "-m", "service.cli", "runs", "watch", name, "--server", address, "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
            lines = [json.loads(watching.stdout.readline()) for _ in range(6)]
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
            with serve(repository, tmp_path / "log2", *options, "--port", str(server.port), program=FAKE_SERVER):
                # Not communicate, which would lose what readline has read ahead.
                rest, errors = watching.stdout.read(), watching.stderr.read()
    assert watching.returncode == 0, errors
    lines += [json.loads(line) for line in rest.splitlines()]
    assert [line["number"] for line in lines[:-1]] == [str(number) for number in range(1, len(lines))]
    assert lines[-1]["response"]["model_version"] == "1"
