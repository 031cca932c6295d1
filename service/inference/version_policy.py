"""Which of a model's versions are served, in Triton's three forms: the latest n, all, or specific ones."""

from __future__ import annotations

from dataclasses import dataclass


class PolicyError(ValueError):
    """A version policy that cannot be read."""


@dataclass(frozen=True)
class VersionPolicy:
    """Exactly one of three: the newest ``latest`` versions that prove themselves, ``specific`` ones, or all."""

    latest: int | None = 1
    """How many; a version that fails its proof is passed over and the next older one is tried. None: no limit."""
    specific: tuple[int, ...] = ()
    """These and no others."""

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
        raise PolicyError(f"version policy: got {text!r}, expected 'latest:N', 'all' or 'specific:N,N'")

    def candidates(self, present: list[int]) -> list[int]:
        """The versions to try, newest first."""
        wanted = [version for version in present if not self.specific or version in self.specific]
        return sorted(wanted, reverse=True)

    def __str__(self) -> str:
        if self.specific:
            return f"specific:{','.join(str(version) for version in self.specific)}"
        return "all" if self.latest is None else f"latest:{self.latest}"


def _positive(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)
