"""The page of metrics as a scraper gets it."""

from __future__ import annotations

import asyncio
import re
import urllib.request

from prometheus_client.parser import text_string_to_metric_families as parse_text


async def scrape(server, accept: str = "text/plain") -> str:
    request = urllib.request.Request(server.metrics_url, headers={"Accept": accept})  # noqa: S310 - our own server

    def get() -> str:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the same
            return answer.read().decode()

    return await asyncio.to_thread(get)


def read(page: str) -> list:
    """Every sample by its real name: Python's parser of the text format adds ``_total`` to counters that lack it."""
    found = [sample for family in parse_text(page) for sample in family.samples]
    names = set(re.findall(r"^\w+", page, re.MULTILINE))
    return [s if s.name in names else s._replace(name=s.name.removesuffix("_total")) for s in found]


def samples(page: str) -> dict[tuple, float]:
    return {(sample.name, *sorted(sample.labels.items())): sample.value for sample in read(page)}
