from __future__ import annotations

import sys

import pytest

from benchmarks.comparison import environments
from benchmarks.comparison.contenders import TITLES, contenders
from benchmarks.comparison.environments import Absent


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """A machine on which nothing is installed yet."""
    for name in ("ROOT", "BUILD"):
        monkeypatch.setattr(environments, name, tmp_path)
    return tmp_path


def test_what_is_not_there_is_absent_and_the_others_are_not(nowhere) -> None:
    found, absent = contenders(["plain", "mlserver", "kserve", "echo"], install=False)
    assert [each.key for each in found] == ["plain"]
    assert absent == {
        "mlserver": ".venv-bench-mlserver is not installed; leave out --no-install",
        "kserve": ".venv-bench-kserve is not installed; leave out --no-install",
        "echo": "it is not built; leave out --no-install",
    }


def test_an_environment_is_made_once_and_again_when_its_packages_change(nowhere, monkeypatch) -> None:
    ran: list[list[str]] = []

    def run(command, timeout_s):
        ran.append(command)
        if "install" in command and "bad" in (nowhere / "odd-requirements.txt").read_text():
            raise Absent("ERROR: No matching distribution found for bad")
        (nowhere / ".venv-bench-odd" / "bin").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(environments, "_run", run)
    monkeypatch.setattr(environments, "HERE", nowhere)
    requirements = nowhere / "odd-requirements.txt"
    requirements.write_text("bad==1\n")
    for _ in range(2):
        with pytest.raises(Absent, match="No matching distribution found for bad"):
            environments.python_with("odd", install=True)
    assert len(ran) == 4
    requirements.write_text("good==1\n")
    python = environments.python_with("odd", install=True)
    assert python == nowhere / ".venv-bench-odd/bin/python"
    assert len(ran) == 6
    assert environments.python_with("odd", install=False) == python
    assert len(ran) == 6
    requirements.write_text("good==2\n")
    with pytest.raises(Absent, match="is not installed"):
        environments.python_with("odd", install=False)


def test_a_command_that_fails_says_its_last_line() -> None:
    with pytest.raises(Absent, match=r"^the reason$"):
        environments._run([sys.executable, "-c", "import sys; print('much'); sys.exit('more\\nthe reason')"], 60)
    with pytest.raises(Absent, match="nowhere-to-be-found"):
        environments._run(["nowhere-to-be-found"], 60)


def test_without_a_compiler_there_is_no_echo(nowhere, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(nowhere))
    with pytest.raises(Absent, match=r"there is no g\+\+ here"):
        environments.echo(install=True)
    with pytest.raises(Absent, match="h2load"):
        environments.h2load()


def test_our_own_servers_take_the_options_that_there_are() -> None:
    found, absent = contenders(["http2", "http2-2", "grpcio"], install=False)
    assert {each.key for each in found} | absent.keys() == {"http2", "http2-2", "grpcio"}
    assert all(each.exact and each.title == TITLES[each.key] for each in found)
    assert all("has no --" in why for why in absent.values())
