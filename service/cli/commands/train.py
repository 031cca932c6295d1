"""``mnist1d train``."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from models.artifact.publication import check_model_name
from models.errors import InvalidRecipe, ModelsError, ProofFailed, PublicationError, TrainingInterrupted
from models.export.lowering import DEFAULT_LOWERING, LOWERINGS
from models.networks.architectures import ARCHITECTURES
from models.training.backend import ENGINES
from models.training.recipes import RECIPES
from service.cli.display.console import Exit, fail, json_option, print_json, stderr, stdout
from service.cli.display.output import OutputFailed
from service.cli.overrides import SETTABLE, overrides_from

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.export.lowering import Lowering
    from models.pipeline import PublishedModel
    from models.training.backend import EngineChoice
    from models.training.events import Event, EventSink
    from models.training.recipes import TrainingRecipe

DEFAULT_RECIPE = "best"
RUNS = Path("runs")


def lowering_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option ``--lowering`` to a command."""
    return click.option(
        "--lowering",
        type=click.Choice(LOWERINGS),
        default=DEFAULT_LOWERING,
        show_default=True,
        help="What convolution layers become in the exported file: gemm (Gather and matrix products: faster for "
        "batches) or conv (Conv). The same function of the same weights.",
    )(command)


def engine_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option ``--engine`` to a command."""
    return click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default="auto",
        show_default=True,
        help="Who takes the steps: fused (compiled for these networks at run time, by numba), torch (PyTorch, the "
        "reference), or auto: fused where it can, and to resume the one that the checkpoint was made by.",
    )(command)


@click.command(epilog=f"Fields of a recipe, for --set: {', '.join(SETTABLE)}.")
@click.option(
    "--network",
    type=click.Choice(list(ARCHITECTURES)),
    default="conv",
    show_default=True,
    help="What to train: "
    + "; ".join(f"{name}: {spec.title}, {spec.parameters:,} parameters" for name, spec in ARCHITECTURES.items())
    + ".",
)
@click.option(
    "--recipe",
    "recipe_name",
    type=click.Choice(list(RECIPES)),
    default=DEFAULT_RECIPE,
    show_default=True,
    help="How to train it.",
)
@click.option(
    "--set", "overrides", multiple=True, metavar="FIELD=VALUE", help="Change a field of the recipe; may be repeated."
)
@click.option("--seed", type=int, help="Short for --set seed=N.")
@click.option("--steps", type=int, help="Short for --set steps=N.")
@click.option(
    "--repository",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("repository"),
    show_default=True,
    help="Where to publish the model.",
)
@lowering_option
@engine_option
@click.option("--name", help="Publish it under this name.  [default: mnist1d-NETWORK]")
@click.option(
    "--checkpoint-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to keep what is needed to resume.  [default: runs/NETWORK-RECIPE-seedN]",
)
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in the checkpoint directory.")
@click.option("--quiet", is_flag=True, help="No progress; the result only, with --json as one line.")
@json_option
def command(
    network: str,
    recipe_name: str,
    overrides: tuple[str, ...],
    seed: int | None,
    steps: int | None,
    repository: Path,
    lowering: Lowering,
    engine: EngineChoice,
    name: str | None,
    checkpoint_dir: Path | None,
    resume: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train a network on MNIST-1D, export it to ONNX, prove the export, and publish it.

    A proof that fails publishes nothing and leaves with exit code 3. Ctrl-C leaves a checkpoint and the command that
    goes on from it.

    \b
    mnist1d train --network conv
    mnist1d train --network fc --recipe lecture --seed 1
    mnist1d train --steps 4000 --set learning_rate=0.005 --set validation=500
    """
    shorthands: dict[str, object] = {"seed": seed, "steps": steps}
    given = [*overrides, *(f"{field}={value}" for field, value in shorthands.items() if value is not None)]
    if _is_given("network"):
        shorthands["network"] = network
    try:
        recipe = RECIPES[recipe_name].replace(**{"network": network, **overrides_from(overrides, shorthands)})
        if name is not None:
            check_model_name(name)
        _check_lowering(lowering, recipe.network)
    except (InvalidRecipe, PublicationError) as error:
        fail(str(error), Exit.USAGE)
    if checkpoint_dir is None:
        checkpoint_dir = RUNS / f"{recipe.network}-{recipe_name}-seed{recipe.seed}"
    again = ["mnist1d", "train", "--network", recipe.network, "--recipe", recipe_name]
    again += [word for override in given for word in ("--set", override)]
    again += ["--lowering", lowering] if _is_given("lowering") else []
    again += ["--engine", engine] if _is_given("engine") else []
    again += ["--repository", str(repository), "--checkpoint-dir", str(checkpoint_dir)]
    again += [] if name is None else ["--name", name]
    published = train_and_publish(
        recipe,
        repository=repository,
        publish_as=name,
        lowering=lowering,
        engine=engine,
        checkpoint_dir=checkpoint_dir,
        resume=resume,
        quiet=quiet,
        as_json=as_json,
        resume_with=shlex.join([*again, "--resume"]),
    )
    if as_json:
        print_json({"event": "result", **published.to_dict()})
    else:
        _print_result(published)


def _is_given(option: str) -> bool:
    """Whether an option was given, on the command line or by its environment variable."""
    return click.get_current_context().get_parameter_source(option) is not click.core.ParameterSource.DEFAULT


def _check_lowering(lowering: Lowering, network: str) -> None:
    """Exit with a usage error if ``--lowering`` was given for a network without convolutions.

    A default from the environment may apply to any network.
    """
    source = click.get_current_context().get_parameter_source("lowering")
    if source is click.core.ParameterSource.COMMANDLINE and ARCHITECTURES[network].kind != "conv":
        fail(f"--lowering {lowering}: the network {network} has no convolution layers", Exit.USAGE)


def train_and_publish(
    recipe: TrainingRecipe,
    *,
    repository: Path,
    publish_as: str | None = None,
    lowering: Lowering = DEFAULT_LOWERING,
    engine: EngineChoice = "auto",
    checkpoint_dir: Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    as_json: bool = False,
    resume_with: str | None = None,
) -> PublishedModel:
    """Run the pipeline with a display; every expected failure is printed and exits with its code.

    ``resume_with`` is the command to show after Ctrl-C.
    """
    from models.training.events import stage
    from models.training.interruption import interruptible
    from service.cli.display import run_display

    if quiet:
        display = run_display.silent()
    elif as_json:
        display = run_display.json_lines()
    else:
        display = run_display.live()
    _remark_on_old_checkpoint(checkpoint_dir, resume=resume, quiet=quiet or as_json)
    lost: list[OutputFailed] = []
    try:
        with interruptible() as stop, display as on_event:
            tell = _until_lost(on_event, lost)
            with stage("load", tell):
                run = _pipeline()
            return run(
                recipe,
                repository=repository,
                publish_as=publish_as,
                lowering=lowering,
                engine=engine,
                on_event=tell,
                checkpoint_dir=checkpoint_dir,
                resume=resume,
                stop=lambda: bool(lost) or stop(),
            )
    except ModelsError as error:
        if lost:
            fail(f"{lost[0].message}; {_with_way_on(error, resume_with)}")
        _leave(error, as_json=as_json, resume_with=resume_with)
    except KeyboardInterrupt:
        fail("stopped at once by a second Ctrl-C; what the last checkpoint does not hold is lost", Exit.INTERRUPTED)


def _pipeline() -> Callable[..., PublishedModel]:
    """Import ``models.pipeline.run``, which needs PyTorch and takes seconds."""
    try:
        from models.pipeline import run
    except ModuleNotFoundError as error:
        fail(f"training needs {error.name}, which is not installed: pip install -e '.[train]' in the project's folder")
    return run


def _until_lost(on_event: EventSink, lost: list[OutputFailed]) -> EventSink:
    """Pass events on until standard output fails; ``lost`` then gets the error, on which the caller ends the run."""

    def tell(event: Event) -> None:
        if lost:
            return
        try:
            on_event(event)
        except OutputFailed as error:
            lost.append(error)

    return tell


def _with_way_on(error: ModelsError, resume_with: str | None) -> str:
    """The message of an error, with the command to resume if there is a checkpoint."""
    if isinstance(error, TrainingInterrupted) and error.checkpoint is not None and resume_with is not None:
        return f"{error}\ngo on with: {resume_with}"
    return str(error)


def _remark_on_old_checkpoint(checkpoint_dir: Path | None, *, resume: bool, quiet: bool) -> None:
    from models.training.checkpoint import path_in

    if checkpoint_dir is None or resume or quiet:
        return
    with contextlib.suppress(OSError):  # training itself reports an unreadable directory
        if path_in(checkpoint_dir).exists():
            stderr().print(
                f"  the checkpoint in {checkpoint_dir} will be replaced (--resume would go on from it)", style="dim"
            )


def _leave(error: ModelsError, *, as_json: bool, resume_with: str | None) -> NoReturn:
    """Print an expected failure, with ``as_json`` also on standard output, and exit."""
    report = error.report if isinstance(error, ProofFailed) else None
    if as_json:
        failure: dict[str, Any] = {"event": "failed", "error": type(error).__name__, "message": str(error)}
        if report is not None:
            failure["parity"] = report
        if isinstance(error, TrainingInterrupted) and error.checkpoint is not None:
            failure["resume_with"] = resume_with
        print_json(failure)
    elif report is not None:
        from service.cli.display.parity_table import draw_report

        draw_report(stderr(), report, title="Proof of the exported model")
    message = _with_way_on(error, resume_with)
    if isinstance(error, TrainingInterrupted):
        fail(message, Exit.INTERRUPTED)
    if isinstance(error, InvalidRecipe):
        fail(message, Exit.USAGE)
    fail(message, Exit.FAILED if report is None else Exit.REFUTED)


def _print_result(published: PublishedModel) -> None:
    from rich.table import Table

    manifest, parity = published.manifest, published.parity
    network, metrics = manifest.provenance["network"], manifest.metrics
    rows = [
        ("network", f"{network['name']}: {network['title']}, {network['parameters']:,} parameters"),
        ("test accuracy", f"{published.evaluation.accuracy:.2%} of {published.evaluation.count:,}"),
        ("test loss", f"{published.evaluation.loss:.4f}"),
    ]
    rows += [
        (f"{split} accuracy", f"{metrics[split]['accuracy']:.2%} of {metrics[split]['count']:,}")
        for split in ("validation", "train")
        if split in metrics
    ]
    rows.append(("proof", parity.summary))
    for output, tolerance in parity.tolerances.items():
        amount = parity.max_absolute(output)
        seen = "nothing" if amount is None else f"{amount:.2g}"
        relative = f" + {tolerance.relative:g}|v|" if tolerance.relative else ""
        rows.append((f"{output} differ by", f"{seen}, allowed {tolerance.absolute:g}{relative}"))
    rows.append(("weights", f"sha256 {manifest.provenance['weights_sha256'][:16]}..."))
    rows.append(("published", str(published.path)))
    grid = Table(title=f"{published.name} version {published.version}", title_justify="left", title_style="bold")
    grid.box, grid.show_header = None, False
    for row in rows:
        grid.add_row(*row)
    stdout().print(grid)
