from __future__ import annotations

import errno
import os

import pytest

from models.artifact.writable import why_not_writable


def test_what_can_be_written_is_left_as_it_was(tmp_path):
    assert why_not_writable(tmp_path) is None
    assert why_not_writable(tmp_path / "to" / "be" / "made") is None
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_directory_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        assert why_not_writable(tmp_path / name / "below") == f"{tmp_path / name} is not a directory"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_what_the_system_refuses_is_told_in_its_words(number, tmp_path, monkeypatch):
    def refuse(path, mode):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "mkdir", refuse)
    assert why_not_writable(tmp_path / "new") == f"nothing can be made in {tmp_path}: {os.strerror(number)}"
