from __future__ import annotations

from service.runtime.active_runs import ActiveRuns
from service.runtime.thread_run import ThreadRun


def test_a_run_is_ended_when_the_last_of_its_requests_is_withdrawn() -> None:
    run = ThreadRun(["a", "b"], ActiveRuns())
    with run.options(["a", "b"]) as options:
        run.withdraw("a")
        run.withdraw("a")
        assert not options.terminate
        run.withdraw("b")
        assert options.terminate


def test_a_run_for_requests_that_were_withdrawn_before_is_ended_at_once_and_another_one_is_not() -> None:
    run = ThreadRun(["a", "b"], ActiveRuns())
    run.withdraw("a")
    with run.options(["a"]) as alone:
        assert alone.terminate
    with run.options(["b"]) as alone:
        assert not alone.terminate
        run.withdraw("a")
        assert not alone.terminate
    with run.options(["a", "b"]) as together:
        assert not together.terminate
        run.withdraw("b")
        assert together.terminate


def test_each_run_has_options_of_its_own() -> None:
    active = ActiveRuns()
    first, second = ThreadRun(["a"], active), ThreadRun(["b"], active)
    with first.options(["a"]) as of_a, second.options(["b"]) as of_b:
        first.withdraw("a")
        assert (of_a.terminate, of_b.terminate) == (True, False)


def test_the_end_of_all_runs_ends_those_that_go_on_and_those_that_begin_later() -> None:
    active = ActiveRuns()
    with active.options() as one:
        with active.options() as over:
            pass
        active.end_all()
        assert (one.terminate, over.terminate) == (True, False)
    with ThreadRun(["a"], active).options(["a"]) as late:
        assert late.terminate
