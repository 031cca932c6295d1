"""The results folder: one file for each trial that was done, with failures in a subfolder. No torch.

A file is written beside its place and renamed, so that it is complete or absent, even if several machines write to one
folder at the same time. A trial that has a result is not run again; one that failed is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
from typing import TYPE_CHECKING, Final

from models.artifact.writable import why_not_writable
from models.errors import ModelsError, TrialFileError
from models.sweeps.outcome import Outcome, TrialResult

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from models.sweeps.trial import Trial

FAILED: Final = "failed"
"""Name of the subfolder for trials that failed."""


class ResultsFolder:
    """The results and failures of trials on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check_writable(self) -> None:
        """Raise TrialFileError unless a file could be written now; called before hours of work."""
        why_not = why_not_writable(self.path)
        if why_not is not None:
            raise TrialFileError(f"no result could be kept in {self.path}: {why_not}")

    def results(self, trials: Iterable[Trial]) -> dict[str, TrialResult]:
        """The existing results of these trials, by digest.

        Raises TrialFileError for a file that cannot be read, or holds another trial than its name says.
        """
        found = {}
        for trial in trials:
            path = self.path / trial.file_name
            try:
                result = _read(path)
            except FileNotFoundError:
                continue
            if result.trial.digest != trial.digest:
                raise TrialFileError(f"{path} holds another trial ({result.trial}) than its name says")
            found[trial.digest] = dataclasses.replace(result, trial=trial)  # with the recipe name that was asked for
        return found

    def all_results(self) -> list[TrialResult]:
        """Every result in the folder, sorted by file name; empty if there is no folder. TrialFileError as `results`."""
        paths = sorted(path for path in self.path.glob("*.json") if not path.name.startswith("."))
        return [_read(path) for path in paths]

    def keep(self, outcome: Outcome) -> Path:
        """Write the outcome of a trial and return the file. A result replaces an earlier failure.

        Raises TrialFileError if the disk refuses; nothing partial is left.
        """
        is_result = isinstance(outcome, TrialResult)
        failure = self.path / FAILED / outcome.trial.file_name
        path = self.path / outcome.trial.file_name if is_result else failure
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8") as file:
                file.write(_as_text(outcome))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            if is_result:
                _forget(failure)
        except OSError as error:
            raise TrialFileError(f"{path} cannot be written: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):  # the first failure is the one to report
                temporary.unlink(missing_ok=True)
        return path


def _as_text(outcome: Outcome) -> str:
    """The outcome as JSON, two levels indented and one line per curve, so that a folder in git stays readable."""
    lines = []
    for key, value in outcome.to_dict().items():
        if key == "history":
            parts = [f'    "{name}": {json.dumps(part, allow_nan=False)}' for name, part in value["splits"].items()]
            text = '{{"format_version": {}, "splits": {{\n{}\n  }}}}'.format(value["format_version"], ",\n".join(parts))
        else:
            text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        lines.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _read(path: Path) -> TrialResult:
    """Read a result. FileNotFoundError if there is none, TrialFileError for any other problem."""
    try:
        return TrialResult.from_dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise TrialFileError(f"{path} cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise TrialFileError(f"{path} is not the result of a trial: {error} is missing") from error
    except (ValueError, TypeError, AttributeError, RecursionError, ModelsError) as error:
        raise TrialFileError(f"{path} is not the result of a trial: {error}") from error


def _forget(failure: Path) -> None:
    """Remove the file of a failure, and the subfolder if it was the last one."""
    failure.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty, or never there
        failure.parent.rmdir()
