from __future__ import annotations

import pytest

from benchmarks.comparison import h2load
from benchmarks.comparison.loads import LOADS

SAID = """\
finished in 2.00s, 24490.50 req/s, 5.59MB/s
requests: {total} total, {total} started, {done} done, {succeeded} succeeded, 0 failed, 0 errored, 0 timeout
status codes: {succeeded} 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 8.38MB (8791481) total, 141.63KB (145032) headers (space savings 96.28%), 9.41MB ({data}) data
"""


def read(said: str):
    return h2load.read(said, "echo", LOADS["H"], 2, 0.4, 85)


def test_the_report_is_read() -> None:
    seen = read(SAID.format(total=36735, done=36735, succeeded=36735, data=36735 * 85))
    assert (seen.rate, seen.done, seen.failed, seen.problems) == (24490.5, 36735, 0, ())
    assert (seen.contender, seen.load, seen.round, seen.generator_share) == ("echo", "H", 2, 0.4)
    assert seen.seconds == pytest.approx(1.5, abs=0.01)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("", "h2load reported nothing"),
        (SAID.format(total=10, done=10, succeeded=9, data=10_000), "9 of 10 succeeded"),
        (SAID.format(total=0, done=0, succeeded=0, data=0), "0 of 0 succeeded"),
        (SAID.format(total=10, done=10, succeeded=10, data=0), "0 bytes an answer, at least 85 were expected"),
    ],
)
def test_what_is_no_answer_counts_as_failed(said, problem) -> None:
    seen = read(said)
    assert (seen.problems, seen.rate, seen.done) == ((problem,), 0.0, 0)
    assert seen.failed >= 1
