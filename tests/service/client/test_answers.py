from __future__ import annotations

import numpy as np
import pytest

from service.client import Answer, Classified


def answer(elements) -> Answer:
    return Answer("m", "1", "", {"y": np.array(elements, object)})


@pytest.mark.parametrize(
    ("elements", "classes"),
    [
        ([["0.900000:2:two"]], ((Classified(0.9, 2, "two"),),)),
        ([["-1.500000:0"], ["7:1"]], ((Classified(-1.5, 0, ""),), (Classified(7, 1, ""),))),
        (["3.000000:1:a", "2.000000:0:b"], ((Classified(3, 1, "a"), Classified(2, 0, "b")),)),
        ([["0.500000:0:time 12:30"]], ((Classified(0.5, 0, "time 12:30"),),)),
        ([["inf:0:é"]], ((Classified(float("inf"), 0, "é"),),)),
        (np.empty((0, 2)), ()),
    ],
    ids=["label", "no labels", "no batch axis", "colons in the label", "infinite", "no rows"],
)
def test_classes_are_read_row_by_row(elements, classes) -> None:
    assert answer(elements).classes("y") == classes


@pytest.mark.parametrize("element", ["", "2", "a:1", "1.0:b", "1.0:", ":1", 2.5])
def test_what_is_no_class_is_said_to_be_none(element) -> None:
    with pytest.raises(ValueError, match=r"output 'y': expected value:index\[:label\], got "):
        answer([[element]]).classes("y")


def test_an_output_that_did_not_come_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="z"):
        answer([]).classes("z")
