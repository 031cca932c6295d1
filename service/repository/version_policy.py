"""Version policies: which versions of a model are served, in Triton's three forms latest n, all and specific."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

_FORMS = "'latest:N', 'all' or 'specific:N,N'"


class PolicyError(ValueError):
    """The version policy cannot be parsed."""


@dataclass(frozen=True)
class VersionPolicy:
    """Serve one of: the newest ``latest`` versions that pass their proof, the ``specific`` ones, or all."""

    latest: int | None = 1
    """The number of versions; one that fails its proof is skipped and the next older one tried. None: no limit."""
    specific: tuple[int, ...] = ()
    """The only versions to serve; empty for any."""

    @classmethod
    def parse(cls, text: str) -> VersionPolicy:
        """Read ``latest``, ``latest:2``, ``all`` or ``specific:1,3``; raises PolicyError."""
        kind, _, rest = text.partition(":")
        try:
            if kind == "latest":
                return cls(latest=_positive(rest) if rest else 1)
            if kind == "all" and not rest:
                return cls(latest=None)
            if kind == "specific" and rest:
                return cls(latest=None, specific=tuple(_positive(part) for part in rest.split(",")))
        except ValueError as error:
            raise PolicyError(f"version policy {text!r}: {error}") from error
        raise PolicyError(f"version policy: got {text!r}, expected {_FORMS}")

    @classmethod
    def from_json(cls, value: object) -> VersionPolicy:
        """Read the text form, or Triton's: ``{"latest": {"num_versions": 2}}``, ``{"all": {}}``,
        ``{"specific": {"versions": [1, 3]}}``; numbers may be strings and names camelCase, as in protobuf's JSON.

        Raises PolicyError.
        """
        if isinstance(value, str):
            return cls.parse(value)
        if not isinstance(value, Mapping) or len(value) != 1:
            raise PolicyError(f"version policy: got {value!r}, expected {_FORMS}, or an object with one of the three")
        ((kind, details),) = value.items()
        if not isinstance(details, Mapping):
            raise PolicyError(f"version policy, {kind}: got {details!r}, expected an object")
        try:
            if kind == "latest" and set(details) <= {"num_versions", "numVersions"}:
                return cls(latest=_positive(next(iter(details.values()), 1)))
            if kind == "all" and not details:
                return cls(latest=None)
            if kind == "specific" and set(details) == {"versions"}:
                return cls(latest=None, specific=_listed(details["versions"]))
        except ValueError as error:
            raise PolicyError(f"version policy, {kind}: {error}") from error
        raise PolicyError(f"version policy: got {dict(value)!r}, which is none of Triton's three forms")

    def candidates(self, present: Collection[int]) -> list[int]:
        """The versions to try, newest first."""
        wanted = [version for version in present if not self.specific or version in self.specific]
        return sorted(wanted, reverse=True)

    def missing(self, present: Collection[int]) -> list[int]:
        """The specific versions that are not present, oldest first."""
        return sorted(set(self.specific) - set(present))

    def __str__(self) -> str:
        if self.specific:
            return f"specific:{','.join(str(version) for version in self.specific)}"
        return "all" if self.latest is None else f"latest:{self.latest}"


def _listed(versions: object) -> tuple[int, ...]:
    if not isinstance(versions, list) or not versions:
        raise ValueError(f"expected a list of versions, got {versions!r}")
    return tuple(_positive(version) for version in versions)


def _positive(value: object) -> int:
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not (text.isascii() and text.isdecimal() and len(text) < 20) or int(text) < 1:
        raise ValueError(f"expected a whole number of at least 1, got {value!r}")
    return int(text)
