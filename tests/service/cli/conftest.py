"""A version that the pipeline published, for the commands that read one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def published_conv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of mnist1d-conv, version 1, after 200 steps. Not to be changed: copy it first."""
    pytest.importorskip("torch")
    from models import pipeline
    from models.training.recipes import recipe

    repository = tmp_path_factory.mktemp("published")
    return pipeline.run(recipe("quick", steps=200, warmup_steps=20), repository=repository).path
