from __future__ import annotations

import json

import pytest

from service.errors import InvalidRequest, LoadFailed, ServiceError, WorkerFailed, WorkerSilent
from service.workers.backplane import BackplaneFailed, Message
from service.workers.replies import Answer, error_fields, error_of, pack, reworded, unpack


def test_answers_and_errors_go_there_and_back() -> None:
    error = InvalidRequest("inputs[0]: got 3", field="inputs[0]", model="a")
    message = pack([Answer(0, b"zero"), Answer(2, error=error), Answer(1, b"")])
    again = unpack(Message(json.loads(json.dumps(message.fields)), message.body))
    assert [(answer.worker, answer.body) for answer in again] == [(0, b"zero"), (2, b""), (1, b"")]
    told = again[1].error
    assert isinstance(told, InvalidRequest)
    assert (str(told), told.details) == (str(error), error.details)


@pytest.mark.parametrize("kind", ServiceError.__subclasses__())
def test_every_error_is_the_same_afterwards(kind) -> None:
    again = error_of(json.loads(json.dumps(error_fields(kind("words", may_pass=True)))))
    assert type(again) is kind
    assert again.details == kind("words").details


def test_an_unknown_error_is_a_defect_of_the_other_worker() -> None:
    fields = {**error_fields(LoadFailed("words")), "kind": "SomethingNew"}
    assert isinstance(error_of(fields), WorkerFailed)


def test_a_reworded_error_keeps_its_details() -> None:
    error = LoadFailed("words", model="a")
    again = reworded(error, "in worker 1: words")
    assert type(again) is LoadFailed
    assert (str(again), again.details) == ("in worker 1: words", error.details)


def test_long_messages_are_cut() -> None:
    assert len(error_fields(WorkerSilent("x" * 1_000_000))["message"]) < 2000


@pytest.mark.parametrize(
    "message",
    [Message(), Message({"answers": [[0, 5, None]]}, b"four"), Message({"answers": [[0, 3, None]]}, b"four"),
     Message({"answers": [1]}), Message({"answers": [[0, 0, {}]]})],
)  # fmt: skip
def test_what_is_no_answers_is_refused(message) -> None:
    with pytest.raises(BackplaneFailed, match="no answers"):
        unpack(message)
