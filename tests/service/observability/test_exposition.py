from __future__ import annotations

import math

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from service.observability.exposition import Family, Kind, openmetrics, text, wants_openmetrics

NASTY = 'a "quoted" \\ back\nslash'


def families() -> list[Family]:
    requests = Family("nv_requests", Kind.COUNTER, 'Requests, "all" of them \\ here.')
    requests.add(3, model=NASTY, version="1")
    seconds = Family("busy_seconds_total", Kind.COUNTER, "Seconds.")
    seconds.add(1.5)
    gauge = Family("temperature", Kind.GAUGE, "Any number.")
    for name, value in (("inf", math.inf), ("minus", -math.inf), ("nan", math.nan), ("tiny", 1e-300), ("int", 2**60)):
        gauge.add(value, which=name)
    histogram = Family("size", Kind.HISTOGRAM, "Sizes.")
    histogram.add_histogram((1, 2.5), (4, 0, 2), 11.0, model="m")
    return [requests, seconds, gauge, histogram, Family("nothing", Kind.GAUGE, "No samples.")]


def parsed(page: str, parser) -> dict[str, dict[tuple, float]]:
    return {
        family.name: {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in family.samples}
        for family in parser(page)
    }


@pytest.mark.parametrize(("render", "parser"), [(text, parse_text), (openmetrics, parse_openmetrics)])
def test_the_parser_of_prometheus_reads_every_sample_back(render, parser) -> None:
    found = parsed(render(families()), parser)
    # Python's parser of the text format, unlike Prometheus itself, adds the suffix that it expects.
    name = "nv_requests_total" if parser is parse_text else "nv_requests"
    assert found["nv_requests"] == {(name, (("model", NASTY), ("version", "1"))): 3}
    assert found["busy_seconds"] == {("busy_seconds_total", ()): 1.5}
    gauge = {labels[0][1]: value for (_, labels), value in found["temperature"].items()}
    assert math.isnan(gauge.pop("nan"))
    assert gauge == {"inf": math.inf, "minus": -math.inf, "tiny": 1e-300, "int": 2**60}
    assert found["size"] == {
        ("size_bucket", (("le", "1.0"), ("model", "m"))): 4,
        ("size_bucket", (("le", "2.5"), ("model", "m"))): 4,
        ("size_bucket", (("le", "+Inf"), ("model", "m"))): 6,
        ("size_count", (("model", "m"),)): 6,
        ("size_sum", (("model", "m"),)): 11,
    }


def test_a_counter_keeps_its_name_in_both_formats() -> None:
    assert "# TYPE nv_requests counter\n" in text(families())
    assert "# TYPE busy_seconds_total counter\n" in text(families())
    assert "# TYPE nv_requests unknown\n" in openmetrics(families())
    assert "# TYPE busy_seconds counter\n" in openmetrics(families())
    for page in (text(families()), openmetrics(families())):
        assert "\nbusy_seconds_total 1.5\n" in page
        assert "\nnv_requests{" in page


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=x", False),
        ("text/plain;version=0.0.4;q=0.9, application/openmetrics-text;q=0.5", False),
        (
            # What Prometheus sends.
            "application/openmetrics-text;version=1.0.0;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            True,
        ),
    ],
)
def test_openmetrics_is_sent_to_whoever_prefers_it(accept, wanted) -> None:
    assert wants_openmetrics(accept) is wanted
