"""``mnist1d report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from models.errors import ArtifactError, PublicationError
from service.cli.display.console import fail, json_option, print_json, stdout

if TYPE_CHECKING:
    from models.report.subject import Pair


@click.command()
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write it to this file.  [default: report.html in the version's directory]",
)
@click.option(
    "--beside",
    metavar="NAME[/VERSION]|PATH",
    help="Show it beside this version of its counterpart: a name in the same repository, or a directory.  [default: "
    "the newest of those by the same recipe and number of steps, else by the same recipe, else of all]",
)
@json_option
def command(path: Path, output: Path | None, beside: str | None, *, as_json: bool) -> None:
    """Write the report of a published version again: one HTML file that needs no network.

    PATH is a version directory, or the directory of a model (its latest version is taken). Everything is computed from
    the version's own files and those of a version of its counterpart: conv is shown beside fc, conv25 beside fc-slide.
    Needs no PyTorch, and works for versions that were published without a report.

    \b
    mnist1d report repository/mnist1d-conv
    mnist1d report repository/mnist1d-conv/1 --output lesson.html
    mnist1d report repository/mnist1d-conv --beside mnist1d-fc/2
    """
    from models.artifact.artifact import REPORT_FILE
    from models.artifact.publication import replace_file, version_directory
    from models.report.counterpart import pair_of
    from models.report.page import page
    from models.report.subject import Subject

    try:
        directory = version_directory(path.resolve())
        own = Subject.read(directory)
        pair = pair_of(own, directory.parent.parent, beside=beside)
        target = directory / REPORT_FILE if output is None else output
        replace_file(target, page(pair).encode())
    except (ArtifactError, PublicationError) as error:
        if as_json:
            print_json({"path": str(path), "error": type(error).__name__, "message": str(error)})
        fail(str(error))
    if as_json:
        print_json(_facts(target, pair))
        return
    console = stdout()
    console.print(f"{own.manifest.name} version {own.manifest.version}: {target}", markup=False)
    console.print(f"  {_beside(pair)}", markup=False, style="dim")


def _facts(target: Path, pair: Pair) -> dict[str, object]:
    own, other = pair.own.manifest, None
    if pair.other is not None:
        manifest = pair.other.manifest
        other = {"name": manifest.name, "version": manifest.version, "why": pair.why_beside}
    return {"path": str(target), "name": own.name, "version": own.version, "counterpart": other}


def _beside(pair: Pair) -> str:
    other = pair.other
    if other is None:
        return pair.why_alone
    return f"beside {other.manifest.name} version {other.manifest.version}: {pair.why_beside}"
