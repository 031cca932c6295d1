"""``python -m benchmarks.comparison``: measure, and write what came of it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.comparison import h2load, picture, report
from benchmarks.comparison.contenders import TITLES, contenders
from benchmarks.comparison.environments import BUILD, ROOT, Absent
from benchmarks.comparison.environments import h2load as find_h2load
from benchmarks.comparison.loads import LOADS
from benchmarks.comparison.measurements import Measurement, first_answer, measure, plan
from benchmarks.comparison.questions import provenance, questions, trained
from benchmarks.comparison.ratios import ratios
from benchmarks.comparison.servers import NotStarted, Server, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.comparison.contenders import Contender
    from benchmarks.comparison.loads import Load
    from benchmarks.comparison.questions import Questions

NAME = "serving_comparison"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 if every answer was right, 1 if some were not. Missed bounds are told, not punished."""
    given = _parser().parse_args(arguments)
    if given.output is None:
        # What is committed is replaced by the whole comparison only.
        is_whole = given.contenders == list(TITLES) and set(given.loads) == set(LOADS) and not given.quick
        given.output = ROOT / "benchmarks" / "results" if is_whole else BUILD
    if given.report is not None:
        _write(json.loads(given.report.read_text()), given.output)
        return 0
    if given.quick:
        given.seconds, given.warm_up_s, given.rounds = min(given.seconds, 0.3), 0.1, 1
    all_cores = sorted(os.sched_getaffinity(0))
    cores = all_cores[: given.cores or None]
    os.sched_setaffinity(0, cores)
    found, absent = contenders(given.contenders, install=not given.no_install)
    loads = _loads(given.loads, absent)
    asked = questions(given.repository or trained(BUILD), given.model)
    load_before, began = os.getloadavg()[0], time.monotonic()
    measurements: list[Measurement] = []
    for round_number in range(1, given.rounds + 1):
        for contender in list(found):
            print(f"round {round_number} of {given.rounds}: {contender.title}", flush=True)
            try:
                measurements += _measure_all(contender, loads, asked, given, round_number, cores)
            except NotStarted as error:
                print(f"  did not start: {error}", flush=True)
                absent[contender.key] = f"did not start: {error}"
                found.remove(contender)
    written = report.document(
        machine={
            "processor": _processor(),
            "cores": len(cores),
            "all_cores": len(all_cores),
            "kernel": f"{platform.system()} {platform.release()}",
            "load_before": load_before,
            "load_after": os.getloadavg()[0],
        },
        run={
            "command": " ".join(["python -m benchmarks.comparison", *(arguments or sys.argv[1:])]),
            "rounds": given.rounds,
            "seconds": given.seconds,
            "warm_up_s": given.warm_up_s,
            "took_s": round(time.monotonic() - began, 1),
            "loads": "".join(load.key for load in loads),
            "model": provenance(asked),
            "libraries": _libraries(),
            "right": sum(each.done for each in measurements),
            "wrong": sum(each.failed for each in measurements),
        },
        versions={contender.key: contender.version for contender in found},
        absent=absent,
        measurements=measurements,
    )
    _write(written, given.output)
    print(f"\n{report.figure_table(measurements)}\n\n{report.ratio_table(ratios(measurements))}")
    print(f"\n{written['run']['took_s']:.0f} s; {given.output}/{NAME}.md, .json and .svg")
    return int(written["run"]["wrong"] > 0)


def _measure_all(
    contender: Contender,
    loads: Sequence[Load],
    asked: Questions,
    given: argparse.Namespace,
    round_number: int,
    cores: Sequence[int],
) -> list[Measurement]:
    """Start it, put every load on it that it gets, and stop it."""
    measured = []
    port = free_port()
    mine = [load for load in loads if load.key in contender.loads]
    with tempfile.TemporaryDirectory() as folder:
        command = contender.start(asked, Path(folder), port)
        with Server(command, Path(folder) / "log") as server:
            first = plan(contender, LOADS["A"], asked, port, 1.0)
            server.wait_until(lambda: first_answer(first))
            for load in mine:
                wanted = plan(contender, load, asked, port, given.seconds)
                common = {"round_number": round_number, "warm_up_s": given.warm_up_s}
                if load.by_h2load:
                    size = asked.answer_bytes if contender.answers == "model" else 1
                    seen = h2load.measure(contender, load, wanted, answer_bytes=size, **common)
                else:
                    seen = measure(server, contender, load, wanted, cores=cores, **common)
                measured.append(seen)
                print(f"  {load.key}  {_line(seen)}", flush=True)
    return measured


def _line(seen: Measurement) -> str:
    p50 = f"  p50 {seen.p50_us:,.0f} us" if seen.p50_us else ""
    wrong = f"  {seen.failed:,} FAILED: {'; '.join(seen.problems)}" if seen.failed else ""
    return f"{seen.rate:>10,.0f} answers/s{p50}  generator {seen.generator_share:.0%}{wrong}"


def _loads(keys: str, absent: dict[str, str]) -> list[Load]:
    chosen = [LOADS[key] for key in LOADS if key in keys]
    if any(load.by_h2load for load in chosen):
        try:
            find_h2load()
        except Absent as error:
            absent["load H"] = str(error)
            chosen = [load for load in chosen if not load.by_h2load]
    return chosen


def _write(written: dict[str, Any], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{NAME}.json").write_text(json.dumps(written, indent=1) + "\n")
    (output / f"{NAME}.md").write_text(report.markdown(written))
    (output / f"{NAME}.svg").write_text(picture.svg(written))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _libraries() -> str:
    packages = ", ".join(f"{name} {_version(name)}" for name in ("onnxruntime", "grpcio", "uvloop", "numpy"))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False
    ).stdout.strip()
    return f"Python {platform.python_version()}, {packages}; commit {commit or 'unknown'}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _parser() -> argparse.ArgumentParser:
    who = "\n".join(f"  {key:12} {title}" for key, title in TITLES.items())
    what = "\n".join(f"  {load.key}  {load.title}: {load.shape}" for load in LOADS.values())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.comparison",
        description="Put the same loads on this server and on others, check every answer, and write a report.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"contenders:\n{who}\n\nloads:\n{what}",
    )
    parser.add_argument(
        "--contenders", type=_keys, default=list(TITLES), help="by key, separated by commas; default all"
    )
    parser.add_argument("--loads", type=_load_keys, default="".join(LOADS), help="their letters; default %(default)s")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a measurement; default %(default)s")
    parser.add_argument("--warm-up-s", type=float, default=0.7, help="before it; default %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    parser.add_argument("--cores", type=int, default=2, help="for everything together; 0: all; default %(default)s")
    parser.add_argument("--repository", type=Path, help="a model repository; default: one is made, trained hastily")
    parser.add_argument("--model", default="mnist1d-conv", help="a model in it; default %(default)s")
    parser.add_argument("--quick", action="store_true", help="one short round: to see that everything works")
    parser.add_argument("--no-install", action="store_true", help="leave out what is not installed or built")
    parser.add_argument(
        "--output",
        type=Path,
        help="where to write the report; default: benchmarks/results; build/comparison for a part of it all",
    )
    parser.add_argument("--report", type=Path, metavar="JSON", help="write the report of an earlier run again")
    return parser


def _keys(text: str) -> list[str]:
    keys = text.split(",")
    unknown = [key for key in keys if key not in TITLES]
    if unknown:
        raise argparse.ArgumentTypeError(f"no contender is called {', '.join(unknown)}; there are {', '.join(TITLES)}")
    return keys


def _load_keys(text: str) -> str:
    unknown = [key for key in text if key not in LOADS]
    if unknown or not text:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected letters of {''.join(LOADS)}")
    return text


if __name__ == "__main__":
    sys.exit(main())
