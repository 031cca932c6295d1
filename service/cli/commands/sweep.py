"""``mnist1d sweep``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.errors import InvalidRecipe, InvalidSweep, ModelsError
from models.networks.architectures import ARCHITECTURES
from models.sweeps import pictures, tables
from models.sweeps.folder import ResultsFolder
from models.sweeps.plan import parse_grid, parse_seeds, parse_shard, trials
from models.sweeps.summary import cells, choice
from models.training.recipes import RECIPES
from service.cli.commands.train import DEFAULT_RECIPE, engine_option
from service.cli.display.console import Exit, fail, json_option, print_json, print_table, stderr
from service.cli.overrides import SETTABLE, overrides_from
from service.workers.cpus import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.sweeps.executor import Executor
    from models.sweeps.summary import Cell
    from models.sweeps.sweep import SweepOutcome
    from models.sweeps.trial import Trial
    from models.training.backend import EngineChoice

JOB_INDEX = "JOB_COMPLETION_INDEX"
"""The environment variable with which Kubernetes numbers the pods of an Indexed Job."""


_SETTABLE = tuple(field for field in SETTABLE if field not in ("network", "seed"))


@click.command(epilog=f"Fields of a recipe, for --set and --grid: {', '.join(_SETTABLE)}.")
@click.option(
    "--network",
    "networks",
    type=click.Choice(list(ARCHITECTURES)),
    multiple=True,
    default=["conv"],
    show_default=True,
    help="What to train; may be repeated.",
)
@click.option(
    "--recipe",
    "recipes",
    type=click.Choice(list(RECIPES)),
    multiple=True,
    default=[DEFAULT_RECIPE],
    show_default=True,
    help="How to train it; may be repeated.",
)
@click.option("--seeds", default="0-2", show_default=True, metavar="LIST", help="Seeds: numbers and ranges, as 0-4,7.")
@click.option(
    "--grid",
    "grids",
    multiple=True,
    metavar="FIELD=VALUE,...",
    help="Try each value of a field; several grids are combined, each value with each.",
)
@click.option(
    "--set", "overrides", multiple=True, metavar="FIELD=VALUE", help="Change a field of every recipe; may be repeated."
)
@click.option("--steps", type=int, help="Short for --set steps=N.")
@engine_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="Folder of the results, a file for each trial. What is there is not run again.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 4096),
    help="Trials at a time, a process each; or the CPUs of a local Ray.  [default: the CPUs there are]",
)
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help="Run on a Ray cluster: auto (the one this machine is part of), HOST:PORT, or local (one of its own, here).",
)
@click.option(
    "--shard",
    metavar="INDEX/COUNT",
    help=f"Run only every COUNT-th trial, from INDEX (0 is the first). job/COUNT takes the index from {JOB_INDEX}, "
    "as a Kubernetes Indexed Job sets it.",
)
@click.option("--show", is_flag=True, help="Run nothing: show everything that the folder holds.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the result into this SVG file.")
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
@click.option("--quiet", is_flag=True, help="No progress; the result only, with --json as one line.")
@json_option
def command(
    networks: Sequence[str],
    recipes: Sequence[str],
    seeds: str,
    grids: Sequence[str],
    overrides: Sequence[str],
    steps: int | None,
    engine: EngineChoice,
    out: Path,
    jobs: int | None,
    ray_address: str | None,
    shard: str | None,
    show: bool,
    plot: Path | None,
    markdown: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train many networks, and say what their seeds have in common: mean, spread and confidence interval.

    Running it again adds the trials that are missing, those that failed before among them. Nothing is published:
    `mnist1d train` does that, with the recipe that proved best on held-out examples.

    \b
    mnist1d sweep --network conv --network fc --recipe plain --seeds 0-4
    mnist1d sweep --recipe quick --grid learning_rate=0.005,0.01,0.02 --set validation=500
    mnist1d sweep --recipe best --seeds 0-99 --ray-address auto
    """
    if markdown and as_json:
        fail("--markdown and --json exclude each other", Exit.USAGE)
    if show and not out.is_dir():
        fail(f"--out {out}: there is no such folder, so nothing to show", Exit.USAGE)
    folder = ResultsFolder(out)
    try:
        if show:
            found = sorted(
                cells(folder.all_results()), key=lambda cell: (list(ARCHITECTURES).index(cell.network), cell.label)
            )
            _tell(found, plot=plot, markdown=markdown, as_json=as_json)
            return
        asked = trials(
            networks=networks,
            recipes=recipes,
            seeds=parse_seeds(seeds),
            overrides=overrides_from(overrides, {"steps": steps}),
            grid=parse_grid(grids),
            engine=engine,
        )
        if shard is not None:
            asked = parse_shard(shard, os.environ.get(JOB_INDEX)).of(asked)
        outcome = _run(asked, folder, _executor(jobs or usable_cpus(), ray_address), quiet=quiet, as_json=as_json)
    except (InvalidRecipe, InvalidSweep) as error:
        fail(str(error), Exit.USAGE)
    except ModelsError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("stopped at once by a second Ctrl-C; the trials that were done are kept", Exit.INTERRUPTED)
    _tell(cells(outcome.found), plot=plot, markdown=markdown, as_json=as_json, outcome=outcome)
    if outcome.stopped:
        left = len(asked) - len(outcome.results)
        fail(f"stopped with {left:,} of {len(asked):,} trials to do; the same command goes on", Exit.INTERRUPTED)
    if outcome.failures:
        which = ", ".join(failure.trial.file_name for failure in outcome.failures[:3])
        more = f" and {len(outcome.failures) - 3} more" if len(outcome.failures) > 3 else ""
        fail(f"{len(outcome.failures)} of {len(asked)} trials failed, see {out / 'failed'}: {which}{more}")


def _executor(jobs: int, ray_address: str | None) -> Executor:
    if ray_address is None:
        from models.sweeps.processes import Processes

        return Processes(jobs)
    from models.sweeps.ray_cluster import RayCluster

    return RayCluster(ray_address, local_cpus=jobs)


def _run(
    asked: Sequence[Trial], folder: ResultsFolder, executor: Executor, *, quiet: bool, as_json: bool
) -> SweepOutcome:
    from models.sweeps import sweep
    from models.training.interruption import interruptible
    from service.cli.display import sweep_display

    displays = {True: sweep_display.silent, False: sweep_display.json_lines if as_json else sweep_display.live}
    with interruptible() as stop, displays[quiet]() as watcher:
        return sweep.run(asked, folder, executor, watcher=watcher, stop=stop)


def _tell(
    of: list[Cell], *, plot: Path | None, markdown: bool, as_json: bool, outcome: SweepOutcome | None = None
) -> None:
    """Print the results as a table or JSON, and write the picture if requested."""
    chosen = choice(of)
    if as_json:
        ran = {} if outcome is None else _in_json(outcome)
        print_json(
            {
                "event": "result",
                "cells": [cell.to_dict() for cell in of],
                "chosen": None if chosen is None else {"network": chosen.network, "recipe": chosen.label},
                **ran,
            }
        )
    elif not of:
        stderr().print("  there are no results", style="dim")
    elif markdown:
        click.echo(tables.markdown(tables.COLUMNS, tables.rows(of)), nl=False)
    else:
        left_out = print_table(
            "Accuracy over seeds", *_columns(of), dispensable=tables.DISPENSABLE, wraps=(tables.RECIPE,)
        )
        stderr().print(f"  {_advice(of, chosen)}", style="dim")
        if left_out:
            names = ", ".join(left_out)
            stderr().print(f"  left out on this narrow terminal: {names}; --markdown has all", style="dim")
    if plot is not None and of:
        try:
            plot.write_text(pictures.spreads(of), encoding="utf-8")
        except OSError as error:
            fail(f"--plot {plot}: {error.strerror}")


def _columns(of: list[Cell]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table, without empty columns."""
    rows = tables.rows(of)
    kept = [at for at in range(len(tables.COLUMNS)) if any(row[at] != tables.NONE for row in rows)]
    return [tables.COLUMNS[at] for at in kept], [[row[at] for at in kept] for row in rows]


def _advice(of: list[Cell], chosen: Cell | None) -> str:
    if chosen is not None:
        return "* best on held-out examples; the test set is reported, and chooses nothing"
    if len(of) > 1:
        return "to choose between recipes hold examples out (--set validation=500): the test set is only reported"
    return "the interval is that of the mean, by Student's t"


def _in_json(outcome: SweepOutcome) -> dict[str, Any]:
    return {
        "trials": len(outcome.trials),
        "added": outcome.added,
        "present": len(outcome.results) - outcome.added,
        "failed": [
            {"file": failure.trial.file_name, "error": failure.error, "message": failure.message}
            for failure in outcome.failures
        ],
        "stopped": outcome.stopped,
    }
