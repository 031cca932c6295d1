from __future__ import annotations

import io
import json
import logging

import pytest

from service import logs


@pytest.fixture(autouse=True)
def _restored():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def written(*, as_json: bool, level: str = "info") -> list[str]:
    stream = io.StringIO()
    logs.set_up(level, as_json=as_json, stream=stream)
    log = logging.getLogger("test.logs")
    log.debug("quiet")
    log.info("model ready", extra={"model": "affine", "took_ms": 1.5})
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("it broke\nin two lines")
    return stream.getvalue().splitlines()


def test_json_is_one_object_a_line_with_the_fields_of_the_record() -> None:
    first, second = (json.loads(line) for line in written(as_json=True))
    assert {key: first[key] for key in ("level", "logger", "message", "model", "took_ms")} == {
        "level": "info",
        "logger": "test.logs",
        "message": "model ready",
        "model": "affine",
        "took_ms": 1.5,
    }
    assert second["message"] == "it broke\nin two lines"
    assert "ValueError: why" in second["traceback"]


def test_text_has_the_fields_behind_the_message() -> None:
    lines = written(as_json=False)
    assert lines[0].endswith("INFO    model ready  model=affine took_ms=1.5")
    assert lines[-1] == "ValueError: why"


def test_the_level_is_kept() -> None:
    assert len(written(as_json=True, level="error")) == 1
    assert len(written(as_json=True, level="debug")) == 3
