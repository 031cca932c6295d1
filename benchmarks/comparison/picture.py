"""A run as a picture: a panel a load, a bar a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.comparison.contenders import TITLES
from benchmarks.comparison.loads import LOADS
from benchmarks.comparison.ratios import TARGETS, median, usable
from benchmarks.comparison.report import read_measurements
from service.bench.drawing import GRID, INK, SOFT, document, line, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.comparison.loads import Load
    from benchmarks.comparison.measurements import Measurement

_WIDTH = 980
_LABELS, _BARS, _VALUES = 250, 266, 720
"""Where the labels end, the bars begin and the longest bar ends."""
_ROW, _BAR = 24, 15
_TOP = 92
_HEAD, _GAP = 34, 22
_OURS, _THEIRS, _LIMIT, _GOAL = "#2563ab", "#a8b0ba", "#dfe3e8", "#c2571a"


def svg(run: dict[str, Any]) -> str:
    """The picture of a report's document."""
    measurements = read_measurements(run)
    body = [
        text(24, 38, "Answers a second, and how many times those of a plain grpcio server", size=18, weight=600),
        text(24, 60, _subtitle(run), size=12.5, colour=SOFT),
    ]
    top = float(_TOP)
    for load in LOADS.values():
        panel, top = _panel(measurements, load, top)
        body += panel
    return document(_WIDTH, round(top), body)


def _subtitle(run: dict[str, Any]) -> str:
    rounds = run["run"]["rounds"]
    times = "measured once" if rounds == 1 else f"median of {rounds} rounds, thin lines from the lowest to the highest"
    return f"{run['machine']['processor']}, {run['machine']['cores']} cores for server and generator together; {times}"


def _panel(measurements: Sequence[Measurement], load: Load, top: float) -> tuple[list[str], float]:
    figure = "p50_us" if load.key == "A" else "samples_rate" if load.batch > 1 else "rate"
    rows = [(key, value) for key in TITLES if (value := median(measurements, key, load.key, figure)) is not None]
    if not rows:
        return [], top
    spread = {key: _spread(measurements, key, load, figure) for key, _ in rows}
    # The null server's bar may leave the picture: it would make the others small.
    longest = max((high for key, (_, high) in spread.items() if key != "null"), default=spread[rows[0][0]][1])
    scale = (_VALUES - _BARS) / longest
    unit = "examples/s" if load.batch > 1 else "median latency, shorter is better" if load.key == "A" else "answers/s"
    marks = [
        text(24, top + 14, f"{load.key}:  {load.title}", size=14, weight=600),
        text(_WIDTH - 24, top + 14, f"{load.shape}; {unit}", size=11.5, colour=SOFT, anchor="end"),
    ]
    plain = [value for key, value in rows if key in ("plain", "plain-typed")]
    base = (min(plain) if figure == "p50_us" else max(plain)) if plain else None
    bottom = top + _HEAD + _ROW * len(rows)
    if base:
        marks += _goals(load, base, scale, top + _HEAD, bottom)
    for number, (key, value) in enumerate(rows):
        at = top + _HEAD + _ROW * number
        marks += _bar(key, value, spread[key], scale, at)
        marks.append(_value(key, value, base, figure, min(_VALUES, _BARS + spread[key][1] * scale), at))
    marks.append(line(24, bottom + 6, _WIDTH - 24, bottom + 6, GRID))
    return marks, bottom + _GAP


def _goals(load: Load, base: float, scale: float, top: float, bottom: float) -> list[str]:
    """Where the promises for this load begin; an arrow where that is further right than the bars go."""
    marks = []
    for target in TARGETS:
        if target.load == load.key and target.at_least is not None and "plain" in target.against:
            wanted = base / target.at_least if target.figure == "p50_us" else base * target.at_least
            x = _BARS + wanted * scale
            label = f"goal {target.at_least:g}x"
            if x > _VALUES:
                marks.append(text(_WIDTH - 24, bottom - 12, f"{label} \u2192", size=11, colour=_GOAL, anchor="end"))
                continue
            marks.append(line(x, top - 8, x, bottom - 6, _GOAL))
            marks.append(text(x, top - 11, label, size=10.5, colour=_GOAL, anchor="middle"))
    return marks


def _bar(key: str, value: float, spread: tuple[float, float], scale: float, at: float) -> list[str]:
    colour = _OURS if key.startswith(("http2", "grpcio")) else _LIMIT if key == "null" else _THEIRS
    middle = at + _BAR / 2
    label = "null server (the generator's ceiling)" if key == "null" else TITLES[key]
    longest = float(_VALUES - _BARS)
    width = min(longest, max(1.0, value * scale))
    low, high = (_BARS + min(longest, end * scale) for end in spread)
    return [
        text(_LABELS, middle + 4, label, size=12, anchor="end", weight=600 if colour == _OURS else 400),
        f'<rect x="{_BARS}" y="{at:.1f}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>',
        line(low, middle, high, middle, INK),
    ]


def _value(key: str, value: float, base: float | None, figure: str, end: float, at: float) -> str:
    words = f"{value:,.0f} µs" if figure == "p50_us" else f"{value:,.0f}"
    if base and not key.startswith("plain"):
        words += f"  ({base / value if figure == 'p50_us' else value / base:.1f}x)"
    return text(end + 8, at + _BAR / 2 + 4, words, size=12)


def _spread(measurements: Sequence[Measurement], key: str, load: Load, figure: str) -> tuple[float, float]:
    values = [getattr(m, figure) for m in measurements if m.contender == key and m.load == load.key and usable(m)]
    return min(values), max(values)
