"""Choose what the demonstration opens with: an example and a shift that show the difference, if there is one.

The page says that they are chosen, and how often this difference and its reverse occur.
Shapes: S shifts, N examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.report.shifting import SHIFTS, moved, told, without_ramp

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.report.subject import Pair

SHOWN: Final = 6
"""Number of examples that the reader can choose from."""
USUAL_SHIFT: Final = 4
"""The shift that is tried first, and shown if none is better."""


@dataclass(frozen=True)
class Opening:
    """The examples that can be chosen, and the state that is shown first."""

    indices: tuple[int, ...]
    """Indices in the test set; at most `SHOWN`, of different digits."""
    at: int
    """Position in ``indices`` of the example that is shown first."""
    shift: int
    """Samples by which that example is moved."""
    reason: str
    """Why the example and the shift were chosen, in sentences."""


def opening(pair: Pair) -> Opening | None:
    """The first example and shift at which conv's answer stays right and the fully connected net's does not.

    For a single network, only its half of the condition counts. Even shifts are preferred, because for them the map
    moves as a whole. None if no example is answered correctly by every network both with and without its ramp.
    """
    right_N = _right(pair)
    if not len(right_N):
        return None
    firsts: dict[int, int] = {}
    for index in right_N:
        firsts.setdefault(int(pair.examples.y_B[index]), int(index))
    shown = list(firsts.values())[:SHOWN]
    stays_SN = _stays(pair, right_N)
    wanted_SN = np.all([stays if role == "conv" else ~stays for role, stays in stays_SN.items()], axis=0)
    found = _find(wanted_SN, [int(np.flatnonzero(right_N == index)[0]) for index in shown])
    if found is None:
        return Opening(tuple(shown), 0, USUAL_SHIFT, _nothing(pair))
    s, n = found
    index, digit = int(right_N[n]), int(pair.examples.y_B[right_N[n]])
    is_first = index in shown
    if not is_first:
        of_digit = [at for at, other in enumerate(shown) if pair.examples.y_B[other] == digit]
        shown[of_digit[0] if of_digit else -1] = index
    reason = _reason(pair, {role: stays[s] for role, stays in stays_SN.items()}, SHIFTS[s], index, is_first=is_first)
    return Opening(tuple(shown), shown.index(index), SHIFTS[s], reason)


def _right(pair: Pair) -> NDArray[np.int64]:
    """Indices of the unmoved examples that every network gets right, both with and without their ramp."""
    y_B = pair.examples.y_B
    level_BL = without_ramp(pair.examples.x_BL)
    right_B = np.ones(len(y_B), bool)
    for subject in pair.subjects:
        right_B &= pair.answers[subject.role].argmax(axis=1) == y_B
        right_B &= subject.probabilities(level_BL).argmax(axis=1) == y_B
    return np.flatnonzero(right_B)


def _stays(pair: Pair, right_N: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Whether the answer to a moved example is still right, as a mask (S, N) by role."""
    y_N, level_NL = pair.examples.y_B[right_N], without_ramp(pair.examples.x_BL[right_N])
    return {
        subject.role: np.stack([_answers(subject.probabilities(moved(level_NL, shift))) == y_N for shift in SHIFTS])
        for subject in pair.subjects
    }


def _answers(probabilities_NK: NDArray[Any]) -> NDArray[np.int64]:
    answers_N: NDArray[np.int64] = probabilities_NK.argmax(axis=1)
    return answers_N


def _find(wanted_SN: NDArray[np.bool_], preferred: list[int]) -> tuple[int, int] | None:
    """Return the first wanted (s, n): even shifts before odd ones, preferred examples before others; else None."""
    shifts = sorted((shift for shift in SHIFTS if shift), key=lambda shift: (abs(abs(shift) - USUAL_SHIFT), -shift))
    everything = range(wanted_SN.shape[1])
    for rest in (0, 1):
        for examples in (preferred, everything):
            for shift in shifts:
                s = SHIFTS.index(shift)
                for n in examples if shift % 2 == rest else ():
                    if wanted_SN[s, n]:
                        return s, n
    return None


# ---- in words ----------------------------------------------------------------------------------------------------


def _reason(pair: Pair, stays_N: dict[str, NDArray[np.bool_]], shift: int, index: int, *, is_first: bool) -> str:
    count = len(next(iter(stays_N.values())))
    opens = (
        f"It opens on test example {index}, a {pair.examples.y_B[index]}, moved by {told(shift)}. That is chosen, not "
        f"left to chance: there {_wanted(pair)}. "
    )
    firsts = (
        f"The {'' if is_first else 'other '}examples are the first of their digits that {_who(pair)} right unmoved. "
    )
    if pair.other is None:
        role, stays = next(iter(stays_N.items()))
        happens = int((stays if role == "conv" else ~stays).sum())
        return f"{opens}{firsts}At this shift it is so for {happens:,} of {count:,} such examples."
    conv_N, fc_N = stays_N["conv"], stays_N["fc"]
    return (
        f"{opens}{firsts}At this shift it is so for {int((conv_N & ~fc_N).sum()):,} of {count:,} such examples, and "
        f"the reverse for {int((fc_N & ~conv_N).sum()):,}."
    )


def _nothing(pair: Pair) -> str:
    return (
        f"The examples are the first of their digits that {_who(pair)} right unmoved. There is no example and no shift "
        f"here at which {_wanted(pair)}."
    )


def _who(pair: Pair) -> str:
    return "the network gets" if pair.other is None else "both networks get"


def _wanted(pair: Pair) -> str:
    holds, breaks = "the convolutional net's answer holds", "the fully connected net's answer breaks"
    parts = [holds if subject.role == "conv" else breaks for subject in pair.subjects]
    return " and ".join(parts)
