"""The report as one HTML file that makes no requests, which a content security policy enforces.

The style sheet and the script beside this module are inlined, and the policy allows them by their hashes. Everything
can be read without the script; it adds the slider, and the receptive fields of units under the pointer.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from models import __version__
from models.report import (
    confusion,
    curves,
    equivariance,
    examples,
    feature_maps,
    kernels,
    origin,
    proof,
    receptive_fields,
)
from models.report.headline import headline
from models.report.markup import Markup, element, join

if TYPE_CHECKING:
    from models.report.subject import Pair

_HERE: Final = Path(__file__).parent
_SECTIONS: Final = (
    curves.section,
    examples.section,
    confusion.section,
    receptive_fields.section,
    kernels.section,
    feature_maps.section,
    equivariance.section,
    proof.section,
    origin.section,
)


def page(pair: Pair) -> str:
    """The whole report as HTML; takes a second or two."""
    style, script = (Markup((_HERE / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    sections = [section(pair) for section in _SECTIONS]
    own = pair.own.manifest
    contents = element(
        "nav",
        *(element("a", section.title, href=f"#{section.key}") for section in sections),
        aria_label="contents",
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name_="color-scheme", content="light dark"),
        element("title", f"{own.name}, version {own.version}: report"),
        element("style", style),
    )
    footer = element(
        "footer",
        element(
            "p",
            "Computed in NumPy from the files of the published version by mnist1d-service ",
            __version__,
            ". To make it again: ",
            element("code", f"mnist1d report REPOSITORY/{own.name}/{own.version}"),
        ),
    )
    body = element(
        "body",
        element("main", headline(pair), contents, *(section.markup() for section in sections), footer),
        element("script", script),
    )
    return join(Markup("<!DOCTYPE html>\n"), element("html", head, body, lang="en"), "\n")


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; img-src data:; style-src {_source(style)}; script-src {_source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
