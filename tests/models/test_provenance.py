from __future__ import annotations

import json
import platform
import socket
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

import models
from models import provenance


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A copy of nothing but the place where the project could be."""
    package = tmp_path / "project" / "models"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(models, "__file__", str(package / "__init__.py"))
    return package.parent


def git(directory: Path, *arguments: str) -> str:
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "-c", "commit.gpgsign=false")
    answer = subprocess.run(["git", *who, *arguments], cwd=directory, capture_output=True, text=True, check=True)
    return answer.stdout.strip()


def committed(directory: Path) -> str:
    git(directory, "init", "-q")
    git(directory, "add", ".")
    git(directory, "commit", "-q", "-m", "first")
    return git(directory, "rev-parse", "HEAD")


@pytest.fixture
def _needs_git():
    if provenance.shutil.which("git") is None:
        pytest.skip("git is not installed")


@pytest.mark.usefixtures("_needs_git")
def test_a_checkout_tells_its_commit_and_whether_models_differ_from_it(project):
    commit = committed(project)
    assert provenance.code() == {"version": models.__version__, "commit": commit, "modified": False}
    (project / "notes").write_text("not part of models")
    assert provenance.code()["modified"] is False
    (project / "models" / "__init__.py").write_text("changed = True")
    assert provenance.code() == {"version": models.__version__, "commit": commit, "modified": True}


@pytest.mark.usefixtures("_needs_git")
def test_somebody_elses_checkout_says_nothing(project):
    committed(project.parent)
    assert provenance.code() == {"version": models.__version__, "commit": None, "modified": None}


def test_without_git_there_is_no_commit(project, monkeypatch):
    monkeypatch.setattr(provenance.shutil, "which", lambda name: None)
    assert provenance.code() == {"version": models.__version__, "commit": None, "modified": None}


def test_a_git_that_fails_is_no_failure(project, monkeypatch):
    def hang(*arguments, **options):
        raise subprocess.TimeoutExpired("git", 10)

    monkeypatch.setattr(provenance.subprocess, "run", hang)
    assert provenance.code()["commit"] is None


def test_libraries_are_those_that_are_installed(monkeypatch):
    versions = provenance.libraries()
    assert versions["python"] == platform.python_version()
    assert versions["numpy"] == metadata.version("numpy")
    monkeypatch.setattr(provenance, "LIBRARIES", ("numpy", "no-such-distribution"))
    assert set(provenance.libraries()) == {"python", "numpy"}


def test_the_machine_is_a_kind_and_not_a_name():
    assert provenance.machine() == f"{platform.system()} {platform.machine()}"
    everything = json.dumps([provenance.code(), provenance.libraries(), provenance.machine()])
    for private in (socket.gethostname(), f"{Path.home()}/"):
        assert private not in everything
