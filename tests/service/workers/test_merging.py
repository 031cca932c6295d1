from __future__ import annotations

import pytest

from service.pb import open_inference_pb2 as pb
from service.workers import merging


def duration(count: int, ns: int = 0) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=count, ns=ns)


def model_statistics(version: str, count: int, last: int, batches: dict[int, int]) -> pb.ModelStatistics:
    return pb.ModelStatistics(
        name="a",
        version=version,
        last_inference=last,
        inference_count=10 * count,
        execution_count=2 * count,
        inference_stats=pb.InferStatistics(
            success=duration(count, 100 * count),
            fail=duration(1, 5),
            queue=duration(count, 7),
            compute_input=duration(count, 8),
            compute_infer=duration(count, 9),
            compute_output=duration(count, 10),
        ),
        batch_stats=[
            pb.InferBatchStatistics(batch_size=size, compute_infer=duration(runs, 3 * runs))
            for size, runs in batches.items()
        ],
    )


def test_statistics_add_up_and_the_last_inference_is_the_last() -> None:
    merged = merging.statistics(
        [
            (1, pb.ModelStatisticsResponse(model_stats=[model_statistics("1", 4, 50, {8: 1, 2: 2})])),
            (0, pb.ModelStatisticsResponse(model_stats=[model_statistics("1", 6, 40, {2: 5, 4: 1})])),
            (2, pb.ModelStatisticsResponse(model_stats=[model_statistics("2", 1, 60, {})])),
        ]
    )
    first, second = merged.model_stats
    assert (first.name, first.version, first.last_inference) == ("a", "1", 50)
    assert (first.inference_count, first.execution_count) == (100, 20)
    assert (first.inference_stats.success.count, first.inference_stats.success.ns) == (10, 1000)
    assert (first.inference_stats.fail.count, first.inference_stats.fail.ns) == (2, 10)
    assert [getattr(first.inference_stats, name).ns for name in ("queue", "compute_input", "compute_output")] == [
        *(14, 16, 20)
    ]
    assert [(b.batch_size, b.compute_infer.count, b.compute_infer.ns) for b in first.batch_stats] == [
        (2, 7, 21),
        (4, 1, 3),
        (8, 1, 3),
    ]
    assert (second.version, second.inference_count) == ("2", 10)


def entries(*rows: tuple[str, str, str, str]) -> pb.RepositoryIndexResponse:
    response = pb.RepositoryIndexResponse()
    for name, version, state, reason in rows:
        response.models.add(name=name, version=version, state=state, reason=reason)
    return response


READY = ("a", "1", "READY", "")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([READY], [READY], ("READY", "")),
        ([("a", "1", "READY", "unproven")], [("a", "1", "READY", "unproven")], ("READY", "unproven")),
        ([READY], [("a", "1", "LOADING", "")], ("LOADING", "worker 0: READY; worker 1: LOADING")),
        (
            [READY],
            [("a", "1", "UNAVAILABLE", "it is damaged")],
            ("UNAVAILABLE", "worker 0: READY; worker 1: UNAVAILABLE (it is damaged)"),
        ),
        (
            [("a", "1", "UNAVAILABLE", "same")],
            [("a", "1", "UNAVAILABLE", "same")],
            ("UNAVAILABLE", "same"),
        ),
        ([READY], [], ("UNAVAILABLE", "worker 0: READY; worker 1: does not have it")),
        ([("a", "1", "LOADING", "")], [], ("LOADING", "worker 0: LOADING; worker 1: does not have it")),
        ([("a", "1", "UNLOADING", "")], [], ("UNLOADING", "worker 0: UNLOADING; worker 1: does not have it")),
        ([READY], [("a", "1", "NEW STATE", "")], ("NEW STATE", "worker 0: READY; worker 1: NEW STATE")),
    ],
)
def test_a_version_is_ready_if_it_is_everywhere(first, second, expected) -> None:
    answers = [(0, entries(*first)), (1, entries(*second))]
    (entry,) = merging.index(answers, ready_only=False).models
    assert (entry.state, entry.reason) == expected
    assert len(merging.index(answers, ready_only=True).models) == (expected[0] == "READY")


def test_the_index_is_sorted_by_name_and_number_and_has_names_without_versions() -> None:
    merged = merging.index(
        [
            (0, entries(("b", "10", "READY", ""), ("b", "9", "READY", ""), ("c", "", "", "why"))),
            (1, entries(("b", "10", "READY", ""), ("b", "9", "READY", ""), ("c", "", "", "why"), ("b", "", "", ""))),
        ],
        ready_only=False,
    )
    assert [(m.name, m.version, m.reason) for m in merged.models] == [
        ("b", "9", ""),
        ("b", "10", ""),
        ("c", "", "why"),
    ]
