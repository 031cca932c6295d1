"""A second opinion: nghttp2's h2load as the generator.

It costs less than ours and reads no answer; what it knows of them is their number, HTTP status and size.
"""

from __future__ import annotations

import re
import resource
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

from benchmarks.comparison import environments
from benchmarks.comparison.measurements import Measurement

if TYPE_CHECKING:
    from benchmarks.comparison.contenders import Contender
    from benchmarks.comparison.loads import Load
    from service.bench.plan import Plan


def measure(
    contender: Contender, load: Load, wanted: Plan, *, round_number: int, warm_up_s: float, answer_bytes: int
) -> Measurement:
    """Warm up, then measure for as long as the plan says; its first message is sent over and over."""
    message = wanted.messages[0]
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\0" + len(message).to_bytes(4, "big") + message)
        body.flush()
        command = [str(environments.h2load()), "--clients", str(load.connections), "-m", str(load.in_flight)]
        command += ["--duration", _ms(wanted.duration_s or 1.0), "--warm-up-time", _ms(warm_up_s), "--data", body.name]
        command += ["--header", "te: trailers", "--header", "content-type: application/grpc"]
        command += [f"http://{wanted.host}:{wanted.port}/inference.GRPCInferenceService/ModelInfer"]
        before, began = _children_s(), time.monotonic()
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        share = (_children_s() - before) / (time.monotonic() - began)
    return read(said, contender.key, load, round_number, share, answer_bytes)


def read(said: str, contender: str, load: Load, round_number: int, share: float, answer_bytes: int) -> Measurement:
    """From h2load's report; ``answer_bytes`` is what an answer holds at least."""
    counts = re.search(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded", said)
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", said)
    data = re.search(r"\((\d+)\) data", said)
    problems = []
    done = succeeded = size = 0
    if counts is None or rate is None or data is None:
        problems.append("h2load reported nothing")
    else:
        done, succeeded, size = int(counts[1]), int(counts[2]), int(data[1])
        if done != succeeded or not done:
            problems.append(f"{succeeded} of {done} succeeded")
        elif size / done < answer_bytes:
            # gRPC's errors are successes of HTTP; they have no message.
            problems.append(f"{size / done:.0f} bytes an answer, at least {answer_bytes} were expected")
    right = 0.0 if problems or rate is None else float(rate[1])
    return Measurement(
        contender=contender,
        load=load.key,
        round=round_number,
        seconds=done / right if right else 0.0,
        done=done if right else 0,
        failed=0 if right else max(1, done),
        problems=tuple(problems),
        rate=right,
        samples_rate=right * load.batch,
        p50_us=0.0,
        p99_us=0.0,
        generator_share=share,
        server_us=0.0,
        others_share=0.0,
    )


def _ms(seconds: float) -> str:
    return f"{max(1, round(1e3 * seconds))}ms"


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
