"""The page as a file, and as a browser shows it."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from html.parser import HTMLParser

import pytest

from models.report import equivariance
from models.report.headline import headline
from models.report.opening import Opening
from models.report.page import page
from tests import browser
from tests.models.report.subjects import HOSTILE, history, pair

SECTIONS = [
    "curves", "examples", "confusion", "receptive-fields", "kernels", "feature-maps", "equivariance", "proof",
    "provenance",
]  # fmt: skip


@cache
def report_of(own: str, other: str | None, note: str = "") -> str:
    """The page of a pair; most tests look at the same few."""
    return page(pair(own, other, note=note))


class _Seen(HTMLParser):
    """Elements that are closed in their order, the anchors, and whatever would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.fetched += [values[name] for name in ("src", "href", "srcset", "action") if values.get(name)]
        assert "style" not in values, "the page's own policy forbids it"
        assert not any(name.startswith("on") for name in values)
        if tag not in ("meta", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def seen(html: str) -> _Seen:
    parser = _Seen()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


@pytest.mark.parametrize(
    ("own", "other"), [("conv", "fc"), ("fc", "conv"), ("conv", None), ("fc", None), ("conv25", "fc-slide")]
)
def test_the_page_is_whole_small_and_asks_for_nothing(own, other):
    html = report_of(own, other)
    found = seen(html)
    assert [key for key in found.ids if key in SECTIONS] == SECTIONS
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in found.fetched)
    assert {target[1:] for target in found.fetched if target.startswith("#")} == set(SECTIONS)
    assert len(html.encode()) < 1_000_000
    assert html.count("<title>") == html.count("<svg") + html.count("<circle") - html.count('class="sample"') + (
        len(re.findall(r"<title>kernel \d", html)) + 1
    )
    assert ("There is none yet." in html) == (other is None)


def test_a_fully_connected_net_has_no_kernels_and_no_maps():
    html = report_of("fc", "conv")
    assert "has no kernels" in html
    assert "no feature maps to draw" in html
    assert "Layer 2:" not in html
    html = report_of("conv", "fc")
    assert "has no kernels" not in html
    assert "Layer 2: 15 × 15 kernels" in html
    assert "The first layer as a matrix" in html


def test_the_same_files_give_the_same_page():
    assert page(pair("fc", None)) == report_of("fc", None)


def test_what_a_manifest_says_is_text_and_nothing_else():
    html = report_of("conv", "fc", HOSTILE)
    assert "alert(" in html
    assert "<script>alert" not in html
    assert "<img" not in html
    assert html.count("<script") == 2  # the page's own: its data and its program
    seen(html)


def test_recipes_that_differ_are_told():
    assert "were not trained alike" not in report_of("conv", "fc")
    both = pair()
    both.other.manifest.provenance["recipe"]["steps"] = 7
    assert "they differ in steps" in headline(both)
    both.other.manifest.provenance.pop("recipe")
    assert "were not trained alike" in headline(both)


# ---- in a browser ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown():
    """A page of a browser."""
    if browser.executable() is None:
        pytest.skip("no Chromium here: apt-get install chromium-headless-shell")
    with browser.browser() as opened:
        yield opened


@pytest.fixture
def report(shown, tmp_path):
    """``report("conv", "fc")``: it is open in the browser."""

    def show(own, other):
        path = tmp_path / "report.html"
        path.write_text(report_of(own, other, HOSTILE if other else ""), encoding="utf-8")
        shown.complaints.clear()
        shown.requests.clear()
        shown.show_as(width=1200, height=900)
        shown.open(path)
        return shown

    return show


@pytest.mark.parametrize(("own", "other"), [("conv", "fc"), ("fc", None)])
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_a_browser_shows_it_without_a_complaint_and_without_a_request(report, own, other, width, scheme):
    shown = report(own, other)
    shown.show_as(width=width, height=900, scheme=scheme)
    for key in SECTIONS:
        assert shown.run(f"document.querySelector('section#{key} h2').getBoundingClientRect().height") > 0, key
    assert shown.run("document.documentElement.scrollWidth") == width
    background = shown.run("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
    assert (brightness > 128) == (scheme == "light")
    assert shown.run("[...document.querySelectorAll('svg.picture')].every((svg) => svg.clientHeight > 10)")
    assert shown.complaints == []
    assert len(shown.requests) == 1
    assert shown.requests[0].startswith("file:")


@pytest.mark.slow
@pytest.mark.parametrize(("own", "other"), [("conv", "fc"), ("conv", None), ("fc", None), ("conv25", "fc-slide")])
def test_on_a_phone_every_picture_is_seen_whole(report, own, other):
    shown = report(own, other)
    shown.show_as(width=390, height=900)
    cut = """[...document.querySelectorAll('svg.picture')].filter((svg) => {
      const {left, right} = svg.getBoundingClientRect();
      return left < 0 || right > innerWidth;
    }).map((svg) => svg.textContent.slice(0, 60))"""
    assert shown.run(cut) == []
    smallest = """Math.min(...[...document.querySelectorAll('#receptive-fields text, #kernels text')]
      .filter((text) => text.getBoundingClientRect().width > 0)
      .map((text) => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a))"""
    assert shown.run(smallest) > 9


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 390])
def test_curves_of_runs_of_different_lengths_are_told_apart_and_their_labels_are_whole(shown, tmp_path, width):
    both = pair("conv", "fc")
    own, other = (
        dataclasses.replace(subject, history=history(steps, held_out=True))
        for subject, steps in ((both.own, 400), (both.other, 2_500))
    )
    path = tmp_path / "report.html"
    path.write_text(page(dataclasses.replace(both, own=own, other=other)), encoding="utf-8")
    shown.show_as(width=width, height=900)
    shown.open(path)
    charts = shown.run("""[...document.querySelectorAll('#curves svg')].map((svg) => ({
      right: svg.getBoundingClientRect().right,
      dashes: [...svg.querySelectorAll('path')].map((path) => getComputedStyle(path).strokeDasharray),
      ends: [...svg.querySelectorAll('path')].map((path) => path.getBoundingClientRect().right),
      labels: [...svg.querySelectorAll('text.conv, text.fc')].map((text) => [
        text.getBoundingClientRect().left, text.getBoundingClientRect().right]),
    }))""")
    assert len(charts) == 4
    for drawn in charts:
        assert len(set(drawn["dashes"])) == len(drawn["labels"]) == 3
        for end, (left, right) in zip(drawn["ends"], drawn["labels"], strict=True):
            assert 0 < left - end < 10
            assert right <= drawn["right"]


@pytest.mark.slow
@pytest.mark.parametrize(("own", "other"), [("conv", "fc"), ("conv", None), ("fc", None)])
def test_a_chart_is_as_large_with_one_network_as_with_two(report, own, other):
    shown = report(own, other)
    widths = shown.run("[...document.querySelectorAll('#curves svg, .columns svg')].map((svg) => svg.clientWidth)")
    assert 400 < max(widths) <= 520
    tops = shown.run(
        "[...document.querySelectorAll('#curves svg')].slice(0, 2).map((s) => s.getBoundingClientRect().top)"
    )
    assert tops[0] == tops[1]


@pytest.mark.slow
def test_the_slider_moves_the_maps(report):
    shown = report("conv", "fc")
    state = """(() => {
      const shades = (role, when) => [...document.querySelectorAll(`[data-network=${role}] .map.${when} rect`)]
        .map((cell) => Number(cell.getAttribute("fill-opacity")));
      const told = (role) => document.querySelector(`[data-network=${role}] .remark`).textContent;
      return {conv: [shades("conv", "before"), shades("conv", "after")], said: [told("conv"), told("fc")],
              moved: document.getElementById("shift-told").textContent,
              path: document.querySelector(".moving .now").getAttribute("d")};
    })()"""
    move = (
        "(() => {{const s = document.getElementById('shift'); s.value = {}; s.dispatchEvent(new Event('input'));}})()"
    )

    first = shown.run(state)
    assert first["moved"] == "4 samples to the right"
    shown.run(move.format(-6))
    after = shown.run(state)
    assert after["moved"] == "6 samples to the left"
    before_CL, after_CL = ([cells[row * 19 : row * 19 + 19] for row in range(15)] for cells in after["conv"])
    assert [row[:16] for row in after_CL] == [row[3:] for row in before_CL]
    assert after_CL != before_CL
    assert "very same numbers" in after["said"][0]
    assert "No map moved by 3 columns to the left" in after["said"][1]
    shown.run(move.format(0))
    unmoved = shown.run(state)
    assert unmoved["conv"][0] == unmoved["conv"][1]
    assert unmoved["path"] == shown.run("document.querySelector('.moving .pale').getAttribute('d')")
    assert shown.complaints == []


@pytest.mark.slow
def test_another_example_can_be_chosen(report):
    shown = report("conv", None)
    path = "document.querySelector('.moving .now').getAttribute('d')"
    before = shown.run(path)
    shown.run("document.querySelectorAll('button[data-example]')[1].click()")
    assert shown.run(path) != before
    assert shown.run("document.querySelector('button[aria-pressed=true]').dataset.example") == "1"
    assert shown.complaints == []


@pytest.mark.slow
def test_what_the_page_shows_before_its_script_is_what_the_script_shows(report):
    """The script starts at the state that was drawn; whoever has none sees the same."""
    html = report_of("conv", "fc")
    written = re.search(r'data-network="conv".*?class="note remark">([^<]+)<', html, re.DOTALL)[1]
    assert report("conv", "fc").run("document.querySelector('[data-network=conv] .remark').textContent") == written


@pytest.mark.slow
def test_it_opens_on_the_chosen_example_and_shift(shown, tmp_path, monkeypatch):
    monkeypatch.setattr(equivariance, "opening", lambda _: Opening((1, 2, 4), 2, -6, "Chosen for this test."))
    path = tmp_path / "report.html"
    path.write_text(page(pair("conv", None)), encoding="utf-8")
    state = "document.querySelector('.moving .now').getAttribute('d') + document.querySelector('.verdict').textContent"
    shown.open(path)
    assert shown.run("document.querySelector('button[aria-pressed=true]').dataset.example") == "2"
    assert shown.run("document.getElementById('shift-told').textContent") == "6 samples to the left"
    assert "Chosen for this test." in shown.run("document.getElementById('equivariance').textContent")
    opened = shown.run(state)
    shown.run("document.querySelectorAll('button[data-example]')[0].click()")
    assert shown.run(state) != opened
    shown.run("document.querySelectorAll('button[data-example]')[2].click()")
    assert shown.run(state) == opened


@pytest.mark.slow
def test_pointing_at_a_unit_shows_its_field(report):
    shown = report("conv", "fc")
    field = "document.querySelector('.field.layer2').getAttribute('d')"
    before = shown.run(field)
    shown.run("document.querySelectorAll('circle.unit.layer2')[0].focus()")
    assert shown.run(field) != before
    assert shown.run(field) == shown.run("document.querySelector('circle.unit.layer2.chosen').dataset.field")
    assert shown.run("document.querySelectorAll('circle.unit.layer2.chosen').length") == 1


def test_a_page_that_fetches_something_would_be_noticed(shown, tmp_path):
    """The control: what the tests above say is absent does show where it is there."""
    path = tmp_path / "bad.html"
    path.write_text("<img src='http://127.0.0.1:1/x.png'><script>console.error('no'); undefined_name();</script>")
    shown.complaints.clear()
    shown.requests.clear()
    shown.open(path)
    shown.run("new Promise((done) => setTimeout(done, 50))")
    assert any(url.startswith("http:") for url in shown.requests)
    assert any("no" in complaint for complaint in shown.complaints)
    assert any("undefined_name" in complaint for complaint in shown.complaints)


@pytest.mark.slow
def test_it_prints(report):
    assert report("conv", "fc").printed().startswith(b"%PDF")
