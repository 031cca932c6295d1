"""What the demonstration shows first, on answers that are made for it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from models.data.dataset import Examples, canonical
from models.report.opening import opening
from models.report.shifting import SHIFTS, moved, without_ramp
from models.report.subject import Pair
from tests.models.report.subjects import pair

X_BL = canonical().test.x_BL[:12]
Y_B = np.array([3, 3, 1, 1, 4, 5, 6, 7, 8, 9, 0, 2], np.int64)


@dataclass
class Answering:
    """A network that answers rightly, but for the (example, shift) that it is told to fail at."""

    role: str
    fails: set[tuple[int, int]] = field(default_factory=set)

    def probabilities(self, x_BL):
        level_BL = without_ramp(X_BL)
        known = {
            moved(signal_L, shift).tobytes(): (n, shift) for n, signal_L in enumerate(level_BL) for shift in SHIFTS
        }
        known |= {signal_L.tobytes(): (n, 0) for n, signal_L in enumerate(X_BL)}
        p_BK = np.zeros((len(x_BL), 10), np.float32)
        for row, signal_L in enumerate(x_BL):
            n, shift = known[signal_L.tobytes()]
            p_BK[row, (Y_B[n] + ((n, shift) in self.fails)) % 10] = 1
        return p_BK


def opened(conv=(), fc=()):
    """``conv`` and ``fc``: where each fails; None for a network that is not there."""
    nets = [Answering(role, set(fails)) for role, fails in (("conv", conv), ("fc", fc)) if fails is not None]
    return opening(Pair(nets[0], nets[1] if len(nets) > 1 else None, test=Examples(X_BL, Y_B)))


def state(first):
    return first.indices[first.at], first.shift


@pytest.mark.parametrize(
    ("conv", "fc", "expected"),
    [
        ((), {(0, 4), (2, 4)}, (0, 4)),
        ((), {(2, 4), (0, -4)}, (2, 4)),  # the usual shift, and then the first example
        ({(0, 4)}, {(0, 4), (4, -4)}, (4, -4)),  # where both break there is nothing to see
        ({(0, 4)}, {(5, 8), (5, 3)}, (5, 8)),
        ((), {(5, 3), (3, 2)}, (3, 2)),  # another example before an odd shift
        ((), {(5, 3)}, (5, 3)),
        ((), {(11, 4)}, (11, 4)),  # a digit that would not be shown
    ],
)
def test_it_opens_where_convs_answer_holds_and_the_others_breaks(conv, fc, expected):
    first = opened(conv, fc)
    assert state(first) == expected
    assert len({int(Y_B[index]) for index in first.indices}) == len(first.indices) == 6
    assert f"It opens on test example {expected[0]}, a {Y_B[expected[0]]}, moved by {abs(expected[1])} samples" in (
        first.reason
    )
    assert "the convolutional net's answer holds and the fully connected net's answer breaks" in first.reason


def test_both_directions_are_counted():
    first = opened({(4, 4), (5, 4), (6, 4)}, {(0, 4), (1, 4), (6, 4)})
    assert "it is so for 2 of 12 such examples, and the reverse for 2." in first.reason
    assert "The examples are the first of their digits that both networks get right unmoved" in first.reason
    assert "The other examples are the first" in opened((), {(11, 4)}).reason


def test_where_there_is_none_it_says_so():
    first = opened({(0, 4)}, {(0, 4)})
    assert state(first) == (0, 4)
    assert "There is no example and no shift here at which the convolutional net's answer holds and" in first.reason
    assert "chosen" not in first.reason


def test_an_example_that_is_wrong_unmoved_is_not_shown():
    first = opened((), {(0, 0), (1, 4)})
    assert state(first) == (1, 4)
    assert 0 not in first.indices
    assert "1 of 11 such examples" in first.reason
    assert opened({(n, 0) for n in range(12)}) is None


def test_one_network_alone_shows_its_own_part():
    first = opened({(0, 4)}, None)
    assert state(first) == (2, 4)
    assert "there the convolutional net's answer holds. " in first.reason
    assert "so for 11 of 12 such examples." in first.reason
    first = opened(None, {(4, 4)})
    assert state(first) == (4, 4)
    assert "there the fully connected net's answer breaks. " in first.reason


def test_real_networks_do_at_it_what_it_says():
    both = pair()
    first = opening(both)
    index = first.indices[first.at]
    x_L = moved(without_ramp(both.examples.x_BL[[index]]), first.shift)
    answers = {net.role: int(net.probabilities(x_L).argmax()) for net in both.subjects}
    is_so = answers["conv"] == both.examples.y_B[index] != answers["fc"]
    assert is_so == ("There is no example and no shift" not in first.reason)
