"""HTML and SVG markup, made from elements that escape all plain text put into them.

Pages and pictures are made from the same elements, so no template language is needed. Empty elements are written with
an end tag, which both HTML and XML accept, except for the few for which HTML forbids it.
"""

from __future__ import annotations

from html import escape
from typing import Final, TypeAlias

Attribute: TypeAlias = "str | float | bool | None"

_VOID: Final = frozenset({"br", "hr", "input", "link", "meta"})


class Markup(str):
    """A string of HTML or SVG that must not be escaped again."""

    __slots__ = ()


def element(name: str, *children: str, **attributes: Attribute) -> Markup:
    """Write ``<name attribute="value">children</name>``; children that are no `Markup` are escaped.

    Underscores in attribute names become hyphens, one at the end is dropped (``class_``, ``for_``). None and False
    leave an attribute out, True writes it without a value, and numbers are cut to two decimals.
    """
    start = "".join([name, *(_attribute(key, value) for key, value in attributes.items())])
    if name in _VOID:
        return Markup(f"<{start}>")
    return Markup(f"<{start}>{join(*children)}</{name}>")


def join(*children: str) -> Markup:
    """Concatenate children, and escape those that are plain text."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child, quote=False) for child in children))


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{escape(number(value) if isinstance(value, int | float) else value)}"'


def number(value: float) -> str:
    """Format a coordinate with at most two decimals and no trailing zeros."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
