"""The convolutional net and its baseline, trained, published and served, once for all tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.processes import ServerProcess, serve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import nn

    from models.dataset import Examples


@dataclass(frozen=True)
class Trained:
    """What the tests compare the server with."""

    repository: Path
    networks: Mapping[str, nn.Module]
    """The PyTorch references, by published name: rebuilt by the same training, not read back from the export."""
    test: Examples


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Both networks by the lecture's recipe, hurried: a tenth of its learning rate's patience, ten times the rate."""
    pytest.importorskip("torch")
    from models import pipeline
    from models.dataset import canonical
    from models.recipes import recipe
    from models.training import train

    repository = tmp_path_factory.mktemp("trained")
    networks = {}
    for network in ("conv", "fc"):
        hurried = recipe("lecture", network=network, steps=6000, learning_rate=0.1, seed=0)
        published = pipeline.run(hurried, repository=repository)
        networks[published.name] = train(hurried, canonical()).network
    return Trained(repository, networks, canonical().test)


@pytest.fixture(scope="session")
def server(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server process over `trained`."""
    with serve(trained.repository, tmp_path_factory.mktemp("server") / "log") as running:
        yield running
