from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from benchmarks.comparison import picture, report
from benchmarks.comparison.contenders import TITLES
from benchmarks.comparison.loads import LOADS
from tests.benchmarks.comparison.test_ratios import measured

MACHINE = {
    "processor": "A <fast> one", "cores": 2, "all_cores": 8, "kernel": "Linux 6", "load_before": 0.1, "load_after": 1.0
}  # fmt: skip
RUN = {
    "command": "python -m benchmarks.comparison", "rounds": 3, "seconds": 2.0, "warm_up_s": 0.5, "took_s": 60.0,
    "loads": "".join(LOADS), "model": "m", "libraries": "Python 3", "right": 1234, "wrong": 0,
}  # fmt: skip


def document(*measurements, absent=None):
    made = report.document(MACHINE, RUN, {"plain": "grpcio 1"}, absent or {}, measurements)
    # As it is read again.
    return json.loads(json.dumps(made))


def rows(markdown: str, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading."""
    after = markdown.split(f"## {heading}\n")[1]
    lines = [line for line in after.split("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def full():
    return [
        measured(contender, load, number, rate=100.0 * number, samples_rate=6400.0 * number)
        for contender in TITLES
        for load in LOADS
        for number in (1, 2, 3)
    ]


def test_measurements_survive_the_document() -> None:
    given = [measured("plain", "B", 2, problems=("one", "two"), failed=2), measured("http2", "A", rate=1 / 3)]
    read = report.read_measurements(document(*given))
    assert read[0] == given[0]
    assert read[1].rate == pytest.approx(1 / 3, abs=1e-4)


def test_the_report_has_every_server_load_and_ratio() -> None:
    told = report.markdown(document(*full()))
    figures = report.figure_table(full())
    for title in TITLES.values():
        assert f"| {title} |" in figures
    assert "200 (20 µs)" in figures
    assert "12,800" in figures
    ratios = rows(told, "Ratios")
    assert [row[-1] for row in ratios[2:]].count("miss") == 7
    # The C++ echo is as fast as everything else here.
    assert [row for row in ratios if row[-1] == "pass"] == [
        ["B", "ours, http2", "C++ gRPC, no-op echo", "answers/s", "0.9 x", "1 x (1 to 1)", "1 x", "pass"]
    ]
    assert "1,234 were\nright, 0 were not" in told
    assert "Wrong answers" not in told
    assert "Not measured" not in told


def test_what_is_missing_is_said_with_its_reason() -> None:
    told = report.markdown(
        document(measured("plain", "B"), absent={"echo": "there is no g++ here", "load H": "no h2load"})
    )
    assert rows(told, "Not measured")[2:] == [["C++ gRPC, no-op echo", "there is no g++ here"], ["load H", "no h2load"]]
    assert {row[-1] for row in rows(told, "Ratios")[2:]} == {"not measured"}


def test_wrong_answers_are_told_and_are_in_no_figure() -> None:
    wrong = measured("kserve", "C", done=5, failed=3, problems=("3 x WRONG_ANSWER off",), samples_rate=999999.0)
    told = report.markdown(document(wrong, measured("plain", "C")))
    assert rows(told, "Wrong answers")[2] == ["KServe", "C", "1", "5", "3", "3 x WRONG_ANSWER off"]
    assert "| KServe | 3 failed |" in told
    assert "999,999" not in told


def test_a_generator_that_may_be_what_was_measured_is_marked() -> None:
    told = report.generator_table([measured("echo", "B", generator_share=0.95), measured("plain", "B")])
    assert "| C++ gRPC, no-op echo | **95%** |" in told
    assert "| plain grpcio server | 50% |" in told


def test_the_null_server_tells_what_a_core_would_give() -> None:
    told = report.generator_table([measured("null", "B", rate=60_000.0, generator_share=0.5)])
    assert "| answers a busy second of the generator | 120,000 |" in told


@pytest.mark.parametrize(
    "measurements",
    [[], full(), [measured("plain", "B", failed=1)], [measured("http2", "A")], [measured("null", "D")]],
    ids=["nothing", "everything", "wrong answers only", "one", "nothing to show"],
)
def test_every_run_can_be_drawn_and_written(measurements) -> None:
    made = document(*measurements)
    root = ET.fromstring(picture.svg(made))  # noqa: S314 - our own
    assert root.tag.endswith("svg")
    shown = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert any("A <fast> one" in (words or "") for words in shown)
    assert report.markdown(made).startswith("# This server beside others")


def test_the_picture_compares_with_the_plain_server() -> None:
    made = document(
        measured("http2", "B", rate=300.0), measured("plain", "B", rate=10.0), measured("plain-typed", "B", rate=8.0)
    )
    drawn = picture.svg(made)
    assert "300  (30.0x)" in drawn
    assert "goal 20x" in drawn
