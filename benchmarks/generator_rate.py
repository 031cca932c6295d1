"""What the generator of `mnist1d bench` can offer from one core, and grpcio's client beside it.

    python benchmarks/generator_rate.py [--seconds 5] [--server 127.0.0.1:8001 --model mnist1d-conv]

Against `benchmarks/null_server.py`, which costs less than the generator; each is pinned to a core of its own where
there are two. "A CPU second" is what the generator would do if nothing else ran: answers divided by the processor time
that its process used. On a machine that is busy with other things this is the number to read; the rate is what was
seen. With --server the same loads are put on that server, too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from service.bench.generators import run_here
from service.bench.inputs import made_inputs, messages
from service.bench.plan import Plan
from service.client import AsyncInferenceClient, InferenceClient

NULL_SERVER = Path(__file__).with_name("null_server.py")
LOADS = (
    ("closed, 4 x 16 in flight", {"in_flight": 16}),
    ("closed, 1 x 1 in flight", {"in_flight": 1, "connections": 1}),
    ("open, 1,000/s", {"rate": 1_000.0}),
    ("open, 20,000/s", {"rate": 20_000.0}),
    ("open, 40,000/s", {"rate": 40_000.0}),
)


def plan_for(server: str, model: str, seconds: float) -> Plan:
    with InferenceClient(server) as client:
        info = client.model(model)
    host, _, port = server.rpartition(":")
    return Plan(
        host=host,
        port=int(port),
        tls=None,
        headers=(),
        messages=messages(model, "", made_inputs(info, batch=1, count=16, shapes={}, seed=0), typed=False),
        expected=tuple((tensor.name, tensor.datatype, tensor.shape) for tensor in info.outputs),
        connections=4,
        in_flight=1,
        rate=None,
        duration_s=seconds,
        requests=None,
        warm_up_s=1.0,
        deadline_s=5.0,
        check=False,
    )


def show(plan: Plan) -> None:
    print(f"{'':28}{'answers/s':>11}{'a CPU second':>14}{'p50':>13}{'p99':>13}{'lag p99':>13}{'failed':>8}")
    for name, changes in LOADS:
        result = run_here(replace(plan, **changes))
        per_cpu_s = result.rate / result.cpu_share
        cells = [f"{1e6 * h.quantile_s(q):,.0f} us" for h, q in ((result.latency, 0.5), (result.latency, 0.99))]
        lag = f"{1e6 * result.lag.quantile_s(0.99):,.0f} us" if result.lag.count else "-"
        print(
            f"{name:28}{result.rate:>11,.0f}{per_cpu_s:>14,.0f}{cells[0]:>13}{cells[1]:>13}{lag:>13}{result.failed:>8}"
        )


async def grpcio_rate(server: str, model: str, seconds: float) -> tuple[float, float]:
    """(answers a second, answers a CPU second) of grpcio's asyncio client, 64 calls at a time."""
    x = {"x": np.zeros((1, 40), np.float32)}
    async with AsyncInferenceClient(server) as client:

        async def call(until: float) -> int:
            count = 0
            while time.monotonic() < until:
                await client.infer(model, x)
                count += 1
            return count

        await call(time.monotonic() + 0.5)
        began, cpu = time.monotonic(), time.process_time()
        counts = await asyncio.gather(*(call(began + seconds) for _ in range(64)))
        return sum(counts) / (time.monotonic() - began), sum(counts) / (time.process_time() - cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--server", help="another server to put the same loads on")
    parser.add_argument("--model", default="mnist1d-conv")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    null = subprocess.Popen([sys.executable, str(NULL_SERVER), "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        if len(cores) > 1:
            os.sched_setaffinity(null.pid, {cores[-1]})
            os.sched_setaffinity(0, {cores[0]})
        if null.stdout is None:
            raise SystemExit("the null server has no output")
        server = null.stdout.readline().split()[-1]
        print(f"{len(cores)} cores, load {os.getloadavg()[0]:.1f} before; the null server:")
        show(plan_for(server, "null", arguments.seconds))
        rate, per_cpu_s = asyncio.run(grpcio_rate(server, "null", arguments.seconds))
        print(f"{'grpcio asyncio, 64 calls':28}{rate:>11,.0f}{per_cpu_s:>14,.0f}")
    finally:
        null.terminate()
        null.wait(10)
    if arguments.server:
        print(f"\n{arguments.model} at {arguments.server}:")
        show(plan_for(arguments.server, arguments.model, arguments.seconds))


if __name__ == "__main__":
    main()
