"""What happens to served versions when the directory changes. Through `Repository.refresh`, with real models."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import ModelNotFound, ModelNotReady
from service.repository.loader import Loader
from service.repository.model_version import Cause, State
from service.repository.repository import Repository
from service.repository.version_policy import VersionPolicy
from tests.conftest import affine_model, goldens_for, publish_affine, put_plain

X = {"x": np.ones((1, 3), np.float32)}


class CountingLoader(Loader):
    """Counts what is really loaded."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.loaded: list[tuple[str, int]] = []

    def load(self, name, version, directory, max_batch_size=None):
        self.loaded.append((name, version))
        return super().load(name, version, directory, max_batch_size)


class Watched:
    """A repository with its loader; looks again when asked."""

    def __init__(self, root, policy: str = "latest:1") -> None:
        self.root = root
        self.loader = CountingLoader()
        self.changes = 0
        self.repository = Repository(root, VersionPolicy.parse(policy), self.loader, on_change=self._changed)
        self.repository.load_all()

    def _changed(self) -> None:
        self.changes += 1

    def look(self, **options) -> list[tuple[str, int]]:
        """Look again; returns what was loaded for it."""
        self.loader.loaded.clear()
        self.repository.refresh(**options)
        return list(self.loader.loaded)

    def states(self, name: str = "affine") -> dict[int, str]:
        return {number: v.state.value for number, v in self.repository.models[name].versions.items()}

    def reason(self, version: int, name: str = "affine") -> str:
        return self.repository.models[name].versions[version].reason

    def answer(self, name: str = "affine", version: str = "") -> tuple[int, float]:
        """(version, what it computes for 1)."""
        found = self.repository.get(name, version)
        return found.version, float(found.runner.run(X, ["y"])[0][0, 0])


def corrupt(repository, name: str = "affine") -> None:
    publish_affine(repository, name, goldens=goldens_for(affine_model(), shift=1e-3))


def rewrite(directory, scale: float) -> None:
    """Change a plain model in place."""
    (directory / "model.onnx").write_bytes(affine_model(scale))


def test_where_nothing_has_changed_nothing_is_done(repository) -> None:
    publish_affine(repository)
    corrupt(repository)
    watched = Watched(repository)
    seen, models = watched.changes, watched.repository.models
    for _ in range(3):
        assert watched.look() == []
    assert watched.changes == seen
    assert watched.repository.models == models


def test_a_new_version_is_loaded_and_takes_over(repository) -> None:
    publish_affine(repository, scale=2)
    watched = Watched(repository)
    assert watched.answer() == (1, 3)
    publish_affine(repository, scale=5)
    assert watched.look() == [("affine", 2)]
    assert watched.answer() == (2, 6)
    assert watched.states() == {2: "READY"}
    with pytest.raises(ModelNotFound, match="version 1 is not found"):
        watched.repository.get("affine", "1")


def test_while_a_version_is_loaded_the_one_before_answers(repository, monkeypatch) -> None:
    publish_affine(repository, scale=2)
    watched = Watched(repository)
    publish_affine(repository, scale=5)
    seen = []
    load = Loader.load

    def spy(loader, *arguments):
        seen.append((watched.states(), watched.answer()))
        return load(loader, *arguments)

    monkeypatch.setattr(Loader, "load", spy)
    watched.look()
    assert seen == [({1: "READY", 2: "LOADING"}, (1, 3))]


def test_a_refused_version_changes_nothing_but_what_is_told_and_is_not_tried_again(repository) -> None:
    publish_affine(repository, scale=2)
    watched = Watched(repository)
    corrupt(repository)
    assert watched.look() == [("affine", 2)]
    assert watched.look() == []
    assert watched.answer() == (1, 3)
    assert watched.states() == {1: "READY", 2: "UNAVAILABLE"}
    assert watched.reason(2).startswith("golden mismatch")
    assert watched.look(retry=True) == [("affine", 2)]
    assert watched.states() == {1: "READY", 2: "UNAVAILABLE"}
    publish_affine(repository, scale=7)
    assert watched.look() == [("affine", 3)]
    assert watched.states() == {3: "READY"}


def test_a_refused_version_is_tried_again_once_its_files_have_changed(repository) -> None:
    directory = put_plain(repository, "affine", b"half a mod")
    watched = Watched(repository)
    assert watched.states() == {1: "UNAVAILABLE"}
    rewrite(directory, 4)
    assert watched.look() == [("affine", 1)]
    assert watched.answer() == (1, 5)


def test_a_version_changed_in_place_is_switched_or_serves_on_as_it_was(repository) -> None:
    directory = put_plain(repository, "affine", affine_model(2))
    watched = Watched(repository)
    rewrite(directory, 4)
    assert watched.look() == [("affine", 1)]
    assert watched.answer() == (1, 5)
    (directory / "model.onnx").write_bytes(b"junk")
    assert watched.look() == [("affine", 1)]
    assert watched.look() == []
    assert watched.answer() == (1, 5)
    assert "serves on from what was loaded before" in watched.reason(1)
    assert "not an ONNX model" in watched.reason(1)
    assert watched.repository.models["affine"].versions[1].cause is Cause.ARTIFACT_INVALID
    rewrite(directory, 6)
    watched.look()
    assert watched.answer() == (1, 7)
    assert watched.repository.models["affine"].versions[1].cause is Cause.UNPROVEN


def test_a_deleted_version_gives_way_to_the_next_older_one(repository, caplog) -> None:
    publish_affine(repository, scale=2)
    publish_affine(repository, scale=5)
    watched = Watched(repository)
    shutil.rmtree(repository / "affine" / "2")
    caplog.set_level("INFO", "service.repository.repository")
    assert watched.look() == [("affine", 1)]
    assert watched.answer() == (1, 3)
    assert watched.states() == {1: "READY"}
    publish_affine(repository, scale=7)
    watched.look()
    leaving = [record for record in caplog.records if record.message == "version unloading"]
    assert [(record.version, record.why) for record in leaving] == [(2, "deleted"), (1, "replaced")]


def test_deleted_means_deleted_even_if_nothing_else_can_serve(repository) -> None:
    corrupt(repository)
    publish_affine(repository)
    watched = Watched(repository)
    assert watched.answer() == (2, 3)
    shutil.rmtree(repository / "affine" / "2")
    watched.look()
    assert watched.states() == {1: "UNAVAILABLE"}
    with pytest.raises(ModelNotReady, match="golden mismatch"):
        watched.repository.get("affine")


def test_a_deleted_model_is_gone(repository) -> None:
    publish_affine(repository)
    publish_affine(repository, "other")
    watched = Watched(repository)
    shutil.rmtree(repository / "affine")
    assert watched.look() == []
    assert list(watched.repository.models) == ["other"]
    with pytest.raises(ModelNotFound):
        watched.repository.get("affine")
    publish_affine(repository)
    assert watched.look() == [("affine", 1)]


def test_a_model_without_versions_left_is_gone_too(repository, caplog) -> None:
    publish_affine(repository)
    watched = Watched(repository)
    shutil.rmtree(repository / "affine" / "1")
    for _ in range(3):
        watched.look()
    assert not watched.repository.models
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "model has no version to serve"
    ]


def test_a_publication_under_way_is_no_model_without_versions(repository, caplog) -> None:
    publish_affine(repository)
    watched = Watched(repository)
    staging = repository / "new" / ".publishing-ab"
    staging.mkdir(parents=True)
    (staging / "model.onnx").write_bytes(affine_model())
    assert watched.look() == []
    assert caplog.records == []
    staging.rename(repository / "new" / "1")
    assert watched.look() == [("new", 1)]
    abandoned = repository / "old" / ".publishing-ab"
    abandoned.mkdir(parents=True)
    os.utime(abandoned, (1e9, 1e9))
    caplog.clear()
    watched.look()
    assert [(record.message, record.model) for record in caplog.records if record.levelname == "WARNING"] == [
        ("model has no version to serve", "old")
    ]


def test_a_repository_that_cannot_be_looked_at_takes_nothing_away(repository, caplog) -> None:
    publish_affine(repository)
    watched = Watched(repository)
    hidden = repository.rename(repository.parent / "elsewhere")
    for _ in range(3):
        watched.look()
    assert watched.answer() == (1, 3)
    assert caplog.text.count("repository cannot be looked at") == 1
    hidden.rename(repository)
    publish_affine(repository, scale=4)
    watched.look()
    assert watched.answer() == (2, 5)


def test_a_model_that_cannot_be_listed_goes_on(repository, caplog, monkeypatch) -> None:
    import service.repository.renewal as module

    publish_affine(repository)
    watched = Watched(repository)

    def refuse(directory):
        raise OSError(5, "Input/output error", str(directory))

    monkeypatch.setattr(module, "versions", refuse)
    for _ in range(2):
        watched.look()
    assert watched.answer() == (1, 3)
    assert caplog.text.count("model cannot be looked at") == 1


@pytest.mark.parametrize(
    ("policy", "ready"),
    [("latest:2", [2, 4]), ("all", [1, 2, 4]), ({"specific": {"versions": [1, 3]}}, [1]), ("specific:9", [4])],
)
def test_the_models_own_policy_wins(repository, policy, ready) -> None:
    """Version 3 is corrupt. A policy whose versions are not there leaves the one that serves."""
    for scale in (1, 2):
        publish_affine(repository, scale=scale)
    corrupt(repository)
    publish_affine(repository, scale=4)
    watched = Watched(repository)
    assert list(watched.states()) == [4]
    (repository / "affine" / "model.json").write_text(json.dumps({"version_policy": policy}))
    watched.look()
    assert [v.version for v in watched.repository.models["affine"].ready] == ready
    assert str(watched.repository.policy_of("affine")) == str(VersionPolicy.from_json(policy))
    (repository / "affine" / "model.json").unlink()
    watched.look()
    assert watched.answer()[0] == 4
    assert str(watched.repository.policy_of("affine")) == "latest:1"


def test_the_models_own_batch_size_is_its_runners_and_a_change_reloads(repository) -> None:
    publish_affine(repository)
    watched = Watched(repository)
    for size in (3, 5):
        (repository / "affine" / "model.json").write_text(
            json.dumps({"max_batch_size": size, "rows_are_independent": True})
        )
        assert watched.look() == [("affine", 1)]
        assert watched.repository.get("affine").runner.max_batch_size == size
    assert watched.look() == []


def test_settings_that_cannot_be_used_set_a_model_back_and_let_it_serve_on(repository, caplog) -> None:
    publish_affine(repository, scale=2)
    watched = Watched(repository)
    file = repository / "affine" / "model.json"
    file.write_text('{"max_batch": 4}')
    publish_affine(repository, scale=5)
    for _ in range(2):
        assert watched.look() == []
    assert watched.answer() == (1, 3)
    model = watched.repository.models["affine"]
    assert (
        model.problem
        == "model.json, max_batch: unknown; known are version_policy, max_batch_size, rows_are_independent"
    )
    assert caplog.text.count("model's settings refused") == 1
    file.write_text('{"max_batch_size": 4}')
    assert watched.look() == [("affine", 2)]
    assert watched.repository.models["affine"].problem == ""


def test_with_settings_that_cannot_be_used_deleted_still_means_deleted(repository) -> None:
    publish_affine(repository, scale=2)
    publish_affine(repository, scale=5)
    watched = Watched(repository, "all")
    (repository / "affine" / "model.json").write_text("{")
    shutil.rmtree(repository / "affine" / "2")
    watched.look()
    assert watched.answer() == (1, 3)
    shutil.rmtree(repository / "affine" / "1")
    put_plain(repository, "affine", affine_model(7), 3)
    watched.look()
    assert watched.states() == {3: "UNAVAILABLE"}
    assert watched.reason(3).startswith("model.json is not JSON")


def test_settings_that_cannot_be_used_keep_a_new_model_from_being_served(repository) -> None:
    publish_affine(repository)
    file = repository / "affine" / "model.json"
    file.write_text("[]")
    watched = Watched(repository)
    version = watched.repository.models["affine"].versions[1]
    assert (version.state, version.cause) == (State.UNAVAILABLE, Cause.SETTINGS_INVALID)
    assert version.reason == "model.json: expected an object, got list"
    file.unlink()
    assert watched.look() == [("affine", 1)]
    assert watched.answer() == (1, 3)


def test_a_triton_config_is_ignored_with_one_line(repository, caplog) -> None:
    caplog.set_level("WARNING")
    publish_affine(repository)
    (repository / "affine" / "config.pbtxt").write_text("platform: 'onnxruntime_onnx'")
    watched = Watched(repository)
    watched.look()
    assert watched.answer() == (1, 3)
    assert caplog.text.count("config.pbtxt is ignored") == 1


def test_what_comes_later_is_not_required_until_it_has_been_ready(repository) -> None:
    publish_affine(repository)
    watched = Watched(repository)
    corrupt(repository, "late")
    watched.look()
    models = watched.repository.models
    assert (models["affine"].is_required, models["late"].is_required) == (True, False)
    publish_affine(repository, "late")
    watched.look()
    assert watched.repository.models["late"].is_required
    shutil.rmtree(repository / "late" / "2")
    watched.look()
    late = watched.repository.models["late"]
    assert (late.is_required, late.ready) == (True, ())


ACTIONS = st.sampled_from(["publish", "corrupt", "damage", "mend", "delete", "delete all", "policy", "bad file"])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(ACTIONS, st.integers(0, 99), st.booleans()), min_size=1, max_size=14))
def test_whatever_happens_on_disk_a_ready_version_answers_as_itself(tmp_path_factory, steps) -> None:
    """Version n computes n * x + 1. Good and bad versions come, are damaged, mended and deleted; now and then the
    server looks. Then: who is READY answers as the version it is; what is deleted is not READY; and there is a READY
    version wherever there is a sound one, or one that was loaded before it was damaged.
    """
    root = tmp_path_factory.mktemp("models")
    watched = Watched(root)
    sound: dict[int, bool] = {}
    newest, policy = 0, "latest:1"
    for action, choice, looks in steps:
        present = sorted(sound)
        chosen = present[choice % len(present)] if present else 0
        directory = root / "m" / str(chosen)
        if action in ("publish", "corrupt"):
            newest = max(present, default=0) + 1
            is_sound = action == "publish"
            rewritten = put_plain(root, "m", affine_model(newest) if is_sound else b"junk", newest)
            sound[newest] = is_sound
            os.utime(rewritten, ns=(newest, newest))
        elif action == "damage" and chosen:
            (directory / "model.onnx").write_bytes(b"damaged")
            sound[chosen] = False
        elif action == "mend" and chosen:
            rewrite(directory, chosen)
            sound[chosen] = True
        elif action == "delete" and chosen:
            shutil.rmtree(directory)
            del sound[chosen]
        elif action == "delete all":
            shutil.rmtree(root / "m", ignore_errors=True)
            sound.clear()
            policy = "latest:1"
        elif action == "policy" and present:
            policy = ("latest:1", "latest:2", "all", f"specific:{chosen}")[choice % 4]
            (root / "m" / "model.json").write_text(json.dumps({"version_policy": policy}))
        elif action == "bad file" and present:
            policy = "bad"
            (root / "m" / "model.json").write_text("{")
        if not looks:
            continue
        had_ready = {v.version for model in watched.repository.models.values() for v in model.ready}
        watched.look()
        model = watched.repository.models.get("m")
        ready = {v.version: v for v in model.ready} if model is not None else {}
        assert set(ready) <= set(sound)
        for number, version in ready.items():
            assert version.runner.run(X, ["y"])[0][0, 0] == number + 1
        assert all(
            version.runner is None
            for version in (model.versions.values() if model else ())
            if version.state is not State.READY
        )
        if policy.startswith("specific"):
            assert not sound.get(int(policy.partition(":")[2])) or policy.endswith(f":{max(ready)}")
        elif any(sound.values()) and policy != "bad":
            assert ready
            assert (
                len(ready)
                >= {"latest:1": 1, "latest:2": min(2, sum(sound.values())), "all": sum(sound.values())}[policy]
            )
            assert max(ready) >= max(number for number, is_sound in sound.items() if is_sound)
        if had_ready & set(sound):
            assert ready
    watched.look()
    assert watched.look() == []
