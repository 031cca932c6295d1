from __future__ import annotations

import pytest

from models.report.markup import Markup, element, join, number


def test_whatever_is_put_into_an_element_is_escaped():
    made = element("p", "a < b & c", Markup("<b>d</b>"), title='"quoted" <x>')
    assert made == '<p title="&quot;quoted&quot; &lt;x&gt;">a &lt; b &amp; c<b>d</b></p>'
    assert join("<i>", made) == f"&lt;i&gt;{made}"


def test_attributes():
    made = element("x", class_="a", data_field="b", x1=1, y=2.5, viewBox="0 0 1 1", hidden=True, title=None, open=False)
    assert made == '<x class="a" data-field="b" x1="1" y="2.5" viewBox="0 0 1 1" hidden></x>'


def test_elements_that_html_forbids_an_end():
    assert element("meta", charset="utf-8") == '<meta charset="utf-8">'


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1"), (1.0, "1"), (1.005, "1"), (10, "10"), (-0.001, "0"), (2.345, "2.35"), (100.5, "100.5")],
)
def test_coordinates_are_short(value, text):
    assert number(value) == text
