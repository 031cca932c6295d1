"""The three control modes, without a transport."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time

import pytest

from models.artifact.publication import replace_file
from service.errors import ControlNotAllowed, InvalidRequest, LoadFailed, LoadRefused, ServerStopping
from service.repository.control import RepositoryControl
from service.repository.control_mode import Mode, start_names
from service.repository.load_parameters import LoadParameters
from service.repository.loader import Loader
from service.repository.repository import Repository
from service.repository.version_policy import VersionPolicy
from tests.conftest import affine_model, goldens_for, publish_affine, put_plain

HANG_S = 60.0
NOTHING = LoadParameters()


class Controlled:
    """``async with``: a repository under control."""

    def __init__(self, root, mode: Mode, load_at_start: str = "", *, poll_s: float = 0.01) -> None:
        self.repository = Repository(root, VersionPolicy(), Loader())
        self.control = RepositoryControl(self.repository, mode, poll_s=poll_s, load_at_start=load_at_start)

    async def __aenter__(self) -> Controlled:
        await self.control.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.control.stop()
        await self.control.wait_until_stopped(HANG_S)

    def served(self) -> dict[str, list[int]]:
        return {name: [v.version for v in model.ready] for name, model in self.repository.models.items()}

    async def until(self, expected: dict[str, list[int]]) -> None:
        until = time.monotonic() + HANG_S
        while self.served() != expected:
            assert time.monotonic() < until, self.served()
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("mode", "load_at_start", "served"),
    [
        (Mode.NONE, "", {"a": [1], "b": [1]}),
        (Mode.POLL, "", {"a": [1], "b": [1]}),
        (Mode.EXPLICIT, "", {}),
        (Mode.EXPLICIT, "b", {"b": [1]}),
        (Mode.EXPLICIT, " a, b ", {"a": [1], "b": [1]}),
        (Mode.EXPLICIT, "*", {"a": [1], "b": [1]}),
        (Mode.EXPLICIT, "b,nope", {"b": [1], "nope": []}),
        (Mode.EXPLICIT, "../a", {"../a": []}),
    ],
)
async def test_what_each_mode_begins_with(repository, mode, load_at_start, served) -> None:
    publish_affine(repository, "a")
    publish_affine(repository, "b")
    async with Controlled(repository, mode, load_at_start) as under:
        assert under.repository.is_loaded
        assert under.served() == served
        assert all(model.is_required for model in under.repository.models.values())


async def test_a_model_to_begin_with_that_is_not_there_is_missed_until_it_is_loaded(repository) -> None:
    async with Controlled(repository, Mode.EXPLICIT, "late") as under:
        assert "failed to poll from model repository" in under.repository.models["late"].problem
        publish_affine(repository, "late")
        await under.control.load("late", NOTHING)
        assert under.served() == {"late": [1]}
        assert under.repository.models["late"].problem == ""


async def test_polling_notices_what_comes_changes_and_goes(repository) -> None:
    async with Controlled(repository, Mode.POLL) as under:
        assert under.served() == {}
        publish_affine(repository, "a")
        await under.until({"a": [1]})
        publish_affine(repository, "a")
        publish_affine(repository, "b")
        await under.until({"a": [2], "b": [1]})
        shutil.rmtree(repository / "b")
        await under.until({"a": [2]})


async def test_what_is_written_beside_a_version_for_people_is_no_change_of_it(repository) -> None:
    directory = publish_affine(repository, "a")
    async with Controlled(repository, Mode.NONE) as controlled:
        (before,) = controlled.repository.models["a"].ready
        for _ in range(2):
            replace_file(directory / "report.html", b"<p>a lesson</p>")
            (directory / "history.json").write_text("{")
            await controlled.control.rescan()
            assert controlled.repository.models["a"].ready[0] is before
        # the control: what belongs to it is noticed
        (directory / "test_data_set_3").mkdir()
        await controlled.control.rescan()
        assert controlled.repository.models["a"].ready[0] is not before


async def test_a_poll_that_fails_is_not_the_last_one(repository, monkeypatch, caplog) -> None:
    async with Controlled(repository, Mode.POLL) as under:
        failed = asyncio.Event()
        loop = asyncio.get_running_loop()
        refresh = Repository.refresh

        def fail(self, **options) -> None:
            loop.call_soon_threadsafe(failed.set)
            raise ZeroDivisionError

        monkeypatch.setattr(Repository, "refresh", fail)
        await asyncio.wait_for(failed.wait(), HANG_S)
        monkeypatch.setattr(Repository, "refresh", refresh)
        publish_affine(repository)
        await under.until({"affine": [1]})
    assert "the repository could not be looked at" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("mode", [Mode.NONE, Mode.EXPLICIT])
async def test_only_polling_looks_again_by_itself(repository, mode) -> None:
    publish_affine(repository)
    async with Controlled(repository, mode, "*" if mode is Mode.EXPLICIT else "") as under:
        publish_affine(repository)
        await asyncio.sleep(0.1)
        assert under.served() == {"affine": [1]}


async def test_a_rescan_looks_at_once_and_tries_again_what_was_refused(repository) -> None:
    publish_affine(repository)
    async with Controlled(repository, Mode.NONE) as under:
        publish_affine(repository)
        await under.control.rescan()
        assert under.served() == {"affine": [2]}


async def test_in_explicit_mode_requests_alone_decide(repository, caplog) -> None:
    publish_affine(repository)
    async with Controlled(repository, Mode.EXPLICIT) as under:
        await under.control.rescan()
        assert under.served() == {}
    assert "no rescan" in caplog.text


@pytest.mark.parametrize("mode", [Mode.NONE, Mode.POLL])
async def test_without_explicit_mode_no_request_decides(repository, mode) -> None:
    publish_affine(repository)
    text = "explicit model load / unload is not allowed if polling is enabled"
    async with Controlled(repository, mode) as under:
        with pytest.raises(ControlNotAllowed, match=text):
            await under.control.load("affine", NOTHING)
        with pytest.raises(ControlNotAllowed, match=text):
            await under.control.unload("affine")
        assert under.served() == {"affine": [1]}


async def test_load_reload_unload_and_load_again(repository) -> None:
    publish_affine(repository)
    async with Controlled(repository, Mode.EXPLICIT) as under:
        await under.control.load("affine", NOTHING)
        assert under.served() == {"affine": [1]}
        runner = under.repository.get("affine").runner
        await under.control.load("affine", NOTHING)
        assert under.repository.get("affine").runner is runner  # nothing has changed, nothing is loaded
        publish_affine(repository)
        await under.control.load("affine", NOTHING)
        assert under.served() == {"affine": [2]}
        await under.control.unload("affine")
        await under.control.unload("affine")
        assert under.served() == {"affine": []}
        assert under.repository.models["affine"].is_unloaded
        assert not under.repository.models["affine"].is_required
        assert not under.repository.is_ready("affine")
        assert not under.repository.is_ready("affine", "2")
        await under.control.load("affine", NOTHING)
        assert under.served() == {"affine": [2]}


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("nope", LoadFailed, "failed to load 'nope', failed to poll from model repository"),
        ("empty", LoadFailed, "failed to load 'empty', no version is available"),
        ("junk", LoadFailed, "failed to load 'junk', no version is available: version 1: the file is not an ONNX"),
        ("off", LoadRefused, "failed to load 'off', no version is available: version 1: golden mismatch"),
        ("settings", LoadFailed, "failed to load 'settings', model.json is not JSON"),
        (
            "specific",
            LoadFailed,
            "failed to load 'specific', no version 7 is there, which the policy specific:7 asks for",
        ),
        ("", InvalidRequest, "model name: got ''"),
        ("../affine", InvalidRequest, "model name: got '../affine'"),
        ("a/b", InvalidRequest, "model name: got 'a/b'"),
    ],
)
async def test_what_cannot_be_loaded_says_why(repository, name, error, says) -> None:
    (repository / "empty").mkdir()
    put_plain(repository, "junk", b"junk")
    publish_affine(repository, "off", goldens=goldens_for(affine_model(), shift=1e-3))
    publish_affine(repository, "settings")
    (repository / "settings" / "model.json").write_text("{")
    publish_affine(repository, "specific")
    (repository / "specific" / "model.json").write_text('{"version_policy": "specific:7"}')
    async with Controlled(repository, Mode.EXPLICIT) as under:
        with pytest.raises(error) as refused:
            await under.control.load(name, NOTHING)
        assert says in str(refused.value)
        assert not any(under.served().values())
        assert not any(model.is_required for model in under.repository.models.values())


async def test_after_a_refused_reload_the_version_before_goes_on_and_the_answer_says_so(repository) -> None:
    publish_affine(repository)
    async with Controlled(repository, Mode.EXPLICIT, "affine") as under:
        publish_affine(repository, goldens=goldens_for(affine_model(), shift=1e-3))
        for _ in range(2):
            with pytest.raises(LoadRefused, match=r"version 2: golden mismatch: .*; version 1 goes on serving"):
                await under.control.load("affine", NOTHING)
        assert under.served() == {"affine": [1]}
        shutil.rmtree(repository / "affine")
        with pytest.raises(LoadFailed, match="failed to poll"):
            await under.control.load("affine", NOTHING)
        assert under.served() == {"affine": [1]}


async def test_files_of_a_request_are_served_until_the_next_load_without_them(repository, tmp_path) -> None:
    from service.pb.open_inference_pb2 import RepositoryModelLoadRequest

    publish_affine(repository)
    request = RepositoryModelLoadRequest()
    request.parameters[
        "config"
    ].string_param = '{"max_batch_size": 3, "parameters": {"rows_are_independent": {"string_value": "true"}}}'
    request.parameters["file:7/model.onnx"].bytes_param = affine_model(9)
    async with Controlled(repository, Mode.EXPLICIT) as under:
        for name in ("affine", "from-nowhere"):
            await under.control.load(name, LoadParameters.parse(name, request.parameters))
            found = under.repository.get(name)
            assert (found.version, found.runner.max_batch_size, found.is_proven) == (7, 3, False)
        await under.control.load("affine", NOTHING)
        assert under.served() == {"affine": [1], "from-nowhere": [7]}
        assert under.repository.get("affine").runner.max_batch_size == 4096
        with pytest.raises(LoadFailed, match="failed to poll"):
            await under.control.load("from-nowhere", NOTHING)
        assert under.served()["from-nowhere"] == [7]
    assert sorted(path.name for path in repository.iterdir()) == ["affine"]


async def test_a_config_alone_replaces_the_models_settings_until_the_next_load(repository) -> None:
    from service.pb.open_inference_pb2 import RepositoryModelLoadRequest

    for _ in range(3):
        publish_affine(repository)
    request = RepositoryModelLoadRequest()
    request.parameters["config"].string_param = '{"versionPolicy": {"specific": {"versions": ["1", "3"]}}}'
    async with Controlled(repository, Mode.EXPLICIT) as under:
        await under.control.load("affine", LoadParameters.parse("affine", request.parameters))
        assert under.served() == {"affine": [1, 3]}
        await under.control.load("affine", NOTHING)
        assert under.served() == {"affine": [3]}


async def test_requests_at_the_same_time_are_done_one_after_the_other(repository) -> None:
    publish_affine(repository, "a")
    publish_affine(repository, "b")
    async with Controlled(repository, Mode.EXPLICIT) as under:
        for _ in range(5):
            await asyncio.gather(
                *(under.control.load(name, NOTHING) for name in "abab"), *(under.control.unload("b") for _ in range(2))
            )
            assert under.served()["a"] == [1]
            assert under.served()["b"] in ([], [1])


async def test_a_stop_waits_for_the_version_being_loaded_and_begins_no_other(repository, monkeypatch) -> None:
    publish_affine(repository, "a")
    publish_affine(repository, "b")
    entered, go_on = threading.Event(), threading.Event()
    loaded = []
    load = Loader.load

    def slow(loader, name, *arguments):
        loaded.append(name)
        entered.set()
        assert go_on.wait(HANG_S)
        return load(loader, name, *arguments)

    under = Controlled(repository, Mode.EXPLICIT)
    await under.control.start()
    monkeypatch.setattr(Loader, "load", slow)
    loads = [asyncio.ensure_future(under.control.load(name, NOTHING)) for name in "ab"]
    assert await asyncio.to_thread(entered.wait, HANG_S)
    under.control.stop()
    with pytest.raises(ServerStopping):
        await under.control.load("a", NOTHING)
    go_on.set()
    await under.control.wait_until_stopped(HANG_S)
    results = await asyncio.gather(*loads, return_exceptions=True)
    assert results[0] is None
    assert isinstance(results[1], ServerStopping)
    assert loaded == ["a"]


def test_names_to_begin_with() -> None:
    assert start_names("") == []
    assert start_names(" a,b ,") == ["a", "b"]
    assert start_names("*") == ["*"]
    with pytest.raises(ValueError, match="alone"):
        start_names("*,a")
