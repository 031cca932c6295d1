"""The dashboard and the alerts ask for metrics that there are, by labels that they have."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import publish_affine, put_plain
from tests.containers.conftest import ROOT

yaml = pytest.importorskip("yaml", reason="make test-containers installs it")
promql = pytest.importorskip("promql_parser", reason="make test-containers installs it")

if TYPE_CHECKING:
    from collections.abc import Iterator

MONITORING = ROOT / "deploy/monitoring"
DASHBOARD = json.loads((MONITORING / "grafana/dashboards/mnist1d.json").read_text())
PROMETHEUS = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
ALERTS = [
    rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
SCRAPED = {"job", "instance"}
"""Labels that Prometheus itself gives to everything."""
OF_WORKERS = {"mnist1d_workers": set(), "mnist1d_worker_up": {"worker"}, "mnist1d_worker_restarts_total": {"worker"}}
"""Of a server with several: tests/integration/test_workers.py sees them."""


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for rule in ALERTS:
        yield rule["alert"], rule["expr"]


def parsed(query: str) -> Any:  # any kind of expression
    for variable, value in (("$__rate_interval", "1m"), ("$instance", ".*"), ("$model", ".*")):
        query = query.replace(variable, value)
    return promql.parse(query)


def selectors(query: str) -> list[Any]:
    """Every metric that a query reads, with its matchers."""
    found: list[Any] = []

    def see(node: Any) -> bool:
        if isinstance(node, promql.VectorSelector):
            found.append(node)
        return True

    promql.walk(parsed(query), see)
    return found


@pytest.fixture
async def exposed(repository, serving, fake_training) -> dict[str, set[str]]:
    """The series of a server that has answered a request, by name, with their labels."""
    import numpy as np

    from service.client import AsyncInferenceClient

    publish_affine(repository)
    put_plain(repository, "bad", b"junk")
    async with serving(repository, metrics=True, training_slots=1) as server:
        async with AsyncInferenceClient(f"127.0.0.1:{server.port}") as client:
            await client.infer("affine", {"x": np.zeros((1, 3), np.float32)})
        page = (await asyncio.to_thread(_fetched, server.metrics_url)).decode()
    series: dict[str, set[str]] = {name: set(labels) for name, labels in OF_WORKERS.items()}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? ", page, re.MULTILINE):
        series.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    series["up"] = set()
    return series


def _fetched(url: str) -> bytes:
    with urllib.request.urlopen(url) as response:  # noqa: S310 - our own server
        page: bytes = response.read()
    return page


async def test_every_query_can_be_read_and_asks_for_what_there_is(exposed) -> None:
    asked = 0
    for title, query in queries():
        for selector in selectors(query):
            asked += 1
            assert selector.name in exposed, f"{title}: {selector.name}"
            labels = {matcher.name for matcher in selector.matchers.matchers}
            assert labels <= exposed[selector.name] | SCRAPED, f"{title}: {selector.name} by {labels}"
        # What is summed by must be a label of what is summed.
        known = set().union(SCRAPED, *(exposed[selector.name] for selector in selectors(query)))
        for names in re.findall(r"by \(([^)]*)\)", query):
            assert {name.strip() for name in names.split(",")} <= known, f"{title}: by {names}"
    assert asked > 40


def test_a_query_that_is_none_is_noticed() -> None:
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        parsed("sum(rate(nv_inference_count[5m])")


def test_what_alerts_say_comes_from_their_labels() -> None:
    for rule in ALERTS:
        told = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert told or "sum(" in rule["expr"], rule["alert"]


def test_servers_that_are_gone_are_missed() -> None:
    """A name without an address is no target: neither `up` nor the server's own series are there to be compared."""
    rules = {rule["alert"]: rule for rule in ALERTS}
    for alert, series in (("Down", 'up{job="mnist1d"}'), ("NotReady", "mnist1d_server_ready")):
        assert rules[alert]["expr"] == f"{series} == 0 or absent({series})"
        # What is absent has no instance.
        assert "{{ or $labels.instance " in rules[alert]["annotations"]["summary"]


def test_the_alerts_of_the_documentation_are_among_them() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    (block,) = [each for each in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "alert:" in each]
    written = {rule["alert"]: rule["expr"] for group in yaml.safe_load(block)["groups"] for rule in group["rules"]}
    ours = {rule["alert"]: rule["expr"] for rule in ALERTS}
    assert {name: ours.get(name) for name in written} == written


def test_the_dashboard_is_whole() -> None:
    assert len(panels()) >= 20
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "panels lie upon each other"
    assert max(x for x, _ in cells) == 23
    for panel in panels():
        assert panel["title"], panel["id"]
        assert panel["datasource"]["uid"] == "prometheus"


def test_what_is_provisioned_is_what_there_is() -> None:
    provisioning = MONITORING / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["uid"] == "prometheus"
    (provider,) = yaml.safe_load((provisioning / "dashboards/dashboards.yml").read_text())["providers"]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert f"./deploy/monitoring/grafana/dashboards:{provider['options']['path']}:ro" in services["grafana"]["volumes"]
    (job,) = PROMETHEUS["scrape_configs"]
    (discovery,) = job["dns_sd_configs"]
    assert set(discovery["names"]) <= set(services)
    assert discovery["port"] == 8002
    assert {rule["expr"].split('"')[1] for rule in ALERTS if rule["alert"] == "Down"} == {job["job_name"]}
