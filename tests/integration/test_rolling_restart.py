"""Servers restarted in turn under load, as orchestrators do; `benchmarks/rolling_restart.py` does it 50 times."""

from __future__ import annotations

import pytest

from benchmarks.rolling_restart import run

GRACE_S = 10.0


@pytest.mark.slow
def test_a_client_with_two_servers_and_retries_notices_no_restart(tmp_path) -> None:
    report = run(tmp_path, restarts=3, clients=3, grace_s=GRACE_S)
    assert (report.load.failed, report.load.wrong) == ([], 0)
    assert min(report.load.answers) > 0
    assert report.exit_codes == [0, 0, 0]
    assert max(report.exits_s) < GRACE_S
