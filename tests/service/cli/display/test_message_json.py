"""Messages of the training contract as JSON."""

from __future__ import annotations

import json

from service.cli.display.message_json import as_json
from service.pb import training_pb2 as pb
from service.training import messages
from service.training.run import Failure


def test_whole_numbers_of_a_struct_have_no_point() -> None:
    message = pb.TrainingRunMetadata(step=7, loss=2.0, network="conv")
    message.recipe_fields.update(
        {
            "steps": 200,
            "ema": 0.5,
            "name": "quick",
            "seed": 2**63 - 1,
            "augmentation": {"ramp": 2},
            "on": True,
            "no": None,
        }
    )
    told = as_json(message)
    assert json.dumps(told["recipe_fields"], sort_keys=True) == (
        '{"augmentation": {"ramp": 2}, "ema": 0.5, "name": "quick", "no": null, "on": true, '
        '"seed": 9.223372036854776e+18, "steps": 200}'
    )
    assert json.dumps(told["loss"]) == "2.0"  # a field that is floating-point is told as such
    assert told["step"] == "7"  # what may be too large for JSON is text


def test_structs_are_found_wherever_they_are() -> None:
    event = pb.TrainingRunEvent(number=3)
    event.time.FromSeconds(1)
    event.stage_finished.stage = "prove"
    event.stage_finished.detail.update({"bytes": 9473, "each": [1, 1.5, {"n": 2}]})
    told = as_json(event)
    assert json.dumps(told["stage_finished"]["detail"], sort_keys=True) == '{"bytes": 9473, "each": [1, 1.5, {"n": 2}]}'
    assert told["time"] == "1970-01-01T00:00:01Z"
    result = pb.TrainingRunResult(model_name="m", metrics={"test": pb.Metrics(accuracy=1.0)})
    result.parity.report.update({"batch_sizes": [1, 2]})
    told = as_json(result)
    assert json.dumps(told["parity"]["report"]) == '{"batch_sizes": [1, 2]}'
    assert json.dumps(told["metrics"]) == '{"test": {"accuracy": 1.0}}'


def test_an_error_is_told_with_its_details() -> None:
    report = {"passed": False, "summary": "1 of 12 checks failed", "batch_sizes": [1, 2]}
    event = pb.TrainingRunEvent(number=9)
    event.done.state = pb.FAILED
    event.done.error.CopyFrom(messages.status(Failure(13, "refuted", "PROOF_FAILED", {"run": "x"}, report)))
    info, parity = as_json(event)["done"]["error"]["details"]
    assert info == {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "PROOF_FAILED",
        "domain": "mnist1d-service",
        "metadata": {"run": "x"},
    }
    assert json.dumps(parity["report"]["batch_sizes"]) == "[1, 2]"
