from __future__ import annotations

import contextvars
import io
import json
import logging

import pytest

from service import logs
from service.logs import Switches


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
    assert lines[1].endswith("ERROR   it broke\\nin two lines")
    assert lines[2] == "    Traceback (most recent call last):"
    assert lines[-1] == "    ValueError: why"


def test_the_level_is_kept() -> None:
    assert len(written(as_json=True, level="error")) == 1
    assert len(written(as_json=True, level="debug")) == 3


FORGED = 'x\n2026-01-01T00:00:00.000Z ERROR   all is lost\r\x1b[2J\u2028\x85 level="error" key=value'


def logged(*, as_json: bool, message: str = "told", **fields: object) -> str:
    stream = io.StringIO()
    logs.set_up("debug", as_json=as_json, stream=stream)
    logging.getLogger("test.logs").warning(message, extra=fields)
    return stream.getvalue()


def test_nothing_that_a_caller_sends_forges_a_line_of_json() -> None:
    text = logged(as_json=True, message=FORGED, model=FORGED, lone="\udc80")
    assert text.isascii()
    assert text[:-1].isprintable()
    line = json.loads(text)
    assert (line["message"], line["model"], line["lone"], line["level"]) == (FORGED, FORGED, "\udc80", "warning")


def test_nothing_that_a_caller_sends_forges_a_line_of_text() -> None:
    text = logged(as_json=False, message=FORGED, model=FORGED, lone="\udc80")
    assert text[:-1].isprintable()
    # A value that could be taken for further fields is quoted, with the quotes in it escaped.
    assert ' key=value"  ' not in text
    assert text.count(" lone=") == 1
    assert 'model="x\\n2026' in text
    assert 'level=\\"error\\" key=value" lone=' in text


def test_a_traceback_in_text_cannot_begin_a_line_of_its_own() -> None:
    stream = io.StringIO()
    logs.set_up("info", as_json=False, stream=stream)
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger("test.logs").exception("it broke")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("it broke")
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_what_is_very_long_is_cut() -> None:
    for as_json in (True, False):
        text = logged(as_json=as_json, message="m" * 10**6, model="n" * 10**6)
        assert len(text) < 10_000
        assert "(1000000 characters)" in text


def test_json_stays_json_with_numbers_that_it_has_no_word_for() -> None:
    line = json.loads(logged(as_json=True, nan=float("nan"), inf=float("inf")), parse_constant=pytest.fail)
    assert (line["nan"], line["inf"]) == ("nan", "inf")


def test_lines_of_a_call_have_its_fields_and_others_have_not() -> None:
    asked = []

    def fields():
        asked.append(1)
        return {"id": "a", "request_id": "r"}

    stream = io.StringIO()
    logs.set_up("info", as_json=True, stream=stream)
    log = logging.getLogger("test.logs")

    def call() -> None:
        logs.call_fields.set(fields)
        log.debug("not written")
        assert not asked
        log.warning("within", extra={"id": "its own"})
        logs.context_with(id="deeper", empty="").run(log.warning, "deeper")

    contextvars.copy_context().run(call)
    log.warning("outside")
    within, deeper, outside = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (within["id"], within["request_id"]) == ("its own", "r")
    assert (deeper["id"], deeper["request_id"]) == ("deeper", "r")
    assert "empty" not in deeper
    assert not {"id", "request_id"} & set(outside)


def test_a_call_that_cannot_be_described_is_still_logged() -> None:
    stream = io.StringIO()
    logs.set_up("info", as_json=True, stream=stream)
    context = contextvars.copy_context()
    context.run(logs.call_fields.set, lambda: 1 / 0)
    context.run(logging.getLogger("test.logs").warning, "told")
    assert json.loads(stream.getvalue())["message"] == "told"


LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


@pytest.mark.parametrize(
    ("switches", "written"),
    [
        (Switches(), "iwec"),
        (Switches(verbose_level=1), "diwec"),
        (Switches(info=False), "wec"),
        (Switches(info=False, verbose_level=3), "dwec"),
        (Switches(info=False, warning=False), "ec"),
        (Switches(error=False), "iw"),
        (Switches(info=False, warning=False, error=False), ""),
        (Switches.of_level(logging.DEBUG), "diwec"),
        (Switches.of_level(logging.INFO), "iwec"),
        (Switches.of_level(logging.WARNING), "wec"),
        (Switches.of_level(logging.ERROR), "ec"),
    ],
)
def test_switches_decide_what_is_written(switches, written) -> None:
    stream = io.StringIO()
    output = logs.set_up("info", as_json=True, stream=stream)
    assert logs.current_output() is output
    output.switches = switches
    log = logging.getLogger("test.logs")
    for level in LEVELS:
        log.log(level, "told")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert "".join(line["level"][0] for line in lines) == written
    assert log.isEnabledFor(logging.DEBUG) == ("d" in written)
