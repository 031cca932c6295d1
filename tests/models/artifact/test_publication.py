"""All of a version or nothing, whatever happens to the publisher."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from models.artifact.artifact import Artifact
from models.artifact.goldens import Golden
from models.artifact.publication import (
    STALE_AFTER_S,
    is_being_published,
    model_names,
    publish,
    replace_file,
    version_directory,
    versions,
)
from models.errors import ArtifactError, PublicationError
from tests.conftest import affine_model, goldens_for, publish_affine


def load_all(repository: Path, name: str) -> list[int]:
    """Every visible version loads, as what it says it is."""
    found = versions(repository / name)
    for version in found:
        artifact = Artifact.load(repository / name / str(version))
        assert artifact.manifest.version == version
        assert len(artifact.goldens) == 3
    return found


def tree(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


class TestVersions:
    def test_the_first_is_1_and_every_other_the_next(self, repository):
        assert [publish_affine(repository) for _ in range(3)] == [repository / "affine" / name for name in "123"]
        assert load_all(repository, "affine") == [1, 2, 3]

    def test_models_are_numbered_apart_and_the_repository_need_not_exist(self, repository):
        root = repository / "deep" / "er"
        assert publish_affine(root, "a").name == "1"
        assert publish_affine(root, "b").name == "1"
        assert model_names(root) == ["a", "b"]

    @pytest.mark.parametrize(
        ("directories", "files", "seen", "following"),
        [
            (["1", "5"], [], [1, 5], "6"),
            (["9", "10"], [], [9, 10], "11"),
            (["01", "0", "-1", "+7", "1.0", "8a", " 9", "tmp", ".publishing-x", "\u0662"], [], [], "1"),
            (["2"], ["5"], [2], "6"),
            ([], ["1"], [], "2"),
            (["999999999999999998"], [], [999999999999999998], "999999999999999999"),
            (["1000000000000000000"], [], [], "1"),
        ],
        ids=["gap", "by number", "foreign", "file", "only a file", "last", "too long"],
    )
    def test_only_plain_numbers_count_and_no_number_is_used_twice(
        self, repository, directories, files, seen, following
    ):
        model = repository / "affine"
        model.mkdir()
        for name in directories:
            (model / name).mkdir()
        for name in files:
            (model / name).write_text("a note")
        assert versions(model) == seen
        assert publish_affine(repository).name == following
        assert versions(model) == sorted([*seen, int(following)])

    def test_a_link_to_nowhere_keeps_its_number(self, repository):
        (repository / "affine").mkdir()
        (repository / "affine" / "1").symlink_to("gone")
        assert publish_affine(repository).name == "2"

    def test_a_number_that_readers_would_not_see_is_not_given(self, repository):
        (repository / "affine" / ("9" * 18)).mkdir(parents=True)
        with pytest.raises(PublicationError, match=r"the version after 9{18} has too many digits"):
            publish_affine(repository)
        assert tree(repository) == ["affine", "affine/" + "9" * 18]

    def test_what_is_not_there_has_no_versions_and_no_models(self, tmp_path):
        (tmp_path / "file").write_text("")
        for path in (tmp_path / "nowhere", tmp_path / "file"):
            assert versions(path) == []
            assert model_names(path) == []

    def test_models_are_directories_with_a_models_name(self, repository):
        for name in ("b", "A-1", "a.b_c", ".hidden", "_x", "-x", "has space", "é", "x" * 129):
            (repository / name).mkdir()
        (repository / "file").write_text("")
        assert model_names(repository) == ["A-1", "a.b_c", "b"]


class TestPublished:
    def test_it_is_what_was_given(self, repository):
        model_bytes = affine_model()
        directory = publish_affine(repository, is_independent=False)
        artifact = Artifact.load(directory)
        assert artifact.model_bytes == model_bytes
        expected = goldens_for(model_bytes)
        assert [golden.name for golden in artifact.goldens] == [golden.name for golden in expected]
        for got, golden in zip(artifact.goldens, expected, strict=True):
            assert np.array_equal(got.inputs["x"], golden.inputs["x"])
            assert np.array_equal(got.outputs["y"], golden.outputs["y"])
        assert tree(repository / "affine") == [
            "1",
            "1/manifest.json",
            "1/model.onnx",
            *(f"1/test_data_set_{n}{rest}" for n in range(3) for rest in ("", "/input_0.pb", "/output_0.pb")),
        ]

    @pytest.mark.parametrize(("umask", "for_directories", "for_files"), [(0o022, 0o755, 0o644), (0o027, 0o750, 0o640)])
    def test_others_may_read_it_as_the_umask_says(self, repository, umask, for_directories, for_files):
        before = os.umask(umask)
        try:
            directory = publish_affine(repository)
        finally:
            os.umask(before)
        for path in (directory.parent, directory, *directory.rglob("*")):
            assert path.stat().st_mode & 0o777 == (for_directories if path.is_dir() else for_files), path

    def test_every_byte_is_on_disk_before_it_is_visible(self, repository, monkeypatch):
        synced, renamed = [], []
        fsync, rename = os.fsync, Path.rename

        def record_sync(descriptor):
            synced.append(descriptor)
            fsync(descriptor)

        def record_rename(self, target):
            renamed.append((len(synced), tree(self)))
            return rename(self, target)

        monkeypatch.setattr(os, "fsync", record_sync)
        monkeypatch.setattr(Path, "rename", record_rename)
        publish_affine(repository)
        ((before, content),) = renamed
        assert before == len(content) + 1  # every file, every folder, and the version's own directory
        assert len(synced) == before + 2  # then the names: the version in the model, the model in the repository


class TestRefused:
    @pytest.mark.parametrize(
        "name",
        ["../x", "", ".", "..", ".hidden", "-x", "_x", "x" * 129, "x" * 200, "a/b", "a\\b", "a b", "a\n", "é", "/etc"],
    )
    def test_names_that_are_no_model_names(self, repository, name):
        with pytest.raises(PublicationError) as raised:
            publish_affine(repository, name)
        assert str(raised.value).startswith(f"model name: got {name!r}, expected 1 to 128 letters, digits")
        assert tree(repository.parent) == ["repository"]

    @pytest.mark.parametrize("name", ["a", "7", "mnist1d-conv", "A.b_c-9", "x" * 128])
    def test_names_that_are(self, repository, name):
        assert publish_affine(repository, name).parent.name == name

    def test_a_repository_that_is_a_file(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(PublicationError, match=rf"affine could not be published to {tmp_path}/file: "):
            publish_affine(tmp_path / "file")

    def test_a_model_that_is_a_file(self, repository):
        (repository / "affine").write_text("")
        with pytest.raises(PublicationError, match=rf"affine could not be published to {repository}: "):
            publish_affine(repository)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_repository_without_permission(self, repository):
        repository.chmod(0o500)
        with pytest.raises(
            PublicationError, match=rf"affine could not be published to {repository}: Permission denied"
        ):
            publish_affine(repository)

    def test_a_repository_on_a_read_only_disk(self, repository, monkeypatch):
        fail_on_call(monkeypatch, Path, "mkdir", 1, errno.EROFS)
        with pytest.raises(PublicationError, match=rf"affine could not be published to {repository}: Read-only file"):
            publish_affine(repository)


def fail_on_call(monkeypatch, owner, function: str, number: int, code: int) -> None:
    """Let the ``number``-th call fail, a write after half of its bytes."""
    original = getattr(owner, function)
    calls = 0

    def wrapper(self, *arguments, **settings):
        nonlocal calls
        calls += 1
        if calls != number:
            return original(self, *arguments, **settings)
        if function.startswith("write"):
            original(self, arguments[0][: len(arguments[0]) // 2], *arguments[1:], **settings)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(owner, function, wrapper)


class TestFailure:
    @pytest.fixture(params=[0, 1], ids=["first version", "second version"])
    def before(self, repository, request):
        """What lies in the repository before the failure, and must lie there after it."""
        for _ in range(request.param):
            publish_affine(repository)
        return tree(repository)

    @pytest.mark.parametrize(
        ("owner", "function", "number"),
        [
            *((Path, "write_bytes", number) for number in range(1, 8)),  # the model, three times input and output
            (Path, "write_text", 1),  # the manifest
            *((Path, "mkdir", number) for number in range(2, 6)),  # the staging directory, three goldens
            *((os, "fsync", number) for number in range(1, 13)),
            (Path, "rename", 1),
        ],
        ids=lambda value: getattr(value, "__name__", str(value)),
    )
    def test_a_full_disk_leaves_nothing(self, repository, before, owner, function, number, monkeypatch):
        with monkeypatch.context() as patch:
            fail_on_call(patch, owner, function, number, errno.ENOSPC)
            with pytest.raises(
                PublicationError, match=rf"affine could not be published to {repository}: No space left"
            ):
                publish_affine(repository)
        assert tree(repository) == before
        publish_affine(repository)
        assert load_all(repository, "affine")[-1] == len(versions(repository / "affine"))

    @pytest.mark.parametrize("error", [ValueError("no metrics"), KeyboardInterrupt(), ArtifactError("no")], ids=repr)
    def test_a_manifest_that_cannot_be_made_leaves_nothing(self, repository, before, error):
        def manifest_for(version):
            raise error

        with pytest.raises(type(error)):
            publish(repository, "affine", affine_model(), goldens_for(affine_model()), manifest_for)
        assert tree(repository) == before

    def test_metrics_that_json_does_not_have_leave_nothing(self, repository, before):
        with pytest.raises(ValueError, match="JSON"):
            publish_affine(repository, metrics={"loss": float("nan")})
        assert tree(repository) == before

    def test_a_golden_that_could_not_be_read_back_leaves_nothing(self, repository, before):
        with pytest.raises(ArtifactError, match="test_data_set_0 records no outputs"):
            publish_affine(repository, goldens=[Golden("test_data_set_0", {"x": np.ones(1)}, {})])
        assert tree(repository) == before


class TestBeside:
    """Files for people, published with the version or written later."""

    def publish(self, repository: Path, beside) -> Path:
        manifest = Artifact.load(publish_affine(repository, "other")).manifest
        model = affine_model()
        return publish(
            repository,
            "affine",
            model,
            goldens_for(model),
            lambda version: dataclasses.replace(manifest, name="affine", version=version),
            beside,
        )

    def test_they_are_given_the_manifest_of_the_version_that_they_lie_in(self, repository):
        def beside(manifest):
            return {"report.html": f"version {manifest.version}".encode(), "history.json": b"{}"}

        self.publish(repository, beside)
        second = self.publish(repository, beside)
        assert (second / "report.html").read_bytes() == b"version 2"
        assert (second / "history.json").read_bytes() == b"{}"
        assert load_all(repository, "affine") == [1, 2]

    def test_one_that_cannot_be_made_or_written_leaves_nothing(self, repository, monkeypatch):
        def failing(manifest):
            raise ArtifactError("no")

        with pytest.raises(ArtifactError, match="no"):
            self.publish(repository, failing)
        for number in range(15, 17):  # after the model and the goldens of two versions
            with monkeypatch.context() as patch:
                fail_on_call(patch, Path, "write_bytes", number, errno.ENOSPC)
                with pytest.raises(PublicationError, match="No space left"):
                    self.publish(repository, lambda _: {"history.json": b"{}", "report.html": b"12"})
        assert not (repository / "affine").exists()

    def test_one_is_replaced_as_a_whole_or_not_at_all(self, repository, monkeypatch):
        path = publish_affine(repository) / "report.html"
        replace_file(path, b"first")
        replace_file(path, b"second")
        before = tree(repository)
        with monkeypatch.context() as patch:
            fail_on_call(patch, os, "fsync", 1, errno.ENOSPC)
            with pytest.raises(PublicationError, match=r"report\.html could not be written: No space left"):
                replace_file(path, b"third")
        assert path.read_bytes() == b"second"
        assert tree(repository) == before

    def test_which_version_a_path_means(self, repository):
        with pytest.raises(ArtifactError, match=r"holds neither a model\.onnx nor versions of a model"):
            version_directory(repository)
        for _ in range(10):
            publish_affine(repository)
        assert version_directory(repository / "affine") == repository / "affine" / "10"
        assert version_directory(repository / "affine" / "9") == repository / "affine" / "9"

    def test_whether_a_first_version_is_on_its_way(self, repository):
        model = repository / "affine"
        assert not is_being_published(model)
        model.mkdir()
        assert not is_being_published(model)
        leave_staging(repository, age_s=STALE_AFTER_S + 60)
        assert not is_being_published(model)
        leave_staging(repository, age_s=STALE_AFTER_S - 60, name=".publishing-slow")
        assert is_being_published(model)
        shutil.rmtree(model)
        seen = []

        def manifest_for(version):
            seen.append(is_being_published(model))
            raise OSError

        with pytest.raises(PublicationError):
            publish(repository, "affine", affine_model(), (), manifest_for)
        assert seen == [True]
        assert not is_being_published(model)
        publish_affine(repository)
        assert is_being_published(model)


def grow_old(directory: Path, age_s: float) -> None:
    then = time.time() - age_s
    for path in (directory, *directory.rglob("*")):
        os.utime(path, (then, then))


def leave_staging(repository: Path, age_s: float, name: str = ".publishing-killed") -> Path:
    directory = repository / "affine" / name
    (directory / "test_data_set_0").mkdir(parents=True)
    (directory / "test_data_set_0" / "input_0.pb").write_bytes(b"half")
    grow_old(directory, age_s)
    return directory
