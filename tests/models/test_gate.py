from __future__ import annotations

import pytest

from models.errors import GateNotMet, InvalidRecipe, ProofFailed
from models.gate import check_can_be_compared, decide
from models.training.recipes import recipe
from tests.conftest import publish_affine, put_plain

DATA = {"x_train": "1"}


def origin(held_out: int = 500) -> dict[str, object]:
    return {"recipe": {"validation": held_out}, "data_sha256": DATA}


def baseline(repository, accuracy: float | None = 0.9, held_out: int = 500, data=DATA):
    metrics = {} if accuracy is None else {"validation": {"accuracy": accuracy}}
    provenance = {"recipe": {"validation": held_out}, "data_sha256": data}
    return publish_affine(repository, "m", metrics=metrics, provenance=provenance)


def decided(directory, accuracy: float):
    # The test set is better by far, and counts for nothing.
    return decide(directory, {"validation": {"accuracy": accuracy}, "test": {"accuracy": 1.0}}, origin())


@pytest.mark.parametrize(("accuracy", "is_met"), [(0.91, True), (0.9, True), (0.899, False)])
def test_at_least_as_good_is_good_enough(repository, accuracy, is_met) -> None:
    decision = decided(baseline(repository), accuracy)
    assert (decision.is_met, decision.baseline, decision.baseline_accuracy) == (is_met, "m/1", 0.9)
    assert decision.candidate_accuracy == accuracy
    assert "90.00% of m/1" in decision.summary


def test_where_there_is_nothing_to_compare_with_it_is_met() -> None:
    decision = decided(None, 0.1)
    assert (decision.is_met, decision.baseline, decision.baseline_accuracy) == (True, "", None)


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ({"held_out": 0}, "it was trained without holding examples out"),
        ({"held_out": 400}, "it held out 400 examples, the new one 500"),
        ({"data": {"x_train": "2"}}, "it was trained on other data"),
        ({"accuracy": None}, "records no accuracy on the held-out examples"),
        ({"accuracy": 7.0}, "records no accuracy on the held-out examples"),
    ],
)
def test_what_was_not_measured_on_the_same_examples_lets_nothing_through(repository, about, why) -> None:
    decision = decided(baseline(repository, **about), 1.0)
    assert not decision.is_met
    assert why in decision.summary


@pytest.mark.parametrize("what", ["no manifest", "no directory", "damaged"])
def test_what_cannot_be_read_lets_nothing_through(repository, what) -> None:
    directory = repository / "m" / "1"
    if what == "no manifest":
        put_plain(repository, "m", b"model")
    elif what == "damaged":
        (baseline(repository) / "model.onnx").write_bytes(b"")
    decision = decided(directory, 1.0)
    assert (decision.is_met, decision.baseline) == (False, "m/1")


def test_a_gate_needs_held_out_examples() -> None:
    with pytest.raises(InvalidRecipe, match="'validation': got 0, must be above 0 with a gate"):
        check_can_be_compared(recipe("quick"))
    check_can_be_compared(recipe("quick", validation=500))


@pytest.mark.needs_torch
def test_the_pipeline_asks_the_gate_last_and_publishes_nothing_that_does_not_meet_it(repository) -> None:
    pytest.importorskip("torch")
    from models import pipeline
    from models.data.dataset import canonical

    hurried = recipe("plain", steps=30, validation=500, evaluate_every=0)
    with pytest.raises(InvalidRecipe, match="validation"):
        pipeline.run(recipe("plain", steps=30), repository=repository, gate=lambda: None)
    first = pipeline.run(hurried, repository=repository, gate=lambda: None, run_id="r1")
    provenance = first.manifest.provenance
    assert (provenance["run"], provenance["gate"]["is_met"]) == ("r1", True)
    assert b"r1" not in (first.path / "model.onnx").read_bytes()
    better = publish_affine(
        repository,
        "better",
        metrics={"validation": {"accuracy": 1.0}},
        provenance={"recipe": {"validation": 500}, "data_sha256": dict(canonical().sha256)},
    )
    events = []
    with pytest.raises(GateNotMet, match=r"less than the 100\.00% of better/1") as failure:
        pipeline.run(hurried, repository=repository, gate=lambda: better, on_event=events.append)
    assert failure.value.decision["baseline_accuracy"] == 1.0
    assert not isinstance(failure.value, ProofFailed)
    stages = [event.stage for event in events if type(event).__name__ == "StageFinished"]
    assert stages[-2:] == ["prove", "gate"]
    assert [path.name for path in (repository / "mnist1d-conv").iterdir()] == ["1"]
