"""Choose the network that a report shows beside its own: the requested one, or the twin that was trained most alike."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from models.artifact.artifact import read_manifest
from models.artifact.publication import MODEL_NAME, model_names, version_directory, versions
from models.errors import ArtifactError
from models.networks.architectures import ARCHITECTURES
from models.report.subject import Pair, Subject, network_name, recipe_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from models.artifact.artifact import Manifest
    from models.data.dataset import Examples
    from models.networks.architectures import Architecture


class Likeness(IntEnum):
    """How alike two networks were trained; greater is more alike."""

    OTHER_RECIPE = 0
    OTHER_STEPS = 1
    """The recipes have the same name and another number of steps."""
    SAME = 2
    """The recipes have the same name and number of steps."""


def pair_of(own: Subject, repository: Path, test: Examples | None = None, beside: str | None = None) -> Pair:
    """Pair ``own`` with a published version of its counterpart.

    ``beside`` names the version: ``NAME`` or ``NAME/VERSION`` in ``repository``, or a directory. Without it, the newest
    of the versions in ``repository`` that were trained most alike (`Likeness`) is taken. Raises ArtifactError if
    ``beside`` is no version of the counterpart; other versions that cannot be read are skipped.
    """
    wanted = counterpart_name(own.architecture)
    if beside is not None:
        return Pair(own, _asked_for(beside, wanted, repository), test=test, why_beside="as it was asked for")
    candidates = sorted(_candidates(repository, wanted, own.recipe), reverse=True)
    problem = ""
    for candidate in candidates:
        try:
            other = Subject.read(candidate.directory)
        except ArtifactError as error:
            problem = problem or f" ({candidate.told} cannot be read: {error})"
        else:
            return Pair(own, other, test=test, why_beside=f"{_why(candidate, candidates)}{problem}")
    return Pair(own, None, f"There is no published version of its counterpart {wanted} beside it yet{problem}.", test)


def counterpart_name(architecture: Architecture) -> str:
    """Name of the network that this one is compared with: its baseline, or the network whose baseline it is."""
    if architecture.baseline is not None:
        return architecture.baseline
    return next(name for name, other in ARCHITECTURES.items() if other.baseline == architecture.name)


def likeness(first: Mapping[str, object], second: Mapping[str, object]) -> Likeness:
    """Compare two recipes as recorded in manifests; a recipe that is not recorded is like no other."""
    if not first or first.get("name") != second.get("name"):
        return Likeness.OTHER_RECIPE
    return Likeness.SAME if first.get("steps") == second.get("steps") else Likeness.OTHER_STEPS


@dataclass(frozen=True, order=True)
class _Candidate:
    """A version of the counterpart; the greatest is the best."""

    likeness: Likeness
    created: str
    version: int
    directory: Path

    @property
    def told(self) -> str:
        return f"{self.directory.parent.name} version {self.version}"


def _why(chosen: _Candidate, candidates: Sequence[_Candidate]) -> str:
    count = sum(candidate.likeness is chosen.likeness for candidate in candidates)
    which = "the only one" if count == 1 else f"the newest of {count}"
    match chosen.likeness:
        case Likeness.SAME:
            return f"{which} by the same recipe and number of steps"
        case Likeness.OTHER_STEPS:
            return f"{which} by the same recipe, as none has the same number of steps"
        case Likeness.OTHER_RECIPE:
            return f"{which} there, as none is by the same recipe"


def _candidates(repository: Path, network: str, recipe: Mapping[str, object]) -> Iterator[_Candidate]:
    """Yield the versions of a network in the repository, under any model name."""
    for model in model_names(repository):
        try:
            published = versions(repository / model)
        except OSError:
            continue  # a model that cannot be read is skipped
        for version in published:
            directory = repository / model / str(version)
            try:
                manifest: Manifest = read_manifest(directory)
            except ArtifactError:
                continue
            if network_name(manifest) == network:
                yield _Candidate(likeness(recipe, recipe_of(manifest)), manifest.created, version, directory)


def _asked_for(text: str, wanted: str, repository: Path) -> Subject:
    name, _, version = text.partition("/")
    in_repository = repository / text
    is_named = MODEL_NAME.fullmatch(name) and (not version or version.isdecimal()) and in_repository.is_dir()
    directory = in_repository if is_named else Path(text)
    if not directory.is_dir():
        raise ArtifactError(
            f"beside: got {text!r}, which is no directory and no NAME or NAME/VERSION in {repository}, expected a "
            f"version of {wanted}"
        )
    subject = Subject.read(version_directory(directory.resolve()))
    if subject.architecture.name != wanted:
        raise ArtifactError(f"beside: got {text!r}, a {subject.architecture.name}, expected a version of {wanted}")
    return subject
