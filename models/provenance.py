"""Where a model comes from: code, libraries and kind of machine, but no host name, user name or path."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import models

LIBRARIES: Final = ("numpy", "torch", "onnx", "onnxscript", "onnxruntime", "numba")
"""Distributions whose versions can change a weight or a byte of the exported file."""
_GIT_TIMEOUT_S: Final = 10


def code() -> dict[str, Any]:
    """This project's version, and the git commit if it runs from its own checkout.

    ``commit`` is None outside of a checkout or without git; ``modified`` says whether ``models/`` differs from it.
    """
    root = Path(models.__file__).resolve().parent.parent
    version = {"version": models.__version__}
    top = _git(root, "rev-parse", "--show-toplevel")
    # An installed package may lie inside another project's checkout, whose commit says nothing about it.
    if top is None or Path(top) != root:
        return {**version, "commit": None, "modified": None}
    changes = _git(root, "status", "--porcelain", "--", "models")
    return {**version, "commit": _git(root, "rev-parse", "HEAD"), "modified": bool(changes)}


def libraries() -> dict[str, str]:
    """Versions of Python and of `LIBRARIES`; those that are not installed are left out."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def machine() -> str:
    """Operating system and processor architecture, for example ``Linux x86_64``."""
    return f"{platform.system()} {platform.machine()}"


def _git(root: Path, *arguments: str) -> str | None:
    """The output of git, or None if it fails."""
    git = shutil.which("git")
    if git is None:
        return None
    try:
        answer = subprocess.run(  # noqa: S603  (a fixed program with fixed arguments)
            [git, "-C", str(root), *arguments], capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
