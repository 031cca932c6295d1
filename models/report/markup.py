"""Text that is HTML or SVG already, and the one way to make it: whatever is put into an element is escaped.

The same elements make a page and a picture, so that nothing needs a template language. Empty elements are written
with an end tag, which both HTML and XML read, but for the few that HTML forbids one.
"""

from __future__ import annotations

from html import escape
from typing import Final, TypeAlias

Attribute: TypeAlias = "str | float | bool | None"

_VOID: Final = frozenset({"br", "hr", "input", "link", "meta"})


class Markup(str):
    """A string that needs no escaping any more."""

    __slots__ = ()


def element(name: str, *children: str, **attributes: Attribute) -> Markup:
    """``<name attribute="value">children</name>``; children that are no `Markup` are escaped.

    Underscores in attribute names become hyphens, one at the end is dropped (``class_``, ``for_``). None and False
    leave an attribute out, True writes it without a value, and numbers are cut to two decimals.
    """
    start = "".join([name, *(_attribute(key, value) for key, value in attributes.items())])
    if name in _VOID:
        return Markup(f"<{start}>")
    return Markup(f"<{start}>{join(*children)}</{name}>")


def join(*children: str) -> Markup:
    """Children one after the other, escaped where they are plain text."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child, quote=False) for child in children))


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{escape(number(value) if isinstance(value, int | float) else value)}"'


def number(value: float) -> str:
    """A coordinate: at most two decimals, no zeros behind the point."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
