from __future__ import annotations

import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

import models
from service.cli import COMMANDS, main


def test_help_lists_every_command_and_the_exit_codes() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for name, (_, summary) in COMMANDS.items():
        assert f"  {name} " in result.output
        assert summary in result.output
    assert "3 a proof was" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_its_first_sentence_is_not_empty(name) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: main {name} ")
    assert len(result.output.splitlines()) > 8


@pytest.mark.parametrize(
    ("command", "default"), [("serve", "[default: 0]"), ("up", "[default: 1 where PyTorch is installed, else 0]")]
)
def test_the_help_says_how_many_training_slots_a_command_has_by_itself(command, default) -> None:
    printed = " ".join(CliRunner().invoke(main, [command, "--help"]).output.split())
    (help_,) = re.findall(r"--training-slots INTEGER (.*?) --training-queue-size", printed)
    assert help_.startswith("Training runs at a time")
    assert default in help_
    assert help_.count("default:") == 1


def test_the_version_is_that_of_the_package() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"mnist1d, version {models.__version__}\n"


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["trian"])
    assert result.exit_code == 2
    assert "No such command 'trian'" in result.output


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from service.cli import main\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
        "print(sorted({'torch', 'onnxruntime', 'onnx', 'grpc', 'numpy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
