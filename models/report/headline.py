"""The header of the page: the two networks with their sizes and error rates. Sizes are drawn to scale, too."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from models.report.chart import picture
from models.report.markup import Markup, element, join
from models.report.section import paragraph

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.report.subject import Pair, Subject

_HARDLY_ANY: Final = 0.005


def headline(pair: Pair) -> Markup:
    """The page's header."""
    own = pair.own.manifest
    return element(
        "header",
        element("p", "MNIST-1D · report of a training run", class_="kicker"),
        element("h1", f"{own.name}, version {own.version}"),
        element("p", _summary(pair), class_="lede"),
        element("div", *(_card(subject, pair) for subject in pair.subjects), class_="columns cards"),
        *_remarks(pair),
    )


def error_of(subject: Subject, split: str) -> float | None:
    """Error rate on a split as the manifest records it, 0 to 1; None if it does not."""
    figures = subject.manifest.metrics.get(split)
    accuracy = figures.get("accuracy") if isinstance(figures, dict) else None
    return 1 - float(accuracy) if isinstance(accuracy, int | float) else None


def percent(share: float | None) -> str:
    """Format a share as ``15.8 %``, with a no-break space; ``not measured`` for None."""
    return "not measured" if share is None else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def _summary(pair: Pair) -> str:
    own = pair.own
    sentence = (
        f"A {own.kind} net of {own.architecture.parameters:,} parameters is wrong on "
        f"{percent(error_of(own, 'test'))} of the test examples."
    )
    if pair.conv is None or pair.fc is None:
        return sentence
    conv, fc = pair.conv, pair.fc
    ratio = fc.architecture.parameters / conv.architecture.parameters
    conv_error, fc_error = error_of(conv, "test"), error_of(fc, "test")
    sentence = (
        f"With {conv.architecture.parameters:,} parameters the convolutional net is wrong on {percent(conv_error)} of "
        f"the test examples; the fully connected net has {ratio:.0f} times as many and is wrong on "
        f"{percent(fc_error)}."
    )
    trained = [error_of(subject, "train") for subject in (conv, fc)]
    if all(error == 0 for error in trained):
        sentence += " On the examples that they were trained on, neither makes a single mistake."
    elif all(error is not None and error < _HARDLY_ANY for error in trained):
        sentence += " On the examples that they were trained on, both are right almost everywhere."
    return sentence


def _card(subject: Subject, pair: Pair) -> Markup:
    manifest, spec = subject.manifest, subject.architecture
    facts = [
        ("training error", percent(error_of(subject, "train"))),
        ("recipe", _recipe_line(subject.recipe)),
        ("published", f"{manifest.name} version {manifest.version}, {manifest.created.partition('T')[0]}"),
    ]
    own = " · this run" if subject is pair.own and pair.other is not None else ""
    return element(
        "div",
        element("h2", f"{subject.kind.capitalize()}{own}", class_=subject.role),
        element("p", spec.title, class_="note"),
        element(
            "div", _size(subject, pair), element("p", percent(error_of(subject, "test")), class_="big"), class_="sizes"
        ),
        element("dl", *(join(element("dt", name), element("dd", value)) for name, value in facts)),
        class_=f"card {subject.role}",
    )


def _size(subject: Subject, pair: Pair) -> Markup:
    """Draw a square whose area is the number of parameters; the larger network's square fills the picture."""
    largest = max(other.architecture.parameters for other in pair.subjects)
    side = 100 * math.sqrt(subject.architecture.parameters / largest)
    title = f"{subject.architecture.parameters:,} parameters, as an area"
    words = f"{subject.architecture.parameters:,}"
    marks = [
        element("title", title),
        element("rect", x=0, y=100 - side, width=side, height=side, class_=f"fill {subject.role}"),
        element("text", words, x=0, y=120, class_="strong"),
        element("text", "parameters", x=0, y=136, class_="soft"),
    ]
    return picture(104, 140, marks, class_="picture size")


def _recipe_line(recipe: Mapping[str, object]) -> str:
    if not recipe:
        return "not recorded"
    steps = recipe.get("steps")
    count = f"{steps:,} steps" if isinstance(steps, int) else "steps not recorded"
    return f"{recipe.get('name')}, {count}, seed {recipe.get('seed')}"


def _remarks(pair: Pair) -> list[Markup]:
    """Notes that a reader needs before comparing the networks."""
    remarks = []
    if pair.other is None:
        remarks.append(
            f"{pair.why_alone} Train it, then make this report again to see the two side by side: "
            f"mnist1d report REPOSITORY/{pair.own.manifest.name}"
        )
    else:
        if pair.why_beside:
            other = pair.other.manifest
            remarks.append(f"Beside it is {other.name} version {other.version}, {pair.why_beside}.")
        differing = _differing_fields(pair.own.recipe, pair.other.recipe)
        if differing:
            remarks.append(
                f"The two were not trained alike, which is part of any difference between them: they differ in "
                f"{', '.join(differing)}."
            )
    if pair.have_foreign_data:
        remarks.append("Not everything here belongs to the same data: error rates and examples are of different sets.")
    return [paragraph(remark, note=True) for remark in remarks]


def _differing_fields(first: Mapping[str, object], second: Mapping[str, object]) -> list[str]:
    return sorted(
        field for field in first.keys() | second.keys() if field != "network" and first.get(field) != second.get(field)
    )
