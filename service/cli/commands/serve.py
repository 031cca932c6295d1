"""``mnist1d serve``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import click

from service.cli.display.console import Exit, fail, print_json, print_table
from service.cli.options import as_flags, config_from, described, repository_argument, server_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from service.config import ServerConfig
    from service.status import ServerStatus
    from service.workers.child import WorkerConfig

_STUCK_AFTER_S = 0.5


def run_server(
    config: ServerConfig,
    on_ready: Callable[[ServerStatus], None] = lambda _: None,
    *,
    worker_config: WorkerConfig | None = None,
) -> None:
    """Serve until a signal, with the configured number of workers; returns when drained.

    ``worker_config``: this process is itself one of the workers. Exits with code 1 if an address cannot be bound or the
    workers fail, 2 if a file with certificates or tokens is invalid.
    """
    # grpcio's C core writes unstructured lines to standard error, among the JSON logs. What they report (a port in use,
    # a failed handshake) is logged by this server or concerns only the client.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from service.server import event_loop

    with _failures_told():
        if worker_config is None and (count := _workers(config)) > 1:
            from service.workers.supervisor import supervise

            asyncio.run(supervise(config, count, on_ready))
            _ignore_late_signals()
            return
        event_loop.run(_serve(config, on_ready, worker_config), transport=config.transport)
        _leave_stuck_threads()


async def _serve(
    config: ServerConfig, on_ready: Callable[[ServerStatus], None], worker_config: WorkerConfig | None
) -> None:
    from service.server.server import serve

    if worker_config is None:
        await serve(config, on_ready)
    else:
        from service.workers.membership import Membership

        await serve(config, on_ready, Membership(worker_config))
    _ignore_late_signals()


def _ignore_late_signals() -> None:
    """Ignore signals after draining, so that a repeated one does not make a clean exit a failure."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, signal.SIG_IGN)


def _workers(config: ServerConfig) -> int:
    if config.workers:
        return config.workers
    from service.workers.cpus import usable_cpus

    return usable_cpus()


def check_addresses(config: ServerConfig) -> None:
    """Exit as `run_server` does if the server cannot listen, to find out before minutes of training."""
    with _failures_told():
        if _workers(config) > 1:
            from service.workers.supervisor import check_addresses

            asyncio.run(check_addresses(config))
        else:
            from service.server import server

            asyncio.run(server.check_addresses(config))


@contextlib.contextmanager
def _failures_told() -> Iterator[None]:
    from service.config import ConfigError
    from service.errors import BindError, WorkersFailed

    try:
        yield
    except ConfigError as error:
        fail(as_flags(str(error)), Exit.USAGE)
    except BindError as error:
        fail(str(error))
    except WorkersFailed as error:
        fail(str(error), Exit(error.exit_code))
    except asyncio.CancelledError:
        fail("stopped by a second signal, running calls were cancelled", Exit.INTERRUPTED)


def _leave_stuck_threads() -> None:
    """Exit at once if a thread hangs, as on an unresponsive file system: Python would wait for it."""
    stuck = [t.name for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    if not stuck:
        return
    time.sleep(_STUCK_AFTER_S)
    if any(t.name in stuck and t.is_alive() for t in threading.enumerate()):
        logging.getLogger(__name__).warning("left while threads were busy", extra={"threads": ", ".join(stuck)})
        logging.shutdown()
        sys.stdout.flush()
        os._exit(int(Exit.OK))


@click.command()
@repository_argument("serve")
@server_options()
@click.option("--print-config", is_flag=True, help="Print every setting, its value and where it came from; serve not.")
@click.option("--json", "as_json", is_flag=True, help="With --print-config: as JSON.")
def command(repository: Path, *, print_config: bool, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click passes each option by name
    """Serve the models in REPOSITORY (default: ./repository) with the Open Inference Protocol over gRPC.

    Every option can also be set by an environment variable: MNIST1D_SERVE_PORT for --port, and so on, and REPOSITORY
    by MNIST1D_SERVE_REPOSITORY.
    """
    config = config_from(repository, options)
    if not print_config:
        run_server(config)
        return
    rows = described(config, "serve")
    if as_json:
        print_json({"repository": str(repository), "settings": rows})
        return
    print_table(
        f"Serving {repository}",
        ("setting", "value", "from", "environment"),
        [(row["setting"], row["value"], row["from"], row["environment"]) for row in rows],
        dispensable=("environment",),  # derived from the setting's name
    )
