from __future__ import annotations

import sys

import pytest

from models import training
from models.errors import EngineUnavailable
from models.training.backend import ENGINES, chosen
from models.training.recipes import recipe

pytest.importorskip("torch")
pytestmark = pytest.mark.needs_torch


@pytest.fixture
def no_numba(monkeypatch) -> None:
    for name in [name for name in sys.modules if name.startswith("models.training.fused")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numba", None)
    if hasattr(training, "fused"):
        monkeypatch.setattr(training, "fused", training.fused)  # an import puts another one there; this brings it back


@pytest.mark.parametrize("network", ["conv", "fc", "conv25", "fc-slide"])
def test_every_network_and_recipe_is_trained_by_the_fused_engine_where_numba_is(network):
    pytest.importorskip("numba")
    for name in ("lecture", "best", "quick", "plain"):
        assert chosen("auto", recipe(name, network=network)) == "fused"
        assert chosen("fused", recipe(name, network=network)) == "fused"
        assert chosen("torch", recipe(name, network=network)) == "torch"


def test_without_numba_torch_is_chosen_and_fused_refused(no_numba):
    assert chosen("auto", recipe("lecture")) == "torch"
    assert chosen("torch", recipe("lecture")) == "torch"
    with pytest.raises(EngineUnavailable, match=r"fused cannot train this: numba cannot be imported .*torch can"):
        chosen("fused", recipe("lecture"))


def test_other_engines_are_refused():
    assert ENGINES == ("auto", "fused", "torch")
    with pytest.raises(ValueError, match="engine must be one of auto, fused, torch, got 'jax'"):
        chosen("jax", recipe("lecture"))
