"""``mnist1d report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from models.errors import ArtifactError, PublicationError
from service.cli.console import fail, json_option, print_json, stdout

if TYPE_CHECKING:
    from models.report.subject import Pair, Subject


@click.command()
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write it to this file.  [default: report.html in the version's directory]",
)
@json_option
def command(path: Path, output: Path | None, *, as_json: bool) -> None:
    """Write the report of a published version again: one HTML file that needs no network.

    PATH is a version directory, or the directory of a model (its latest version is taken). Everything is computed from
    the version's own files and those of the newest version of its counterpart in the same repository: conv is shown
    beside fc, conv25 beside fc-slide. Needs no PyTorch, and works for versions that were published without a report.

    \b
    mnist1d report repository/mnist1d-conv
    mnist1d report repository/mnist1d-conv/1 --output lesson.html
    """
    from models.artifact import REPORT_FILE
    from models.publication import replace_file, version_directory
    from models.report.page import page
    from models.report.subject import Subject, pair_of

    try:
        directory = version_directory(path.resolve())
        own = Subject.read(directory)
        pair = pair_of(own, directory.parent.parent)
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
    other = None if pair.other is None else {"name": pair.other.manifest.name, "version": pair.other.manifest.version}
    own = pair.own.manifest
    return {"path": str(target), "name": own.name, "version": own.version, "counterpart": other}


def _beside(pair: Pair) -> str:
    other: Subject | None = pair.other
    return pair.why_alone if other is None else f"beside {other.manifest.name} version {other.manifest.version}"
