from __future__ import annotations

from service.errors import Code
from service.observability.calls import BOUNDS_S, CallDurations


def samples(durations: CallDurations) -> dict[str, list]:
    return {family.name: family.samples for family in durations.families()}


def test_a_duration_on_a_bound_is_within_it() -> None:
    durations = CallDurations()
    for took_s in (0.0, BOUNDS_S[0], BOUNDS_S[0] * 1.01, BOUNDS_S[-1], 1e6):
        durations.began()
        durations.ended("/a.B/C", Code.OK, (took_s,))
    found = samples(durations)["mnist1d_request_duration_seconds"]
    buckets = [value for suffix, _, value in found if suffix == "_bucket"]
    assert (buckets[0], buckets[1], buckets[-2], buckets[-1]) == (2, 3, 4, 5)
    assert found[-2] == ("_count", {"method": "a.B/C", "code": "OK"}, 5)
    assert found[-1][2] == sum((0.0, BOUNDS_S[0], BOUNDS_S[0] * 1.01, BOUNDS_S[-1], 1e6))


def test_methods_and_codes_are_told_apart_and_what_runs_is_counted() -> None:
    durations = CallDurations()
    for _ in range(3):
        durations.began()
    durations.ended("/a.B/C", Code.OK, (0.1,))
    durations.ended("/a.B/C", Code.NOT_FOUND, (0.1,))
    found = samples(durations)
    counts = {
        (labels["method"], labels["code"]): value
        for suffix, labels, value in found["mnist1d_request_duration_seconds"]
        if suffix == "_count"
    }
    assert counts == {("a.B/C", "OK"): 1, ("a.B/C", "NOT_FOUND"): 1}
    assert found["mnist1d_requests_in_flight"] == [("", {}, 1)]
