"""Whether a change made the server slower: this checkout against another one, in turns, and the other against itself.

    git worktree add /tmp/before HEAD~3
    python -m benchmarks.before_after /tmp/before [--loads A,B] [--pairs 20] [--seconds 2]

All servers run at once and are loaded one after the other (before, after, before again) in changing order. A pair gives
two ratios, after against before and before against before; how far the second strays from 1 is what the machine alone
does. Every answer is checked. Rates are answers a second; processor time is the server's for each answer.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.comparison.contenders import Contender
from benchmarks.comparison.environments import BUILD, ROOT
from benchmarks.comparison.loads import LOADS
from benchmarks.comparison.measurements import first_answer, measure, plan
from benchmarks.comparison.questions import questions, trained
from benchmarks.comparison.servers import Command, Server, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.comparison.measurements import Measurement
    from benchmarks.comparison.questions import Questions

_WARM_UP_S = 0.5
_BEFORE, _AFTER, _AGAIN = "before", "after", "before again"


def contender(key: str, checkout: Path) -> Contender:
    """The server of a checkout, in this environment."""

    def start(asked: Questions, _: Path, port: int) -> Command:
        # The folder comes first on the path of `python -m`, before what is installed.
        run = ["env", "-C", str(checkout), sys.executable, "-m", "service.cli", "serve", str(asked.repository)]
        return Command([*run, "--port", str(port), "--no-metrics", "--control-port", "0", "--log-level", "warning"])

    return Contender(key, str(checkout), start, exact=True)


def interval(ratios: Sequence[float]) -> str:
    """Median, and the middle four fifths."""
    ordered = sorted(ratios)
    tenth = len(ordered) // 10
    return f"{statistics.median(ordered):.3f} ({ordered[tenth]:.3f} to {ordered[-1 - tenth]:.3f})"


def report(measured: Sequence[dict[str, Measurement]], load: str) -> str:
    """One load's pairs."""
    lines = [f"{load}, {len(measured)} pairs: median (middle four fifths)"]
    for name, figure in (("answers a second", "rate"), ("p50", "p50_us"), ("processor time", "server_us")):
        for label, key in (("after / before", _AFTER), ("before again / before", _AGAIN)):
            ratios = [getattr(pair[key], figure) / getattr(pair[_BEFORE], figure) for pair in measured]
            lines.append(f"  {name:18} {label:24} {interval(ratios)}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="folder of the other checkout")
    parser.add_argument("--loads", default="A,B", help=f"of {', '.join(LOADS)}, as `make bench` names them")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    asked = questions(trained(BUILD), "mnist1d-conv")
    checkouts = {_BEFORE: options.before.resolve(), _AFTER: ROOT, _AGAIN: options.before.resolve()}
    orders = list(itertools.permutations(checkouts))
    cores = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        running: dict[str, tuple[Contender, Server, int]] = {}
        for key, checkout in checkouts.items():
            chosen, port = contender(key, checkout), free_port()
            server = stack.enter_context(Server(chosen.start(asked, Path(folder), port), Path(folder) / f"{key}.log"))
            wanted = plan(chosen, LOADS["B"], asked, port, 1.0)
            server.wait_until(lambda wanted=wanted: first_answer(wanted))
            running[key] = chosen, server, port
        for load in map(LOADS.__getitem__, options.loads.split(",")):
            measured = []
            for number in range(options.pairs):
                pair = {}
                for key in orders[number % len(orders)]:
                    chosen, server, port = running[key]
                    wanted = plan(chosen, load, asked, port, options.seconds)
                    pair[key] = measure(
                        server, chosen, load, wanted, round_number=number, cores=cores, warm_up_s=_WARM_UP_S
                    )
                    if pair[key].failed:
                        raise SystemExit(f"{key}: {pair[key].failed} wrong answers: {pair[key].problems}")
                measured.append(pair)
            print(report(measured, load.title), flush=True)


if __name__ == "__main__":
    main()
