"""The parts that sections of the page are made of: headings, paragraphs, figures side by side, tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.report.markup import Markup, element, join

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Section:
    """One section of the page."""

    key: str
    """The section's anchor in the page."""
    title: str
    body: Markup

    def markup(self) -> Markup:
        """The section as an HTML element with its heading."""
        return element("section", element("h2", self.title), self.body, id=self.key)


def paragraph(*text: str, note: bool = False) -> Markup:
    """A paragraph of plain text or markup; a note is smaller."""
    return element("p", *text, class_="note" if note else None)


def figure(picture: Markup, caption: str = "", *, title: str = "", role: str = "") -> Markup:
    """A picture with its title above, in its network's colour, and its caption below."""
    parts = [element("h3", title, class_=role or None)] if title else []
    parts.append(picture)
    if caption:
        parts.append(element("figcaption", caption))
    return element("figure", *parts)


def side_by_side(*figures: Markup) -> Markup:
    """Put figures into columns if there is room, and below each other if not."""
    return element("div", *figures, class_="columns")


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: Sequence[int] = ()) -> Markup:
    """A table that scrolls by itself on a narrow screen; the columns in ``numeric`` are right-aligned."""

    def row(cells: Sequence[str], kind: str) -> Markup:
        return element(
            "tr",
            *(
                element(
                    kind, cell, class_="number" if index in numeric else None, scope="col" if kind == "th" else None
                )
                for index, cell in enumerate(cells)
            ),
        )

    body = element("tbody", *(row(cells, "td") for cells in rows))
    parts = [element("caption", caption)] if caption else []
    parts += [element("thead", row(head, "th"))] if head else []
    return element(
        "div", element("table", *parts, body), class_="scroll", tabindex=0, role="region", aria_label=caption
    )


def folded(summary: str, *content: str) -> Markup:
    """Content that is collapsed until the reader opens it."""
    return element("details", element("summary", summary), join(*content))
