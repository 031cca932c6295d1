"""``mnist1d prove``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.errors import ArtifactError
from service.cli.display.console import Exit, FiniteRange, fail, json_option, print_json, stderr, stdout

if TYPE_CHECKING:
    from models.artifact.artifact import Artifact
    from models.artifact.goldens import Golden
    from models.artifact.parity_report import ParityReport

DEFAULT_ATOL = 1e-5
DEFAULT_RTOL = 1e-5


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--goldens",
    "golden_folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A test_data_set_N folder, or a folder of such folders; may be repeated. [default: those beside the file]",
)
@click.option(
    "--atol", type=FiniteRange(min=0), help=f"Absolute tolerance of an ONNX file.  [default: {DEFAULT_ATOL:g}]"
)
@click.option(
    "--rtol", type=FiniteRange(min=0), help=f"Relative tolerance of an ONNX file.  [default: {DEFAULT_RTOL:g}]"
)
@click.option("--replay-only", is_flag=True, help="Replay the goldens of a published version; leave PyTorch alone.")
@json_option
def command(
    path: Path,
    golden_folders: tuple[Path, ...],
    atol: float | None,
    rtol: float | None,
    replay_only: bool,
    as_json: bool,
) -> None:
    """Prove a published model again, or any ONNX file against goldens.

    PATH is a version directory, the directory of a model (its latest version is taken), or an ONNX file. A published
    version is proven within the tolerance of its manifest: its goldens are replayed with onnxruntime, and, where
    PyTorch is installed and the model is one of this project's networks, the whole proof is made again over the test
    set. An ONNX file is held to its goldens: names, dtypes, shapes, values, and the same bits for every row alone and
    in a batch. Values may differ by atol + rtol x |recorded value|; what is no floating-point number must be equal.

    Exit code 0 if it is proven, 3 if it is refuted, 1 if there is nothing that could be proven: no goldens, say, or a
    file that is no model.

    \b
    mnist1d prove repository/mnist1d-conv
    mnist1d prove repository/mnist1d-conv/1 --replay-only
    mnist1d prove model.onnx --goldens test_data_set_0 --atol 1e-4
    """
    from models.artifact.publication import version_directory

    try:
        directory = None if path.is_file() else version_directory(path)
        if directory is not None and _has_manifest(directory):
            if golden_folders or atol is not None or rtol is not None:
                fail("--goldens, --atol and --rtol are for plain ONNX files; this version has its own", Exit.USAGE)
            report = _prove_version(directory, replay_only=replay_only, quiet=as_json)
            subject = str(directory)
        else:
            file = path if directory is None else directory / "model.onnx"
            report = _prove_file(
                file,
                golden_folders or (file.parent,),
                DEFAULT_ATOL if atol is None else atol,
                DEFAULT_RTOL if rtol is None else rtol,
            )
            subject = str(file)
    except ArtifactError as error:
        if as_json:
            print_json({"path": str(path), "error": type(error).__name__, "message": str(error)})
        fail(str(error))
    _show(report, subject, as_json=as_json)
    if not report["passed"]:
        raise click.exceptions.Exit(int(Exit.REFUTED))


def _has_manifest(directory: Path) -> bool:
    from models.artifact.artifact import MANIFEST_FILE

    return (directory / MANIFEST_FILE).exists()


def _prove_version(directory: Path, *, replay_only: bool, quiet: bool) -> dict[str, Any]:
    """Make the strongest proof that is possible here for a version with a manifest."""
    from models.artifact.artifact import Artifact, read_manifest
    from models.artifact.golden_proof import prove_artifact

    read_manifest(directory)  # an unreadable manifest is an error, not a refutation
    if not (directory / "model.onnx").is_file():
        raise ArtifactError(f"{directory} has no model.onnx")
    try:
        artifact = Artifact.load(directory)
    except ArtifactError as error:
        # The files exist, but are not those that were published.
        return {"passed": False, "summary": str(error), "tolerances": {}, "checks": []}
    why_not = "as asked" if replay_only else _no_full_proof(artifact)
    if why_not is None:
        from models.data.dataset import canonical
        from models.proof import prove_published

        report = prove_published(artifact, canonical().test)
    else:
        if not quiet:
            stderr().print(f"goldens only: {why_not}", style="dim")
        report = prove_artifact(artifact)
    return report.to_dict()


def _no_full_proof(artifact: Artifact) -> str | None:
    """Why the proof with PyTorch cannot be made here; None if it can."""
    from models.artifact.golden_proof import published_network

    try:
        published_network(artifact)
    except ArtifactError as error:
        return str(error)
    return None if importlib.util.find_spec("torch") is not None else "PyTorch is not installed"


def _prove_file(file: Path, folders: tuple[Path, ...], atol: float, rtol: float) -> dict[str, Any]:
    """Prove an ONNX file against the goldens in ``folders``."""
    from models.artifact.golden_proof import prove_against_goldens
    from models.artifact.goldens import Tolerance

    try:
        model_bytes = file.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read: {error.strerror}") from error
    goldens = [golden for folder in folders for golden in _goldens_in(folder)]
    if not goldens:
        raise ArtifactError(f"there are no goldens in {', '.join(map(str, folders))}; name some with --goldens")
    report: ParityReport = prove_against_goldens(model_bytes, goldens, {}, default=Tolerance(atol, rtol))
    return report.to_dict()


def _goldens_in(folder: Path) -> tuple[Golden, ...]:
    """Read a folder that is one golden, or contains several."""
    from models.artifact.goldens import read_golden, read_goldens

    if any(folder.glob("input_*.pb")):
        return (read_golden(folder),)
    return read_goldens(folder)


def _show(report: dict[str, Any], subject: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"path": subject, **report})
        return
    from service.cli.display.parity_table import draw_report

    draw_report(stdout(), report, title=f"Proof of {subject}")
