"""Servers restarted in turn under load: `benchmarks/rolling_restart.py` in small."""

from __future__ import annotations

from benchmarks.rolling_restart import restart_under_load


def test_no_call_fails_while_servers_are_restarted_in_turn(tmp_path) -> None:
    outcome = restart_under_load(tmp_path, restarts=3, clients=3, grace_s=30)
    assert (outcome.failed, outcome.wrong) == ([], 0)
    assert outcome.exit_codes == {0: 5}
    assert all(took_s < 30 for took_s in outcome.stop_s)
    assert min(outcome.answered_between) > 0
