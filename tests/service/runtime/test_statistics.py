from __future__ import annotations

import threading

from service.runtime.statistics import Duration, Failure, Statistics, Timing


def test_counts_and_nanoseconds_add_up() -> None:
    statistics = Statistics()
    statistics.succeeded(100, Timing(10, 20, 30, 40), rows=64)
    statistics.succeeded(50, Timing(1, 2, 3, 4), rows=1)
    statistics.failed(Failure.OTHER, 7)
    statistics.failed(Failure.CANCELED, 8)
    statistics.failed(Failure.CANCELED, 9)
    statistics.ran(65, Timing(0, 5, 6, 7))
    statistics.pending = 3
    now = statistics.snapshot()
    assert now.success == Duration(2, 150)
    assert (now.queue, now.compute_input) == (Duration(2, 11), Duration(2, 22))
    assert (now.compute_infer, now.compute_output) == (Duration(2, 33), Duration(2, 44))
    assert (now.inference_count, now.execution_count, now.pending) == (65, 1, 3)
    assert now.failures == {Failure.OTHER: Duration(1, 7), Failure.CANCELED: Duration(2, 17)}
    assert now.fail == Duration(3, 24)
    assert now.batches[65].compute_infer == Duration(1, 6)
    assert now.last_inference_ms > 1_600_000_000_000


def test_a_fresh_one_is_all_zeros() -> None:
    now = Statistics().snapshot()
    assert (now.success, now.fail, now.last_inference_ms, now.batches) == (Duration(), Duration(), 0, {})


def test_a_snapshot_taken_meanwhile_is_consistent() -> None:
    statistics = Statistics()
    done = threading.Event()

    def count() -> None:
        for n in range(20_000):
            statistics.succeeded(2, Timing(1, 1, 1, 1), rows=1)
            statistics.ran(n % 50 + 1, Timing())
        done.set()

    thread = threading.Thread(target=count)
    thread.start()
    while not done.is_set():
        now = statistics.snapshot()
        assert now.success.ns == 2 * now.success.count == 2 * now.inference_count == 2 * now.queue.ns
        assert sum(counts.compute_infer.count for counts in now.batches.values()) == now.execution_count
    thread.join()
    assert statistics.snapshot().success.count == 20_000
