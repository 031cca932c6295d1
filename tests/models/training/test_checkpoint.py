from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from models.errors import CheckpointError
from models.training import checkpoint as checkpoints
from models.training.checkpoint import Checkpoint

RECIPE = {"name": "best", "steps": 10, "learning_rate": 0.1, "augmentation": None}
DATA = {"train_x": "aa", "test_x": "bb"}


@pytest.fixture
def checkpoint() -> Checkpoint:
    arrays = {"weights": np.linspace(0, 1, 7, dtype=np.float32), "optimiser_mean": np.zeros(7, np.float32)}
    return Checkpoint(5, RECIPE, DATA, arrays, {"best": {"loss": None}, "history": [{"loss": 0.1 + 0.2}]}, "fused")


def test_everything_comes_back_bit_for_bit(tmp_path, checkpoint):
    path = checkpoints.save(checkpoint, tmp_path / "new" / "directory")
    loaded = checkpoints.load(tmp_path / "new" / "directory")

    assert path == checkpoints.path_in(tmp_path / "new" / "directory")
    assert (loaded.step, loaded.recipe, loaded.data_sha256) == (5, RECIPE, DATA)
    assert loaded.engine == "fused"
    assert loaded.progress == checkpoint.progress
    assert set(loaded.arrays) == set(checkpoint.arrays)
    for name, array in checkpoint.arrays.items():
        assert loaded.arrays[name].dtype == array.dtype
        assert np.array_equal(loaded.arrays[name], array)


def test_saving_replaces_the_older_one_and_leaves_nothing_else(tmp_path, checkpoint):
    checkpoints.save(checkpoint, tmp_path)
    checkpoints.save(Checkpoint(6, RECIPE, DATA, checkpoint.arrays), tmp_path)

    assert checkpoints.load(tmp_path).step == 6
    assert [path.name for path in tmp_path.iterdir()] == [checkpoints.FILE_NAME]


def test_a_crash_while_writing_leaves_the_older_one(tmp_path, checkpoint, monkeypatch):
    checkpoints.save(checkpoint, tmp_path)

    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        checkpoints.save(Checkpoint(6, RECIPE, DATA, checkpoint.arrays), tmp_path)

    assert checkpoints.load(tmp_path).step == 5
    assert [path.name for path in tmp_path.iterdir()] == [checkpoints.FILE_NAME]


def test_where_none_could_be_written_is_told_before_and_when_it_is_tried(tmp_path, checkpoint):
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / checkpoints.FILE_NAME).mkdir(parents=True)
    for directory in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "taken", Path("/proc/x")):
        with pytest.raises(CheckpointError, match="no checkpoint could be kept in"):
            checkpoints.check_writable(directory)
        with pytest.raises(CheckpointError, match="cannot write checkpoint"):
            checkpoints.save(checkpoint, directory)


def test_asking_whether_one_could_be_written_leaves_nothing_behind(tmp_path):
    checkpoints.check_writable(tmp_path)
    checkpoints.check_writable(tmp_path / "new" / "directory")
    assert list(tmp_path.iterdir()) == []


def test_no_checkpoint_is_an_expected_failure(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        checkpoints.load(tmp_path / "nowhere")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_called_damaged(tmp_path, checkpoint, keep):
    path = checkpoints.save(checkpoint, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])

    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.load(tmp_path)


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path, checkpoint):
    path = checkpoints.save(checkpoint, tmp_path)
    content = path.read_bytes()
    damaged = 0
    for position in range(0, len(content), 7):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1 :])
        try:
            loaded = checkpoints.load(tmp_path)
        except CheckpointError:
            damaged += 1
        else:  # a field of the zip container that nobody reads, such as a time stamp
            assert loaded.recipe == checkpoint.recipe
            assert all(np.array_equal(loaded.arrays[name], array) for name, array in checkpoint.arrays.items())

    assert damaged > 20


def _rewrite(path, change) -> None:
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays.pop("header").tobytes())
    change(header, arrays)
    header_bytes = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, header=header_bytes, **arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header, arrays: arrays["weights"].__setitem__(0, 9), "arrays do not have the recorded hash"),
        (lambda header, arrays: arrays.pop("weights"), "arrays do not have the recorded hash"),
        (lambda header, arrays: header.pop("step"), "header cannot be read"),
        (lambda header, arrays: header.update(format=99), "format 99, this version reads up to 2"),
    ],
)
def test_contents_that_do_not_fit_are_refused(tmp_path, checkpoint, change, message):
    _rewrite(checkpoints.save(checkpoint, tmp_path), change)

    with pytest.raises(CheckpointError, match=message):
        checkpoints.load(tmp_path)


def test_the_first_format_knew_torch_only(tmp_path, checkpoint):
    def as_it_was(header, arrays) -> None:
        header.update(format=1)
        del header["engine"]

    _rewrite(checkpoints.save(checkpoint, tmp_path), as_it_was)

    assert checkpoints.load(tmp_path).engine == "torch"


def test_nothing_is_ever_unpickled(tmp_path):
    np.savez(checkpoints.path_in(tmp_path), header=np.array([{"format": 1}], dtype=object))

    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.load(tmp_path)


def test_another_kind_of_file_is_called_damaged(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(checkpoints.path_in(tmp_path))
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.load(tmp_path)
    checkpoints.path_in(tmp_path).unlink()
    checkpoints.path_in(tmp_path).mkdir()
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        checkpoints.load(tmp_path)


def test_a_checkpoint_of_the_same_run_belongs(checkpoint):
    assert checkpoints.check_belongs(checkpoint, dict(RECIPE), dict(DATA)) is None


@pytest.mark.parametrize(
    ("recipe", "data", "message"),
    [
        ({**RECIPE, "steps": 20}, DATA, "made with steps = 10, this run has 20"),
        ({**RECIPE, "novel": 1}, DATA, "made with novel = None, this run has 1"),
        ({key: value for key, value in RECIPE.items() if key != "steps"}, DATA, "made with steps = 10"),
        (RECIPE, {**DATA, "test_x": "cc"}, "other data: test_x has sha256 bb, here cc"),
    ],
)
def test_what_differs_from_this_run_is_named(checkpoint, recipe, data, message):
    with pytest.raises(CheckpointError, match=message):
        checkpoints.check_belongs(checkpoint, recipe, data)
