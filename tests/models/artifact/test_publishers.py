"""Several publishers at once, and publishers that are killed: each version is there as a whole, or not at all."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.artifact.artifact import Artifact
from models.artifact.publication import STALE_AFTER_S, model_names, publish, versions
from models.errors import PublicationError
from tests.conftest import affine_model, goldens_for, publish_affine
from tests.models.artifact.test_publication import grow_old, leave_staging, load_all

PUBLISHER = """
import os, signal, sys
from pathlib import Path

import numpy as np

from models.artifact.artifact import Manifest
from models.artifact.goldens import Golden, Tolerance
from models.artifact.publication import publish
from models.artifact.tensor_spec import TensorSpec

MODEL = b"m" * 20_000
GOLDENS = [
    Golden(f"test_data_set_{n}", {"x": np.ones((n + 1, 3), "f4")}, {"y": np.ones((n + 1, 3), "f4")}) for n in range(3)
]

def manifest_for(version):
    return Manifest.of(
        MODEL, name="m", version=version, goldens=GOLDENS, tolerances={"y": Tolerance()}, tolerance_rationale="exact",
        inputs=(TensorSpec("x", "FP32", ("batch", 3)),), outputs=(TensorSpec("y", "FP32", ("batch", 3)),),
    )

def publish_once():
    return publish(Path(sys.argv[1]), "m", MODEL, GOLDENS, manifest_for)
"""

KILLED_ANYWHERE = """
# One child for each line on stdin; the parent kills it.
for _ in sys.stdin:
    parent = os.getpid()
    child = os.fork()
    if not child:
        while os.getppid() == parent:
            publish_once()
        os._exit(1)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""

KILLED_AT_EVERY_STEP = """
# Child n kills itself before its n-th step that touches the file system, until one lives to the end.
STEPS = {"open", "os.mkdir", "os.rename", "os.listdir", "os.scandir", "os.remove", "os.rmdir", "shutil.rmtree"}

def die_before(step):
    left = step
    def hook(event, arguments):
        nonlocal left
        if event in STEPS:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

for step in range(1, 1000):
    child = os.fork()
    if not child:
        die_before(step)
        publish_once()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(step, flush=True)
    sys.stdin.readline()  # the parent has looked
    if not os.WIFSIGNALED(status):
        sys.exit(os.waitstatus_to_exitcode(status))
"""

MANY = """
print("ready", flush=True)
sys.stdin.readline()
for _ in range(10):
    print(publish_once().name, flush=True)
"""


def script(code: str, repository: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PUBLISHER + code, str(repository)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        cwd=Path(__file__).parents[3],
    )


def tell(process: subprocess.Popen) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


class TestSeveralPublishers:
    def test_the_loser_of_a_race_takes_the_next_number(self, repository):
        asked = []
        template = Artifact.load(publish_affine(repository, "template")).manifest

        def manifest_for(version):
            asked.append(version)
            if len(asked) <= 2:
                publish_affine(repository)  # another publisher takes the number at the last moment
            return dataclasses.replace(template, name="affine", version=version)

        directory = publish(repository, "affine", affine_model(), goldens_for(affine_model()), manifest_for)
        assert (directory.name, asked) == ("3", [1, 2, 3])
        assert load_all(repository, "affine") == [1, 2, 3]

    def test_a_model_directory_that_another_publisher_removes_is_made_again(self, repository, monkeypatch):
        mkdir = Path.mkdir
        removals = 0

        def unlucky(self, *arguments, **settings):
            nonlocal removals
            if self.name.startswith(".publishing-") and removals < 2:
                removals += 1
                self.parent.rmdir()
            mkdir(self, *arguments, **settings)

        monkeypatch.setattr(Path, "mkdir", unlucky)
        assert publish_affine(repository).name == "1"
        assert removals == 2

    def test_two_processes_get_two_numbers_each_time(self, repository):
        with script(MANY, repository) as first, script(MANY, repository) as second:
            for publisher in (first, second):
                assert publisher.stdout.readline() == "ready\n"
            for publisher in (first, second):
                tell(publisher)
            numbers = [int(line) for publisher in (first, second) for line in publisher.stdout]
        assert (first.returncode, second.returncode) == (0, 0)
        assert sorted(numbers) == list(range(1, 21))
        assert load_all(repository, "m") == list(range(1, 21))


class TestKilled:
    def test_before_any_step(self, repository):
        visible = []
        with script(KILLED_AT_EVERY_STEP, repository) as process:
            for _ in process.stdout:
                visible.append(load_all(repository, "m"))
                # Each publisher starts afresh, as the first.
                shutil.rmtree(repository / "m", ignore_errors=True)
                tell(process)
        assert process.returncode == 0
        assert len(visible) > 20
        assert visible[0] == []
        assert visible[-1] == [1]
        assert visible == sorted(visible)  # not visible up to the rename, and whole ever after

    def test_at_any_moment_while_others_read(self, repository):
        moment = random.Random(0)
        with script(KILLED_ANYWHERE, repository) as process:
            for _ in range(25):
                tell(process)
                child = int(process.stdout.readline())
                until = time.monotonic() + moment.uniform(0, 0.04)
                try:
                    while time.monotonic() < until:
                        load_newest(repository)
                finally:
                    os.kill(child, signal.SIGKILL)
                assert process.stdout.readline() == "dead\n"
        assert process.returncode == 0
        found = load_all(repository, "m")
        assert found == list(range(1, len(found) + 1))
        assert model_names(repository) == ["m"]

    def test_what_a_killed_publisher_left_is_swept_by_the_next(self, repository):
        left = leave_staging(repository, age_s=STALE_AFTER_S + 1)
        fresh = leave_staging(repository, age_s=STALE_AFTER_S - 60, name=".publishing-fresh")
        assert versions(repository / "affine") == []
        assert publish_affine(repository, is_independent=False).name == "1"
        assert not left.exists()
        assert fresh.exists()
        assert sorted(path.name for path in (repository / "affine").iterdir()) == [".publishing-fresh", "1"]

    def test_it_is_renamed_before_it_is_removed(self, repository, monkeypatch):
        # Were it removed under its own name, a publisher that lives after all could rename what is left of it.
        left = leave_staging(repository, age_s=STALE_AFTER_S + 1)
        removed = []
        rmtree = shutil.rmtree

        def record(path, **settings):
            removed.append(path)
            assert not left.exists()
            rmtree(path, **settings)

        monkeypatch.setattr(shutil, "rmtree", record)
        publish_affine(repository)
        assert len(removed) == 2  # what was left, and this publisher's own, which has another name by then
        assert left not in removed

    def test_what_is_still_being_written_to_is_not_swept(self, repository):
        left = leave_staging(repository, age_s=STALE_AFTER_S + 1)
        os.utime(left / "test_data_set_0" / "input_0.pb")
        publish_affine(repository)
        assert left.exists()

    def test_a_publisher_that_slept_too_long_publishes_nothing(self, repository):
        def manifest_for(version):
            (staging,) = (repository / "affine").glob(".publishing-*")
            grow_old(staging, STALE_AFTER_S + 1)
            publish_affine(repository, is_independent=False)
            return Artifact.load(repository / "affine" / "1").manifest

        with pytest.raises(PublicationError, match="No such file or directory"):
            publish(repository, "affine", affine_model(), goldens_for(affine_model()), manifest_for)
        assert load_all(repository, "affine") == [1]
        assert [path.name for path in (repository / "affine").iterdir()] == ["1"]


def load_newest(repository: Path) -> None:
    found = versions(repository / "m")
    if found:
        Artifact.load(repository / "m" / str(found[-1]))
