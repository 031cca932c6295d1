"""``mnist1d up``: train missing models, then serve them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.artifact.publication import versions
from models.networks.architectures import ARCHITECTURES
from service.cli.commands.serve import check_addresses, run_server
from service.cli.commands.train import engine_option, lowering_option
from service.cli.display.console import Exit, fail, stderr, stdout
from service.cli.options import config_from, repository_argument, server_options
from service.config import TRAINING_MODULES, ServerConfig, join_address

if TYPE_CHECKING:
    from models.export.lowering import Lowering
    from models.training.backend import EngineChoice
    from service.status import ServerStatus

NETWORKS = ("conv", "fc")
"""Networks to train: the convolutional net and its fully connected baseline."""


@click.command()
@repository_argument("up")
@click.option("--recipe", default="quick", show_default=True, help="Recipe for what has to be trained.")
@click.option("--seed", default=0, show_default=True, help="Seed for what has to be trained.")
@click.option("--steps", type=click.IntRange(min=1), help="Other than the recipe's number of training steps.")
@click.option("--train-only", is_flag=True, help="Train what is missing, and do not serve.")
@lowering_option
@engine_option
@server_options(training_slots="1 where PyTorch is installed, else 0")
def command(
    repository: Path,
    recipe: str,
    seed: int,
    steps: int | None,
    lowering: Lowering,
    engine: EngineChoice,
    *,
    train_only: bool,
    **options: Any,  # noqa: ANN401 - click passes each option by name
) -> None:
    """Train the conv net and its baseline where REPOSITORY (default: ./repository) lacks them, then serve it.

    Where PyTorch is installed the server trains by request, too (`mnist1d runs`): --training-slots is 1 by default.
    """
    if _is_default("training_slots") and options["control"] and _trains_here():
        options["training_slots"] = 1
    missing = [network for network in NETWORKS if not versions(repository / f"mnist1d-{network}")]
    if missing and not train_only:
        # Errors that would keep the server from starting are reported before the training, not after it.
        check_addresses(config_from(repository if repository.is_dir() else Path(), options))
    for network in missing:
        _train(network, recipe, seed, steps, lowering, engine, repository)
    if missing:
        # Both models exist only now: reports made before the last training had no counterpart.
        _report([network for network in NETWORKS if network != missing[-1]], repository)
    if train_only:
        for network in sorted(set(NETWORKS) - set(missing)):
            stderr().print(f"mnist1d-{network} is there: nothing to train")
        return
    config = config_from(repository, options)
    run_server(config, lambda status: _print_next_steps(status, config))


def _is_default(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) is click.core.ParameterSource.DEFAULT


def _trains_here() -> bool:
    return all(importlib.util.find_spec(module) is not None for module in TRAINING_MODULES)


def _train(
    network: str,
    recipe: str,
    seed: int,
    steps: int | None,
    lowering: Lowering,
    engine: EngineChoice,
    repository: Path,
) -> None:
    if not _trains_here():
        fail(
            f"mnist1d-{network} has to be trained and PyTorch is not installed: "
            "pip install -e '.[train]' in the project's folder",
            Exit.USAGE,
        )
    # In a subprocess, since the process that serves must never import torch.
    arguments = [
        "train",
        "--network",
        network,
        "--recipe",
        recipe,
        "--seed",
        str(seed),
        "--engine",
        engine,
        "--repository",
        str(repository),
    ]
    if steps is not None:
        arguments += ["--steps", str(steps)]
    if ARCHITECTURES[network].kind == "conv":
        arguments += ["--lowering", lowering]
    trained = subprocess.run([sys.executable, "-m", "service.cli", *arguments], check=False)  # noqa: S603 - our own program
    if trained.returncode:
        raise click.exceptions.Exit(trained.returncode)


def _report(networks: list[str], repository: Path) -> None:
    """Rewrite reports in subprocesses; a failure is printed there and does not stop the server from starting."""
    for network in networks:
        arguments = ["report", str(repository / f"mnist1d-{network}")]
        subprocess.run([sys.executable, "-m", "service.cli", *arguments], check=False)  # noqa: S603 - our own program


def _print_next_steps(status: ServerStatus, config: ServerConfig) -> None:
    address = f"{_reachable(config.host)}:{status.port}"
    elsewhere = "" if address == "127.0.0.1:8001" else f" --server {address}"
    console = stdout()
    if status.is_ready:
        console.print(f"\n[bold green]Ready[/] on [bold]{address}[/]:", ", ".join(status.serving))
    else:
        console.print(f"\n[bold red]Not ready[/]. Listening on [bold]{address}[/]:")
        for line in (*status.serving, *status.problems):
            console.print(f"    {line}", markup=False)
    console.print("\nIn another terminal, from this folder:\n")
    for line in (
        f".venv/bin/mnist1d predict{elsewhere}",
        f".venv/bin/mnist1d predict --model mnist1d-fc{elsewhere}",
        ".venv/bin/mnist1d models",
        *_training_steps(config, status),
        f"grpcurl -plaintext {address} list",
    ):
        console.print(f"    [cyan]{line}[/]")
    console.print("\nCtrl-C stops the server.\n")


def _training_steps(config: ServerConfig, status: ServerStatus) -> list[str]:
    """The command that requests a training run, if the server trains and its control port is known."""
    port = status.port if config.control_on_main_port else config.control_port
    if not config.training_slots or not port:
        return []
    host = config.host if config.control_on_main_port else config.control_host
    address = f"{_reachable(host)}:{port}"
    usual = join_address(ServerConfig.control_host, ServerConfig.control_port)
    elsewhere = "" if address == usual else f" --server {address}"
    return [f".venv/bin/mnist1d runs create --recipe quick --seed 1 --watch{elsewhere}"]


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 - shown, not listened on
