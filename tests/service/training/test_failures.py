from __future__ import annotations

from service.training.failures import died


def test_a_process_without_memory_names_its_limit_and_the_setting() -> None:
    told = died(1, "Traceback\nMemoryError: no more", 512 * 2**20)
    assert told == (
        "the training process died: out of memory, limited to 512 MiB by --training-memory-mb (exit code 1): "
        "MemoryError: no more"
    )
    assert "out of memory, not limited by --training-memory-mb (SIGABRT)" in died(-6, "std::bad_alloc", 0)


def test_any_other_end_does_not() -> None:
    assert died(-9, "", 512 * 2**20) == "the training process died: SIGKILL"
