"""Signals of the test set with the networks' answers: one right answer for each digit, and the mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from models.report.chart import picture
from models.report.markup import Markup, element, join
from models.report.section import Section, paragraph
from models.report.signal import trace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from models.report.subject import Pair

MISTAKES: Final = 10


def section(pair: Pair) -> Section:
    """The section with right and wrong answers, and the other network's answers to the same examples."""
    own = pair.own
    wrong = surest_mistakes(pair)
    parts = [
        paragraph(
            f"The first example of each digit in the test set that the {own.kind} net of this run gets right. A signal "
            "is 40 numbers long: a digit's stroke, moved, stretched and buried in noise."
        ),
        _gallery(pair, first_right_of_each_digit(pair)),
        element("h3", "The mistakes that it is surest of"),
        _gallery(pair, wrong) if wrong else paragraph("It makes none on the test set."),
    ]
    if pair.other is not None:
        parts.append(_who_is_right(pair))
    return Section("examples", "What they see", join(*parts))


def first_right_of_each_digit(pair: Pair) -> list[int]:
    """Index of the first test example that is right, for each digit; digits without one are left out."""
    answers_B, y_B = pair.answers[pair.own.role].argmax(axis=1), pair.examples.y_B
    found = (np.flatnonzero((y_B == digit) & (answers_B == digit)) for digit in range(10))
    return [int(right[0]) for right in found if len(right)]


def surest_mistakes(pair: Pair) -> list[int]:
    """Indices of the test examples with wrong answers, the most probable answers first; at most `MISTAKES`."""
    p_BK, y_B = pair.answers[pair.own.role], pair.examples.y_B
    wrong = np.flatnonzero(p_BK.argmax(axis=1) != y_B)
    order = np.argsort(-p_BK[wrong].max(axis=1), kind="stable")
    return [int(index) for index in wrong[order[:MISTAKES]]]


def _gallery(pair: Pair, indices: Iterable[int]) -> Markup:
    return element("div", *(_example(pair, index) for index in indices), class_="gallery")


def _example(pair: Pair, index: int) -> Markup:
    signal_L, digit = pair.examples.x_BL[index], int(pair.examples.y_B[index])
    title = element("title", f"test example {index}, a {digit}")
    low, high = float(signal_L.min()), float(signal_L.max())
    line = trace(signal_L, left=4, top=4, step=152 / 39, height=62, low=low, high=high, class_="signal")
    answers = [_answer(pair, role, index, digit) for role in pair.answers]
    return element(
        "figure",
        picture(160, 70, [title, line]),
        element("figcaption", element("b", f"a {digit}"), element("span", f"test[{index}]", class_="soft"), *answers),
    )


def _answer(pair: Pair, role: str, index: int, digit: int) -> Markup:
    p_K = pair.answers[role][index]
    said = int(p_K.argmax())
    name = {"conv": "conv", "fc": "full"}[role]
    verdict = "✓" if said == digit else "✗"
    spoken = f"{name}: {said}, {'right' if said == digit else 'wrong'}"
    return element("span", f"{verdict} {name} {said} ({100 * p_K[said]:.0f} %)", class_=f"answer {role}", title=spoken)


def _who_is_right(pair: Pair) -> Markup:
    right = {role: p_BK.argmax(axis=1) == pair.examples.y_B for role, p_BK in pair.answers.items()}
    conv_B, fc_B = right["conv"], right["fc"]
    return paragraph(
        f"Of {len(conv_B):,} test examples both get {int((conv_B & fc_B).sum())} right and "
        f"{int((~conv_B & ~fc_B).sum())} wrong; {int((conv_B & ~fc_B).sum())} only the convolutional net gets right, "
        f"{int((~conv_B & fc_B).sum())} only the fully connected one."
    )
