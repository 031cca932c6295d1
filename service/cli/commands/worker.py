"""``python -m service.cli.commands.worker NUMBER``: a worker of ``mnist1d serve --workers``, started by its supervisor.

Its configuration is sent on its standard input.
"""

from __future__ import annotations

import sys

import click

from service import logs
from service.cli.commands.serve import run_server
from service.cli.display.output import guarded
from service.cli.options import set_up_logs
from service.config import ServerConfig
from service.workers.child import WorkerConfig
from service.workers.membership import belong_to_parent


@click.command()
@click.argument("number", type=int)
def command(number: int) -> None:
    """Serve as worker NUMBER of a supervisor, which sends the configuration on standard input."""
    belong_to_parent()
    text = sys.stdin.read()
    if not text:
        raise click.UsageError("this is a part of `mnist1d serve --workers`, and nothing to be started by hand")
    worker_config = WorkerConfig.from_json(text)
    config = ServerConfig.from_dict(worker_config.config)
    set_up_logs(config)
    output = logs.current_output()
    if output is not None:
        output.fields = {"worker": number}
        output.lock_fd = worker_config.log_lock_fd
    run_server(config, worker_config=worker_config)


if __name__ == "__main__":
    with guarded():
        command(prog_name="python -m service.cli.commands.worker")
