"""Confusion matrices: which digit is taken for which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.report.chart import picture
from models.report.markup import Markup, element, join
from models.report.section import Section, figure, paragraph, side_by_side

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.report.chart import Role
    from models.report.subject import Pair

_CELL, _LEFT, _TOP = 34, 46, 34


def section(pair: Pair) -> Section:
    """The section with a confusion matrix for each network, over the test examples."""
    figures = []
    for subject in pair.subjects:
        counts_KK = confusion(pair, subject.role)
        figures.append(
            figure(
                matrix(counts_KK, subject.role, subject.kind), worst(counts_KK), title=subject.kind, role=subject.role
            )
        )
    text = "Rows are the true digit, columns the answer; the diagonal is right. Strong colour is a large share."
    return Section("confusion", "What is taken for what", join(paragraph(text), side_by_side(*figures)))


def confusion(pair: Pair, role: Role) -> NDArray[np.int64]:
    """Confusion matrix (10, 10): how many examples of the row's digit were taken for the column's."""
    counts_KK = np.zeros((10, 10), np.int64)
    np.add.at(counts_KK, (pair.examples.y_B, pair.answers[role].argmax(axis=1)), 1)
    return counts_KK


def worst(counts_KK: NDArray[np.int64]) -> str:
    """The most frequent mistake, in a sentence."""
    off_KK = counts_KK - np.diag(counts_KK.diagonal())
    if not off_KK.any():
        return "No mistakes."
    true, said = divmod(int(off_KK.argmax()), 10)
    return f"Most often a {true} is taken for a {said}: {off_KK[true, said]} of {counts_KK[true].sum()}."


def matrix(counts_KK: NDArray[np.int64], role: Role, name: str) -> Markup:
    """The picture of one confusion matrix."""
    marks = [
        element("title", f"confusion matrix of the {name} net: {worst(counts_KK)}"),
        element("text", "answer", x=_LEFT + 5 * _CELL, y=12, text_anchor="middle", class_="soft"),
        element(
            "text",
            "true digit",
            x=0,
            y=0,
            text_anchor="middle",
            class_="soft",
            transform=f"translate(12 {_TOP + 5 * _CELL}) rotate(-90)",
        ),
    ]
    for digit in range(10):
        middle = _CELL * (digit + 0.5)
        marks.append(element("text", str(digit), x=_LEFT + middle, y=_TOP - 8, text_anchor="middle"))
        marks.append(element("text", str(digit), x=_LEFT - 12, y=_TOP + middle + 4.5, text_anchor="middle"))
    for true, row_K in enumerate(counts_KK):
        total = max(int(row_K.sum()), 1)
        for said, count in enumerate(row_K):
            x, y = _LEFT + said * _CELL, _TOP + true * _CELL
            style = f"fill {role}" if said == true else "wrong"
            opacity = round(0.08 + 0.62 * (count / total) ** 0.6, 2) if count else 0.04
            marks.append(
                element("rect", x=x, y=y, width=_CELL - 2, height=_CELL - 2, rx=3, class_=style, fill_opacity=opacity)
            )
            if count:
                middle = (_CELL - 2) / 2
                marks.append(element("text", str(count), x=x + middle, y=y + middle + 4.5, text_anchor="middle"))
    return picture(_LEFT + 10 * _CELL, _TOP + 10 * _CELL, marks)
