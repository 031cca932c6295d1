from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from models.training.fused import compiled as module  # noqa: E402  (after importorskip)
from models.training.fused.compiled import compiled  # noqa: E402  (after importorskip)

if TYPE_CHECKING:
    from pathlib import Path


def double(x):
    return x + x


def calls(function=double) -> tuple[int, int]:
    """(from the cache, compiled) when it is called in a new process, as far as numba can tell."""
    dispatcher = compiled(function)
    assert dispatcher(3) == 6
    return sum(dispatcher.stats.cache_hits.values()), sum(dispatcher.stats.cache_misses.values())


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def kept(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.rglob(f"*.{suffix}"))


def test_code_is_compiled_once(folder):
    assert calls() == (0, 1)
    assert len(kept(folder, "nbi")) == len(kept(folder, "nbc")) == 1
    assert calls() == (1, 0)


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"no pickle", None], ids=["empty", "foreign", "cut"])
def test_a_damaged_cache_is_passed_over_and_mended(folder, suffix, content):
    calls()
    (path,) = kept(folder, suffix)
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)

    assert calls() == (0, 1)
    assert calls() == (1, 0)


def test_code_is_stale_when_any_source_has_changed(folder, monkeypatch):
    calls()
    monkeypatch.setattr(module, "_sources_sha256", lambda: "another")

    assert calls() == (0, 1)
    assert calls() == (1, 0)


def test_where_the_first_place_cannot_be_written_to_another_is_taken(monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", "/proc/nowhere")
    dispatcher = compiled(double)

    assert dispatcher(3) == 6
    assert dispatcher.stats.cache_path is not None


def test_where_nothing_can_be_kept_code_is_compiled_each_time(monkeypatch):
    monkeypatch.setattr("numba.core.caching.CompileResultCacheImpl._locator_classes", [])
    for _ in range(2):
        dispatcher = compiled(double)
        assert dispatcher(3) == 6
        assert dispatcher.stats.cache_path is None


def test_a_directory_that_takes_nothing_any_more_is_no_failure(folder, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile._save_data", full)
    assert calls() == (0, 1)
    assert calls() == (0, 1)


def test_divisions_by_zero_are_infinities():
    @compiled
    def divide(x):
        return 1 / x

    assert divide(0.0) == np.inf
