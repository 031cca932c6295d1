from __future__ import annotations

import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.observability import exposition
from service.observability.exposition import Across, Family, Kind
from service.workers.totals import Totals, dump, load


def family(name: str, *samples, kind: Kind = Kind.COUNTER, across: Across = Across.SUM, order=()) -> Family:
    made = Family(name, kind, "help", across=across, worst_first=order)
    for value, labels in samples:
        made.add(value, **labels)
    return made


def values(families, name: str) -> dict[tuple, float]:
    (found,) = [each for each in families if each.name == name]
    return {(suffix, *labels.values()): value for suffix, labels, value in found.samples}


def test_families_go_there_and_back() -> None:
    histogram = Family("h", Kind.HISTOGRAM, "help\n")
    histogram.add_histogram((0.5, 1.0), [1, 2, 3], 4.5, method="x")
    pages = [histogram, family("g", (math.inf, {}), kind=Kind.GAUGE, across=Across.WORST, order=("bad", "good"))]
    assert load(dump(pages)) == pages


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "Expecting value"),
        (b"{}1", "Extra data"),
        (b"[1]", "no families"),
        (b'[["a","no kind","h","sum",[],[]]]', "no kind"),
    ],
)
def test_what_is_no_page_is_refused(text, says) -> None:
    with pytest.raises(ValueError, match=says):
        load(text)


@pytest.mark.parametrize(
    ("across", "expected"),
    [
        (Across.SUM, {("", "a"): 3, ("", "b"): 5}),
        (Across.LEAST, {("", "a"): 1, ("", "b"): 0}),
        (Across.MOST, {("", "a"): 2, ("", "b"): 5}),
        (Across.SAME, {("", "a"): 1}),
        (Across.EACH, {("", "a", "0"): 1, ("", "a", "1"): 2, ("", "b", "1"): 5}),
    ],
)
def test_what_two_workers_make_together(across, expected) -> None:
    totals = Totals()
    totals.update("0", [family("m", (1, {"of": "a"}), kind=Kind.GAUGE, across=across)])
    totals.update("1", [family("m", (2, {"of": "a"}), (5, {"of": "b"}), kind=Kind.GAUGE, across=across)])
    assert values(totals.families([], ["0", "1"]), "m") == expected


def state(version: str, value: str) -> Family:
    labels = {"model": "a", "version": version, "state": value, "reason": "R"}
    return family("s", (1, labels), kind=Kind.GAUGE, across=Across.WORST, order=("UNAVAILABLE", "LOADING", "READY"))


def test_a_version_is_in_the_worst_of_its_states() -> None:
    totals = Totals()
    totals.update("0", [state("1", "READY")])
    totals.update("1", [state("1", "LOADING")])
    totals.update("2", [state("2", "READY")])
    assert values(totals.families([], ["0", "1", "2"]), "s") == {
        ("", "a", "1", "LOADING", "R"): 1,
        ("", "a", "2", "READY", "R"): 1,
    }


def test_of_a_proof_the_samples_of_one_worker_are_told() -> None:
    def proof(which: str) -> Family:
        samples = [(int(s == which), {"model": "a", "version": "1", "state": s}) for s in ("proven", "refused")]
        return family("p", *samples, kind=Kind.GAUGE, across=Across.WORST, order=("refused", "proven"))

    totals = Totals()
    totals.update("0", [proof("proven")])
    totals.update("1", [proof("refused")])
    assert values(totals.families([], ["0", "1"]), "p") == {("", "a", "1", "proven"): 0, ("", "a", "1", "refused"): 1}


def test_a_worker_that_does_not_serve_yet_has_no_say_in_what_is_ready() -> None:
    def page(ready: int) -> list[Family]:
        return [
            family("ready", (ready, {}), kind=Kind.GAUGE, across=Across.LEAST),
            family("count", (1, {})),
        ]

    totals = Totals()
    totals.update("0", page(1))
    totals.update("1", page(0))
    assert values(totals.families([], ["0"]), "ready") == {("",): 1}
    assert values(totals.families([], ["0"]), "count") == {("",): 2}
    assert values(totals.families([], []), "ready") == {("",): 0}


def test_counters_and_histograms_of_a_worker_that_is_gone_stay_and_its_gauges_go() -> None:
    def page(count: int) -> list[Family]:
        histogram = Family("h", Kind.HISTOGRAM, "help")
        histogram.add_histogram((1.0,), [count, 1], 2.5 * count, method="m")
        return [
            family("c", (count, {"code": "OK"})),
            family("g", (count, {}), kind=Kind.GAUGE),
            family("p", (count, {}), across=Across.EACH),
            histogram,
        ]

    totals = Totals()
    totals.update("0", page(10))
    totals.update("1", [*page(4), family("only", (7, {}))])
    before = totals.families([], ["0", "1"])
    totals.retire("1")
    totals.update("1", page(1))
    after = totals.families([], ["0", "1"])
    assert values(before, "c") == {("", "OK"): 14}
    assert values(after, "c") == {("", "OK"): 15}
    assert values(after, "g") == {("",): 11}
    assert values(after, "p") == {("", "0"): 10, ("", "1"): 1}
    assert values(after, "only") == {("",): 7}
    assert values(after, "h") == {
        ("_bucket", "m", "1.0"): 15,
        ("_bucket", "m", "+Inf"): 18,
        ("_count", "m"): 18,
        ("_sum", "m"): 37.5,
    }
    parsed = {found.name: found for found in text_string_to_metric_families(exposition.text(after))}
    assert set(parsed) == {"c", "g", "p", "h", "only"}
    assert len(parsed["h"].samples) == 4


def test_versions_that_nobody_serves_any_more_are_forgotten_with_the_worker_that_counted_them() -> None:
    def page(version: str) -> list[Family]:
        return [family("c", (5, {"model": "a", "version": version}))]

    totals = Totals()
    totals.update("0", page("1"))
    totals.retire("0")
    assert values(totals.families([], []), "c") == {("", "a", "1"): 5}
    totals.update("1", page("2"))
    assert values(totals.families([], ["1"]), "c") == {("", "a", "2"): 5}


def test_the_supervisors_own_page_comes_first_and_has_a_name() -> None:
    totals = Totals()
    totals.update("0", [family("p", (1, {}), across=Across.EACH), family("machine", (2, {}), across=Across.SAME)])
    own = [family("p", (9, {}), across=Across.EACH), family("machine", (3, {}), across=Across.SAME)]
    found = totals.families(own, ["0"])
    assert values(found, "p") == {("", "supervisor"): 9, ("", "0"): 1}
    assert values(found, "machine") == {("",): 3}
