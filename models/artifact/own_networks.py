"""Which manifests describe a network of this project, as its pipeline publishes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.networks.architectures import ARCHITECTURES

if TYPE_CHECKING:
    from models.artifact.artifact import Manifest


def network_of(manifest: Manifest) -> str | None:
    """The name of the network, a key of ``ARCHITECTURES``; None for any other model, and for one without goldens."""
    said = manifest.provenance.get("network")
    if not isinstance(said, dict) or not manifest.goldens:
        return None
    known = (each for each in ARCHITECTURES.values() if said.get("name") == each.name)
    return next((each.name for each in known if said.get("parameters") == each.parameters), None)
