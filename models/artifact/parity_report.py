"""The report of a parity proof: named checks, with their measured values and the bounds of these.

A report is data. It is stored in the manifest of the model, printed by the command line, and carried by
``ProofFailed``. An independent computation of the same outputs is called an opinion here. Knows neither torch nor
onnxruntime.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from models.artifact.goldens import Tolerance


@dataclass(frozen=True)
class Comparison:
    """One output at one batch size, compared with an independent computation of it (an opinion) over all examples."""

    against: str
    """Name of the opinion."""
    output: str
    batch: int
    """Examples in one run."""
    max_absolute: float | None
    """Largest |answer - opinion|; None if it is not finite or nothing could be compared."""
    example: int | None
    """Index of the example whose difference lies farthest outside (or least inside) the tolerance."""
    position: tuple[int, ...] | None
    """Index of that difference within the example's answer: (class,) for logits and probabilities."""
    argmax_mismatches: int
    """Number of examples with another argmax along the last axis."""
    passed: bool
    """Whether every element is within tolerance; argmax does not count."""
    detail: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The comparison as values for JSON."""
        return {
            "against": self.against,
            "output": self.output,
            "batch": self.batch,
            "max_absolute": self.max_absolute,
            "example": self.example,
            "position": list(self.position) if self.position is not None else None,
            "argmax_mismatches": self.argmax_mismatches,
            "passed": self.passed,
            "detail": self.detail,
        }

    def __str__(self) -> str:
        if self.max_absolute is None or self.example is None:
            return f"{self.output} at batch {self.batch}: {self.detail}"
        return (
            f"{self.output} at batch {self.batch}: difference {self.max_absolute:.3g}, "
            f"worst at example {self.example}, position {', '.join(map(str, self.position or ()))}"
        )


@dataclass(frozen=True)
class Check:
    """One named step of a proof."""

    name: str
    passed: bool
    detail: str
    """What was found, in one line."""
    comparisons: tuple[Comparison, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The check as values for JSON."""
        return {
            "name": self.name,
            "passed": self.passed,
            "detail": self.detail,
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
        }


@dataclass(frozen=True)
class ParityReport:
    """Every check of one proof, passed or not, with the tolerance that was stated beforehand."""

    model_sha256: str
    examples: int
    """Number of examples that the values were compared on."""
    batch_sizes: tuple[int, ...]
    tolerances: Mapping[str, Tolerance]
    """For each output: ``|answer - opinion| <= absolute + relative * |opinion|``."""
    checks: tuple[Check, ...] = field(default_factory=tuple)

    @property
    def passed(self) -> bool:
        """Whether there was at least one check and all passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def summary(self) -> str:
        """One line: the verdict, and the first failure if there is one."""
        if self.passed:
            return f"all {len(self.checks)} checks passed on {self.examples} examples"
        if not self.checks:
            return "nothing was checked"
        first = self.failed[0]
        return f"{len(self.failed)} of {len(self.checks)} checks failed; {first.name}: {first.detail}"

    def max_absolute(self, output: str) -> float | None:
        """The largest finite difference of one output over all comparisons; None if there is none."""
        seen = [
            comparison.max_absolute
            for check in self.checks
            for comparison in check.comparisons
            if comparison.output == output and comparison.max_absolute is not None
        ]
        return max(seen, default=None)

    def to_dict(self) -> dict[str, Any]:
        """The report as values for JSON, as manifests store it."""
        return {
            "passed": self.passed,
            "summary": self.summary,
            "model_sha256": self.model_sha256,
            "examples": self.examples,
            "batch_sizes": list(self.batch_sizes),
            "tolerances": {output: tolerance.to_dict() for output, tolerance in self.tolerances.items()},
            "max_absolute": {output: self.max_absolute(output) for output in self.tolerances},
            "checks": [check.to_dict() for check in self.checks],
        }


def compare(
    answer: NDArray[Any],
    opinion: NDArray[Any],
    tolerance: Tolerance,
    *,
    against: str,
    output: str,
    batch: int,
) -> Comparison:
    """Compare answers (B, ...) with an opinion of the same shape, element by element, in float64.

    Never raises for wrong answers: another shape, NaN and infinity are failures that the result describes.
    """
    if answer.shape != opinion.shape:
        return unanswered(
            f"expected shape {list(opinion.shape)}, got {list(answer.shape)}",
            against=against,
            output=output,
            batch=batch,
        )
    if not answer.size:
        return unanswered("there are no examples", against=against, output=output, batch=batch)
    a, b = answer.astype(np.float64), opinion.astype(np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf is NaN, which is handled below
        off = np.abs(a - b)
    mismatches = int(np.count_nonzero(np.argmax(a, axis=-1) != np.argmax(b, axis=-1)))
    excess = np.where(np.isfinite(off), off - (tolerance.absolute + tolerance.relative * np.abs(b)), np.inf)
    example, *position = (int(i) for i in np.unravel_index(int(np.argmax(excess)), excess.shape))
    at = (example, *position)
    finite = bool(np.isfinite(off).all())
    return Comparison(
        against=against,
        output=output,
        batch=batch,
        max_absolute=float(off.max()) if finite else None,
        example=example,
        position=tuple(position),
        argmax_mismatches=mismatches,
        passed=bool(excess.max() <= 0),
        detail="" if finite else f"{answer[at]} at example {example} where {against} has {opinion[at]}",
    )


def unanswered(why: str, *, against: str, output: str, batch: int) -> Comparison:
    """A failed comparison for an output that is missing or could not be computed."""
    return Comparison(against, output, batch, None, None, None, 0, passed=False, detail=why)


def value_check(name: str, comparisons: Sequence[Comparison]) -> Check:
    """Combine comparisons into a check, which passes if all are within tolerance; else its detail names the worst."""
    if not comparisons:
        return Check(name, passed=False, detail="nothing was compared")
    failures = [comparison for comparison in comparisons if not comparison.passed]
    if failures:
        worst = max(failures, key=_size)
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        return Check(name, passed=False, detail=f"{worst}{more}", comparisons=tuple(comparisons))
    largest: dict[str, float] = {}
    for comparison in comparisons:
        largest[comparison.output] = max(largest.get(comparison.output, 0.0), _size(comparison))
    detail = ", ".join(f"{output} within {amount:.2g}" for output, amount in largest.items())
    return Check(name, passed=True, detail=detail, comparisons=tuple(comparisons))


def _size(comparison: Comparison) -> float:
    return comparison.max_absolute if comparison.max_absolute is not None else float("inf")
