"""Millions of requests on one server: every answer right, and what it leaves in memory.

    python benchmarks/soak.py [--requests 5000000] [--transport http2] [--growth-mb 20]

The load comes in rounds, each on connections of its own, and in turn as ordinary calls, as calls with a grpc-timeout
of their own each, as messages of long streams, and as calls of which the connection brings a thousand at a time.
Answers are compared with what the model gives here: y = x + 1, exactly. Memory is the server's resident set between
rounds; it is compared with what it was after the first of each kind, which fill the allocator's pools. A wrong or
missing answer, or more growth than allowed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from hot_reload import NAME, publish_version, serving

from service.bench.answers import Right
from service.bench.generators import run_here
from service.bench.inputs import messages
from service.bench.plan import Plan

VERSION = 1
KINDS = {
    "calls, 8 x 4 in flight": {},
    "calls with timeouts, 8 x 4": {"vary_timeouts": True},
    "streams, 8 x 4 in flight": {"streaming": True},
    "calls, 2 x 500 in flight": {"connections": 2, "in_flight": 500},
}
ROUNDS_OF_EACH = 5


def plan_for(port: int, requests: int) -> Plan:
    random = np.random.default_rng(0)
    inputs = [{"x": random.integers(-100, 100, (rows, 8)).astype(np.float32)} for rows in (1, 1, 1, 2, 5, 8) * 4]
    return Plan(
        host="127.0.0.1",
        port=port,
        tls=None,
        headers=(),
        messages=messages(NAME, "", inputs, typed=False),
        expected=(("y", "FP32", (-1, 8)),),
        connections=8,
        in_flight=4,
        rate=None,
        duration_s=None,
        requests=requests,
        warm_up_s=0.0,
        deadline_s=30.0,
        check=True,
        right=Right(outputs=tuple({"y": VERSION * each["x"] + 1} for each in inputs)),
    )


def soak(port: int, resident_bytes, requests: int) -> tuple[int, int, list[int]]:  # noqa: ANN001 - a method
    """Right answers, failures, and the resident set after each round, in bytes."""
    done = failed = 0
    resident: list[int] = []
    each = requests // (len(KINDS) * ROUNDS_OF_EACH)
    print(f"{'round':>5}  {'kind':28}{'answers':>11}{'answers/s':>11}{'failed':>8}{'resident MB':>13}")
    for number in range(ROUNDS_OF_EACH):
        for kind, changes in KINDS.items():
            result = run_here(replace(plan_for(port, each), **changes))
            failed_now = sum(result.errors.values()) + (each - result.done if result.stopped else 0)
            done, failed = done + result.done, failed + failed_now
            resident.append(resident_bytes())
            print(
                f"{number + 1:>5}  {kind:28}{result.done:>11,}{result.rate:>11,.0f}{failed_now:>8}"
                f"{resident[-1] / 1e6:>13.1f}",
                flush=True,
            )
            for (code, message), count in result.errors.most_common(3):
                print(f"       {count} x {code}: {message}")
    return done, failed, resident


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5_000_000)
    parser.add_argument("--transport", choices=("http2", "grpcio"), default="http2")
    parser.add_argument("--growth-mb", type=float, default=20.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder, "repository")
        repository.mkdir()
        publish_version(repository, VERSION)
        with serving(repository, Path(folder, "log"), "--transport", arguments.transport) as server:
            done, failed, resident = soak(server.port, server.resident_bytes, arguments.requests)
    growth_mb = (resident[-1] - resident[len(KINDS) - 1]) / 1e6
    print(f"{done:,} right answers, {failed:,} failed; the server grew by {growth_mb:+.1f} MB after the first rounds")
    sys.exit(0 if failed == 0 and growth_mb < arguments.growth_mb else 1)


if __name__ == "__main__":
    main()
