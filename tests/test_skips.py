from __future__ import annotations

from tests.skips import table

pytest_plugins = ["pytester"]

QUIETLY = ("-p", "no:asyncio")  # which warns of a setting that the run has not


def test_equal_reasons_are_counted_by_suite() -> None:
    text = "make test\tno browser here\nmake test-containers\tno engine\nmake test\tno browser here\n"
    assert table(text) == [
        "    2  make test             no browser here",
        "    1  make test-containers  no engine",
    ]
    assert table("") == ["nothing"]


def test_runs_add_up_and_the_last_one_prints(pytester, monkeypatch) -> None:
    monkeypatch.setenv("MNIST1D_SKIPS", str(pytester.path / "skips"))
    pytester.makeconftest('pytest_plugins = ["tests.skips"]')
    pytester.makepyfile("import pytest\n\ndef test_it():\n    pytest.skip('the moon is full')\n")
    monkeypatch.setenv("MNIST1D_SUITE", "first")
    assert "skipped in all suites" not in pytester.runpytest_inprocess(*QUIETLY, "-n", "1").stdout.str()
    monkeypatch.setenv("MNIST1D_SUITE", "second")
    monkeypatch.setenv("MNIST1D_SKIPS_TABLE", "1")
    last = pytester.runpytest_inprocess(*QUIETLY)
    last.stdout.fnmatch_lines(
        ["*skipped in all suites*", "    1  first   the moon is full", "    1  second  the moon is full"]
    )
    assert "skipped in" in last.stdout.lines[-1]
