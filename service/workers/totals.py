"""Merges the metrics of all workers into those of one server; the counters of a worker are kept when it exits.

Each family says how the numbers of several processes are combined (`exposition.Across`).
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

from service.observability.exposition import Across, Family, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, "Mapping[str, str]", float]
_SampleKey = tuple[str, Labels]
"""Suffix and labels, which identify a sample of a family across processes."""
_READINESS = (Across.LEAST, Across.WORST)
"""The `Across` values of families that are taken only from workers that serve."""


def dump(families: Iterable[Family]) -> bytes:
    """Serialise families as JSON."""
    rows = [
        [
            f.name,
            f.kind.value,
            f.help,
            f.across.value,
            f.worst_first,
            [[s, dict(labels), v] for s, labels, v in f.samples],
        ]
        for f in families
    ]
    return json.dumps(rows).encode()


def load(text: bytes) -> list[Family]:
    """Parse the output of `dump`; raises ValueError for anything else."""
    try:
        return [
            Family(
                name,
                Kind(kind),
                help_text,
                [(suffix, labels, value) for suffix, labels, value in samples],
                across=Across(across),
                worst_first=tuple(worst_first),
            )
            for name, kind, help_text, across, worst_first, samples in json.loads(text)
        ]
    except TypeError as error:
        raise ValueError(f"no families: {error}") from error


class Totals:
    """The last metrics of every worker, and the counters of those that are gone. Thread-safe."""

    def __init__(self) -> None:
        self._pages: dict[str, list[Family]] = {}
        self._gone: dict[str, dict[_SampleKey, float]] = {}
        self._gone_families: dict[str, Family] = {}
        self._lock = threading.Lock()

    def update(self, name: str, page: list[Family]) -> None:
        """Replace a worker's metrics by newer ones."""
        with self._lock:
            self._pages[name] = page

    def retire(self, name: str) -> None:
        """Keep the counters of a process that is gone: its successor begins at 0."""
        with self._lock:
            self._retire(self._pages.pop(name, []))

    def _retire(self, page: list[Family]) -> None:
        for family in page:
            if family.across is Across.SUM and family.kind is not Kind.GAUGE:
                self._gone_families[family.name] = Family(family.name, family.kind, family.help)
                kept = self._gone.setdefault(family.name, {})
                for suffix, labels, value in family.samples:
                    key = suffix, tuple(labels.items())
                    kept[key] = kept.get(key, 0) + value

    def families(self, own: Iterable[Family], serving: Iterable[str], *, label: str = "worker") -> list[Family]:
        """All families, merged. ``own`` are the supervisor's families; ``serving`` names the workers that take
        requests. Only their readiness counts, unless there are none.
        """
        with self._lock:
            return self._families(own, set(serving), label)

    def _families(self, own: Iterable[Family], serving: set[str], label: str) -> list[Family]:
        say = serving & set(self._pages)
        pages = {"supervisor": list(own)}
        for name, page in sorted(self._pages.items()):
            pages[name] = [family for family in page if not say or name in say or family.across not in _READINESS]
        found: dict[str, dict[str, Family]] = {}
        for name, page in pages.items():
            for family in page:
                found.setdefault(family.name, {})[name] = family
        versions = _versions(pages.values())
        merged = [_merged(by_worker, self._kept(name, versions), label=label) for name, by_worker in found.items()]
        lost = [family for name, family in self._gone_families.items() if name not in found]
        return merged + [_with_samples(family, self._kept(family.name, versions)) for family in lost]

    def _kept(self, family: str, versions: set[tuple[str, str]]) -> dict[_SampleKey, float]:
        """Counters of processes that are gone, except for model versions that no worker has any more."""
        kept = {}
        for (suffix, labels), value in self._gone.get(family, {}).items():
            of = dict(labels)
            if not versions or "version" not in of or (of.get("model", ""), of["version"]) in versions:
                kept[suffix, labels] = value
        return kept


def _versions(pages: Iterable[Iterable[Family]]) -> set[tuple[str, str]]:
    return {
        (labels.get("model", ""), labels["version"])
        for page in pages
        for family in page
        for _, labels, _ in family.samples
        if "version" in labels
    }


def _merged(by_worker: Mapping[str, Family], kept: dict[_SampleKey, float], *, label: str) -> Family:
    first = next(iter(by_worker.values()))
    across = first.across
    if across is Across.SAME:
        return first
    if across is Across.EACH:
        samples: list[Sample] = [
            (suffix, {**labels, label: name}, value)
            for name, family in by_worker.items()
            for suffix, labels, value in family.samples
        ]
        return Family(first.name, first.kind, first.help, samples)
    if across is Across.WORST:
        return Family(first.name, first.kind, first.help, _worst(by_worker.values(), first.worst_first))
    values: dict[_SampleKey, list[float]] = {}
    for family in by_worker.values():
        for suffix, labels, value in family.samples:
            values.setdefault((suffix, tuple(labels.items())), []).append(value)
    if across is Across.SUM:
        total = dict(kept)
        for key, each in values.items():
            total[key] = total.get(key, 0) + sum(each)
        return _with_samples(first, total)
    if across is Across.MOST:
        return _with_samples(first, {key: max(each) for key, each in values.items()})
    least = {key: min(each) if len(each) == len(by_worker) else 0 for key, each in values.items()}
    return _with_samples(first, least)


def _with_samples(family: Family, values: Mapping[_SampleKey, float]) -> Family:
    samples: list[Sample] = [(suffix, dict(labels), value) for (suffix, labels), value in values.items()]
    return Family(family.name, family.kind, family.help, samples)


def _worst(families: Iterable[Family], worst_first: tuple[str, ...]) -> list[Sample]:
    """For each model and version, the samples of the process in which its state is the worst."""
    chosen: dict[Labels, tuple[int, list[Sample]]] = {}
    for family in families:
        groups: dict[Labels, list[Sample]] = {}
        for sample in family.samples:
            labels = sample[1]
            groups.setdefault(tuple((k, v) for k, v in labels.items() if k in ("model", "version")), []).append(sample)
        for group, samples in groups.items():
            states = [labels.get("state", "") for _, labels, value in samples if value == 1]
            rank = min((worst_first.index(s) for s in states if s in worst_first), default=len(worst_first))
            if group not in chosen or rank < chosen[group][0]:
                chosen[group] = rank, samples
    return [sample for _, samples in chosen.values() for sample in samples]
