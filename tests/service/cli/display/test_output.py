"""Output that cannot be written: as a process, since the streams are the process's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from service.cli.display.output import can_write, guarded
from tests.conftest import publish_affine

MNIST1D = [sys.executable, "-m", "service.cli"]
ASCII = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def shell(redirected: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command with its output redirected by a shell, as a user would."""
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirected}', "bash", *MNIST1D, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("redirected", "why"), [(">&-", "it is closed"), ("> /dev/full", "No space left on device")], ids=["closed", "full"]
)
@pytest.mark.parametrize("arguments", [["models", "{}"], ["models", "{}", "--json"], ["--help"]], ids=" ".join)
def test_a_result_that_cannot_be_written_is_a_failure_with_a_message(redirected, why, arguments, repository) -> None:
    publish_affine(repository)
    done = shell(redirected, *(argument.format(repository) for argument in arguments))
    assert (done.returncode, done.stderr) == (1, f"error: standard output: {why}\n")


@pytest.mark.parametrize("redirected", ["2>&-", "2> /dev/full"])
def test_without_standard_error_the_result_is_the_same(redirected, repository) -> None:
    publish_affine(repository)
    done = shell(redirected, "models", str(repository))
    assert done.returncode == 0
    assert "affine" in done.stdout
    assert shell(redirected, "models", "/nowhere").returncode == 2


def test_a_reader_that_leaves_is_told_of_on_standard_error(repository) -> None:
    publish_affine(repository)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*MNIST1D, "models", str(repository)], stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "error: standard output: nobody reads it any more\n")


def test_an_encoding_without_boxes_gets_plain_ones_and_json_stays_json(repository) -> None:
    publish_affine(repository, metrics={"test": {"accuracy": 0.9}, "größe": "é"})
    done = subprocess.run(
        [*MNIST1D, "models", str(repository)], capture_output=True, env=ASCII, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert b"----" in done.stdout
    done = subprocess.run(
        [*MNIST1D, "models", str(repository), "--json"], capture_output=True, env=ASCII, check=False, timeout=60
    )
    assert done.stdout.isascii()
    assert json.loads(done.stdout)[0]["metrics"]["größe"] == "é"


def test_a_signal_is_drawn_with_what_the_encoding_has() -> None:
    program = (
        "import numpy as np\nfrom service.cli.display.output import guarded\n"
        "from service.cli.commands.predict import sparkline\n"
        "with guarded(): print(sparkline(np.arange(8.0)), chr(233))"
    )
    for environment, drawn in ((ASCII, "_.,-+=*# ?"), ({**ASCII, "PYTHONIOENCODING": "utf-8"}, "▁▂▃▄▅▆▇█ é")):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, check=False)
        assert done.stdout.decode() == f"{drawn}\n", done.stderr


def test_the_streams_come_back(capsys) -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(LookupError), guarded():
        assert sys.stdout is not before[0]
        assert can_write("▁")
        sys.stdout.write("through\n")
        raise LookupError
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "through\n"
