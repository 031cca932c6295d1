"""Run the trials of a sweep on a Ray cluster; the driver writes the same files as for local processes."""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import tempfile
from typing import TYPE_CHECKING, Any, Final

from models.errors import SweepUnavailable
from models.sweeps.environment import environment
from models.sweeps.executor import LOOK_UP_EVERY_S
from models.sweeps.outcome import TrialFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from models.sweeps.executor import ProgressSink
    from models.sweeps.outcome import Outcome
    from models.sweeps.trial import Trial

LOCAL: Final = "local"
AUTO: Final = "auto"
_NO_REPORTS: Final = {"RAY_USAGE_STATS_ENABLED": "0"}
"""Environment variables that turn off Ray's usage reports."""
_OBJECT_STORE_BYTES: Final = 100 * 2**20
"""Enough for results of some kilobytes; by default Ray takes a third of the memory."""
_CONNECT_TIMEOUT_S: Final = 10.0
_TRIES_ELSEWHERE: Final = 2
"""How often a trial is restarted on another node when its node is lost."""


class RayCluster:
    """An `Executor` on a Ray cluster: one CPU for each trial, as many at once as there are CPUs."""

    def __init__(self, address: str, local_cpus: int) -> None:
        """Use the cluster at ``address``; ``local`` starts one here with ``local_cpus`` for the time of the sweep.

        ``auto`` finds the cluster that this machine is part of; ``HOST:PORT`` is the address of a cluster's head.
        """
        self._address, self._local_cpus = address, local_cpus

    def __call__(
        self,
        trials: Sequence[Trial],
        *,
        on_progress: ProgressSink,  # noqa: ARG002 - part of the protocol; see below
        stop: Callable[[], bool],
    ) -> Generator[Outcome]:
        """Run the trials as `Executor` describes. Steps are not reported: they would pass through the cluster's head.

        Raises SweepUnavailable if Ray is not installed or there is no cluster.
        """
        with _connected(self._address, self._local_cpus) as ray:
            task = ray.remote(num_cpus=1, max_retries=_TRIES_ELSEWHERE)(_run)
            pending = {task.remote(trial): trial for trial in trials}
            try:
                while pending and not stop():
                    ready, _ = ray.wait(list(pending), timeout=LOOK_UP_EVERY_S)
                    for reference in ready:
                        trial = pending.pop(reference)
                        try:
                            outcome: Outcome = ray.get(reference)
                        except ray.exceptions.RayError as error:
                            outcome = TrialFailure(trial, type(error).__name__, str(error))
                        yield outcome
            finally:
                for reference in pending:
                    ray.cancel(reference, force=True)


def _run(trial: Trial) -> Outcome:
    """Run a trial on a node; imports happen there."""
    from models.sweeps.running import run_trial

    return run_trial(trial)


def _check_reachable(address: str) -> None:
    """Raise SweepUnavailable if nothing listens at ``address``; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise SweepUnavailable(f"a Ray address must be local, auto or HOST:PORT, got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise SweepUnavailable(f"no Ray cluster at {address!r}: {error}") from error


@contextlib.contextmanager
def _connected(address: str, local_cpus: int) -> Iterator[Any]:
    """Connect to a cluster and yield the module `ray`; disconnect afterwards, and end a local cluster's processes."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(environment(_NO_REPORTS))
        options: dict[str, Any] = {}
        if address == LOCAL:
            # A private token and folder: no other user can connect, and nothing is left in the home directory.
            stack.enter_context(environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}))
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
            options = {
                "num_cpus": local_cpus,
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
                "_temp_dir": folder,
            }
        elif address != AUTO:
            _check_reachable(address)
        make_record = logging.getLogRecordFactory()
        try:
            import ray
        except ModuleNotFoundError as error:
            raise SweepUnavailable(
                f"a Ray cluster needs {error.name}, which is not installed: "
                "pip install -e '.[train,ray]' in the project's folder"
            ) from error
        finally:
            logging.setLogRecordFactory(make_record)  # Ray adds a field to every log record of this process
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.WARNING, configure_logging=False, **options)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise SweepUnavailable(f"no Ray cluster at {address!r}: {error}") from error
        stack.callback(ray.shutdown)
        yield ray
