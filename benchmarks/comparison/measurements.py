"""One load on one server, once: what came of it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmarks import null_server
from benchmarks.comparison import servers
from benchmarks.comparison.questions import TOLERANCE
from service.bench.answers import Right
from service.bench.generators import run_here
from service.bench.load import Unreachable
from service.bench.plan import Plan
from service.pb import open_inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.comparison.contenders import Contender
    from benchmarks.comparison.loads import Load
    from benchmarks.comparison.questions import Questions
    from benchmarks.comparison.servers import Server
    from service.bench.plan import Result

_DEADLINE_S = 10.0


@dataclass(frozen=True)
class Measurement:
    """Figures of one load on one server in one round."""

    contender: str
    load: str
    round: int
    seconds: float
    done: int
    """Right answers."""
    failed: int
    """Errors and wrong answers."""
    problems: tuple[str, ...]
    """What the first of them were."""
    rate: float
    """Right answers a second."""
    samples_rate: float
    """Examples answered a second."""
    p50_us: float
    p99_us: float
    generator_share: float
    """Of a core, used by the generator."""
    server_us: float
    """Processor time of the server for each answer; 0 where it was not taken."""
    others_share: float
    """Of a core, used by neither of them: what else goes on on this machine, and the kernel's own."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}
        return rounded | {"problems": list(self.problems)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Measurement:
        """From JSON."""
        return cls(**(values | {"problems": tuple(values["problems"])}))


def plan(contender: Contender, load: Load, asked: Questions, port: int, seconds: float) -> Plan:
    """The load for the generator, with the right answers."""
    messages = asked.messages(load.batch, typed=contender.typed)
    if contender.answers == "model":
        expected = asked.expected
        right = asked.right(load.batch, 0.0 if contender.exact else TOLERANCE)
    else:
        expected = ()
        right = Right(bodies=messages if contender.answers == "request" else len(messages) * (_zeros(load),))
    return Plan(
        host="127.0.0.1",
        port=port,
        tls=None,
        headers=(),
        messages=messages,
        expected=expected,
        connections=load.connections,
        in_flight=load.in_flight,
        rate=None,
        duration_s=seconds,
        requests=None,
        warm_up_s=0.0,
        deadline_s=_DEADLINE_S,
        check=contender.exact,
        streaming=load.streaming,
        vary_timeouts=load.vary_timeouts,
        right=right,
    )


def _zeros(load: Load) -> bytes:
    answer = null_server.ANSWER
    if load.streaming:
        return pb.ModelStreamInferResponse(infer_response=answer).SerializeToString()
    return answer.SerializeToString()


def first_answer(wanted: Plan) -> str | None:
    """What is wrong with a server's first answers; None if they are right."""
    try:
        result = run_here(replace(wanted, duration_s=None, requests=len(wanted.messages), connections=1))
    except Unreachable as error:
        return str(error)
    return None if not result.failed and result.done else _problems(result)[0]


def measure(
    server: Server,
    contender: Contender,
    load: Load,
    wanted: Plan,
    *,
    round_number: int,
    cores: Sequence[int],
    warm_up_s: float,
) -> Measurement:
    """Warm up, then measure for as long as the plan says."""
    run_here(replace(wanted, duration_s=warm_up_s))
    began, server_before = time.monotonic(), server.cpu_s()
    generator_before, busy_before = time.process_time(), servers.busy_s(cores)
    result = run_here(wanted)
    generator_s = time.process_time() - generator_before
    server_s = server.cpu_s() - server_before
    others_s = servers.busy_s(cores) - busy_before - generator_s - server_s
    took_s = time.monotonic() - began
    return Measurement(
        contender=contender.key,
        load=load.key,
        round=round_number,
        seconds=result.seconds,
        done=result.done,
        failed=result.failed,
        problems=tuple(_problems(result)),
        rate=result.rate,
        samples_rate=result.rate * load.batch,
        p50_us=1e6 * result.latency.quantile_s(0.5),
        p99_us=1e6 * result.latency.quantile_s(0.99),
        generator_share=result.cpu_share,
        server_us=1e6 * server_s / result.done if result.done else 0.0,
        others_share=max(0.0, others_s / took_s),
    )


def _problems(result: Result) -> list[str]:
    told = [f"{count} x {code} {message}".strip() for (code, message), count in result.errors.most_common(3)]
    if result.stopped:
        told.append(result.stopped)
    return told or ([] if result.done else ["no answer"])
