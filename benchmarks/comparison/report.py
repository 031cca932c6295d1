"""A run as a document for programs, and that document for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.comparison.contenders import TITLES
from benchmarks.comparison.loads import LOADS
from benchmarks.comparison.measurements import Measurement
from benchmarks.comparison.ratios import Ratio, median, ratios, usable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.comparison.loads import Load

BUSY = 0.9
"""Of a core: a generator that used more may be what was measured."""
_FIGURES = {"rate": "answers/s", "samples_rate": "examples/s", "p50_us": "p50"}

_HOW = """\
Made by `{command}`: every server alone, one after the other, {times}; {seconds:g} s a measurement after {warm_up_s:g} s
of warming up, {took_s:.0f} s in all. Every answer was compared with onnxruntime's to the same input: {right:,} were
right, {wrong:,} were not."""
_ABOUT_RATIOS = """\
The ratio within each round, then the median of the rounds (lowest to highest). *Plain* is the better of the two plain
grpcio servers, raw and typed contents, in each round. Ratios without a bound are for comparison. *By processor time* is
how many times less of it the server takes for an answer: where other work shares the machine, servers with many threads
get more of it than those with one, and this ratio says what the other cannot."""
_ABOUT_CPU = """\
Server and generator share the cores, so that a server that needs little leaves more to the generator. Processor time of
the server alone, in microseconds an answer:"""
_ABOUT_GENERATOR = f"""\
Load H comes from nghttp2's h2load, which reads no answer (their number, status and size are checked); every other load
from the generator of `mnist1d bench`, one process. The null server answers with bytes cut beforehand: its figures are
what the generator can offer beside a server on the same cores, and the last row says what a core of its own would give.
How much of a core the generator used; above
{BUSY:.0%}, in bold, it may be what was measured, and the server is at least as good as its figure:"""


def document(
    machine: dict[str, Any],
    run: dict[str, Any],
    versions: dict[str, str],
    absent: dict[str, str],
    measurements: Sequence[Measurement],
) -> dict[str, Any]:
    """Everything that a run gave; `markdown` and the picture are made from it alone."""
    return {
        "machine": machine,
        "run": run,
        "versions": versions,
        "absent": absent,
        "ratios": [
            {
                "load": ratio.target.load,
                "ours": ratio.target.ours,
                "against": list(ratio.target.against),
                "figure": ratio.target.figure,
                "at_least": ratio.target.at_least,
                "median": round(ratio.median, 3) if ratio.median is not None else None,
                "lowest": round(ratio.lowest, 3),
                "highest": round(ratio.highest, 3),
                "processor": round(ratio.processor, 3) if ratio.processor is not None else None,
                "verdict": ratio.verdict,
                "why": ratio.why,
            }
            for ratio in ratios(measurements)
        ],
        "measurements": [each.as_dict() for each in measurements],
    }


def read_measurements(document: dict[str, Any]) -> list[Measurement]:
    """Those of a document."""
    return [Measurement.from_dict(each) for each in document["measurements"]]


def markdown(document: dict[str, Any]) -> str:
    """The report."""
    measurements = read_measurements(document)
    run = document["run"]
    parts = [
        "# This server beside others",
        _HOW.format(times="once" if run["rounds"] == 1 else f"{run['rounds']} times, medians", **run),
        "![Answers a second of each server under each load](serving_comparison.svg)",
        _table(("what", "is"), _about(document)),
        "## Ratios",
        _ABOUT_RATIOS,
        ratio_table(ratios(measurements)),
        "## Figures",
        _table(("load", "is", "calls under way", "figure"), _loads(measurements)),
        figure_table(measurements),
        _ABOUT_CPU,
        cpu_table(measurements),
        "## The generator",
        _ABOUT_GENERATOR,
        generator_table(measurements),
    ]
    if document["absent"]:
        parts += ["## Not measured", _table(("server", "why"), _absent(document["absent"]))]
    wrong = [each for each in measurements if not usable(each)]
    if wrong:
        parts += [
            "## Wrong answers",
            "Measurements with any are in no figure above.",
            _table(
                ("server", "load", "round", "right", "failed", "what"),
                [
                    (TITLES[e.contender], e.load, e.round, e.done, e.failed, "; ".join(e.problems) or "no answer")
                    for e in wrong
                ],
            ),
        ]
    return "\n\n".join(parts) + "\n"


def ratio_table(found: Sequence[Ratio]) -> str:
    """What is promised and what came of it."""
    rows = []
    for ratio in found:
        target = ratio.target
        against = "plain" if "plain" in target.against and len(target.against) > 1 else TITLES[target.against[0]]
        value = (
            f"{ratio.median:.3g} x ({ratio.lowest:.3g} to {ratio.highest:.3g})"
            if ratio.median is not None
            else ratio.why
        )
        bound = f"{target.at_least:g} x" if target.at_least is not None else "-"
        by_time = f"{ratio.processor:.3g} x" if ratio.processor is not None else "-"
        row = (target.load, TITLES[target.ours], against, _FIGURES[target.figure], bound, value, by_time, ratio.verdict)
        rows.append(row)
    return _table(("load", "server", "against", "figure", "at least", "is", "by processor time", ""), rows)


def figure_table(measurements: Sequence[Measurement]) -> str:
    """A row a server, a column a load. Failures show as such."""
    loads = _seen_loads(measurements)
    rows = [(TITLES[key], *(_figure(measurements, key, load) for load in loads)) for key in _seen(measurements)]
    return _table(("server", *(f"{load.key}, {_column(load)}" for load in loads)), rows)


def cpu_table(measurements: Sequence[Measurement]) -> str:
    """Processor time of the servers."""
    loads = [load for load in _seen_loads(measurements) if not load.by_h2load]
    rows = []
    for key in _seen(measurements):
        values = [median(measurements, key, load.key, "server_us") for load in loads]
        rows.append((TITLES[key], *(f"{value:,.1f}" if value is not None else "-" for value in values)))
    return _table(("server", *(load.key for load in loads)), rows)


def generator_table(measurements: Sequence[Measurement]) -> str:
    """How much of a core the generator used; bold where it may be what was measured."""
    loads = _seen_loads(measurements)
    rows = []
    for key in _seen(measurements):
        values = [median(measurements, key, load.key, "generator_share") for load in loads]
        rows.append((TITLES[key], *(_share(value) for value in values)))
    if "null" in _seen(measurements):
        rates = [_per_busy_second(measurements, load) for load in loads]
        rows.append(("answers a busy second of the generator", *(f"{rate:,.0f}" if rate else "-" for rate in rates)))
    return _table(("server", *(load.key for load in loads)), rows)


def _per_busy_second(measurements: Sequence[Measurement], load: Load) -> float | None:
    rate, share = (median(measurements, "null", load.key, figure) for figure in ("rate", "generator_share"))
    return rate / share if rate and share else None


def _share(value: float | None) -> str:
    if value is None:
        return "-"
    return f"**{value:.0%}**" if value > BUSY else f"{value:.0%}"


def _figure(measurements: Sequence[Measurement], key: str, load: Load) -> str:
    mine = [each for each in measurements if each.contender == key and each.load == load.key]
    if not mine:
        return "-"
    failed = sum(each.failed for each in mine)
    if not any(usable(each) for each in mine):
        return f"{failed:,} failed"
    name = "samples_rate" if load.batch > 1 else "rate"
    value = median(measurements, key, load.key, name)
    p50 = median(measurements, key, load.key, "p50_us")
    cell = f"{value:,.0f}"
    if load.key == "A":
        cell += f" ({p50:,.0f} µs)"
    return cell + (f", {failed:,} failed" if failed else "")


def _column(load: Load) -> str:
    if load.batch > 1:
        return "examples/s"
    return "answers/s (p50)" if load.key == "A" else "answers/s"


def _about(document: dict[str, Any]) -> list[tuple[str, str]]:
    machine, run = document["machine"], document["run"]
    versions = ", ".join(f"{TITLES[key]} {value}" for key, value in document["versions"].items() if value)
    others = [each.others_share for each in read_measurements(document) if each.server_us]
    busy = f"{sum(others) / len(others):.2f}" if others else "no"
    return [
        ("machine", f"{machine['processor']}, {machine['cores']} of {machine['all_cores']} cores, {machine['kernel']}"),
        ("load average", f"{machine['load_before']:.1f} before, {machine['load_after']:.1f} after"),
        ("cores busy with other things", f"{busy} on average, while measuring"),
        ("model", run["model"]),
        ("servers", versions),
        ("libraries", run["libraries"]),
    ]


def _loads(measurements: Sequence[Measurement]) -> list[tuple[str, str, str, str]]:
    return [(load.key, load.title, load.shape, _column(load)) for load in _seen_loads(measurements)]


def _absent(absent: dict[str, str]) -> list[tuple[str, str]]:
    return [(TITLES.get(key, key), why) for key, why in absent.items()]


def _seen(measurements: Sequence[Measurement]) -> list[str]:
    present = {each.contender for each in measurements}
    return [key for key in TITLES if key in present]


def _seen_loads(measurements: Sequence[Measurement]) -> list[Load]:
    present = {each.load for each in measurements}
    return [load for load in LOADS.values() if load.key in present]


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
