"""The convolutional net and its baseline, trained, published and served, once for all tests."""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.processes import ServerProcess, serve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import nn

    from models.data.dataset import Examples


@dataclass(frozen=True)
class Trained:
    """What the tests compare the server with."""

    repository: Path
    networks: Mapping[str, nn.Module]
    """The PyTorch references, by published name: rebuilt by the same training, not read back from the export."""
    test: Examples


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Trained:
    """Both networks by the lecture's recipe, hurried: a tenth of its learning rate's patience, ten times the rate.

    The processes that tests run in share them: whoever comes first trains, and the others wait.
    """
    torch = pytest.importorskip("torch")
    from models.data.dataset import canonical
    from models.networks.modules import build

    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "trained"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            _train(folder)
            (folder / "complete").touch()
    networks = {}
    for weights in folder.glob("*.pt"):
        network, name = weights.stem.split(" ")
        networks[name] = build(network, seed=0)
        networks[name].load_state_dict(torch.load(weights, weights_only=True))
    return Trained(folder / "repository", networks, canonical().test)


def _train(folder: Path) -> None:
    import torch

    from models import pipeline
    from models.data.dataset import canonical
    from models.training.loop import train
    from models.training.recipes import recipe

    for network in ("conv", "fc"):
        hurried = recipe("lecture", network=network, steps=6000, learning_rate=0.1, seed=0)
        published = pipeline.run(hurried, repository=folder / "repository")
        again = train(hurried, canonical()).network
        torch.save(again.state_dict(), folder / f"{network} {published.name}.pt")


@pytest.fixture(scope="session")
def server(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server process over `trained`."""
    with serve(trained.repository, tmp_path_factory.mktemp("server") / "log") as running:
        yield running
