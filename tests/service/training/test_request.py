"""What a run may be asked to be, and how it is told which of its fields cannot be: through a server."""

from __future__ import annotations

import grpc
from google.longrunning import operations_pb2 as ops

from service.pb import training_pb2 as pb
from tests.fake_training import failed, metadata_of, violation_list, violations

# field at fault -> (request, what is said of it)
WRONG = {
    "network": (pb.CreateTrainingRunRequest(network="resnet"), "must be one of conv, fc, conv25, fc-slide"),
    "recipe": (pb.CreateTrainingRunRequest(recipe="worst"), "must be one of lecture, best, quick, plain"),
    "seed": (pb.CreateTrainingRunRequest(seed=-1), "must be between 0 and"),
    "publish_name": (pb.CreateTrainingRunRequest(publish_name="../x"), "1 to 128 letters"),
    "engine": (pb.CreateTrainingRunRequest(engine="abacus"), "must be one of auto, fused, torch"),
    "request_id": (pb.CreateTrainingRunRequest(request_id="x" * 129), "at most 128"),
    "gate": (pb.CreateTrainingRunRequest(gate=pb.Gate()), "names no baseline"),
    "gate.model": (
        pb.CreateTrainingRunRequest(gate=pb.Gate(model="absent"), overrides=pb.RecipeOverrides(validation=500)),
        "there is no absent",
    ),
    "overrides.validation": (pb.CreateTrainingRunRequest(gate=pb.Gate(serving=True)), "above 0 with a gate"),
    "overrides.steps": (pb.CreateTrainingRunRequest(overrides=pb.RecipeOverrides(steps=0)), "between 1 and"),
    "overrides.batch_size": (
        pb.CreateTrainingRunRequest(overrides=pb.RecipeOverrides(batch_size=4001)),
        "at most 4,000, the examples to train on",
    ),
    "overrides.learning_rate": (
        pb.CreateTrainingRunRequest(overrides=pb.RecipeOverrides(learning_rate=float("nan"))),
        "must be above 0",
    ),
    "overrides.optimiser": (pb.CreateTrainingRunRequest(overrides=pb.RecipeOverrides(optimiser="x")), "sgd or adamw"),
    "overrides.warmup_steps": (
        pb.CreateTrainingRunRequest(recipe="quick", overrides=pb.RecipeOverrides(steps=200, warmup_steps=200)),
        "got 200, must be at least 0 and below 200, the steps",
    ),
    "overrides.early_stopping_patience": (
        pb.CreateTrainingRunRequest(overrides=pb.RecipeOverrides(early_stopping_patience=3)),
        "unless validation is above 0",
    ),
    "overrides.augmentation.noise": (
        pb.CreateTrainingRunRequest(
            overrides=pb.RecipeOverrides(augmentation=pb.AugmentationOverrides(noise=-1)),
        ),
        "between 0 and 10",
    ),
}


async def test_what_cannot_be_trained_is_refused_with_the_field_at_fault(training) -> None:
    async with training() as calls:
        for field, (request, says) in WRONG.items():
            error = await failed(calls.training.CreateTrainingRun(request))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, field
            assert says in violations(error)[field], field
        assert (await calls.operations.ListOperations(ops.ListOperationsRequest())).operations == []


async def test_few_steps_bring_the_recipes_own_warm_up_down(training) -> None:
    request = pb.CreateTrainingRunRequest(recipe="quick", publish_name="ok", overrides=pb.RecipeOverrides(steps=200))
    async with training() as calls:
        operation = await calls.training.CreateTrainingRun(request)
    metadata = pb.TrainingRunMetadata()
    operation.metadata.Unpack(metadata)
    assert metadata.recipe_fields["warmup_steps"] == 25


async def test_a_field_at_fault_is_named_once(training) -> None:
    async with training() as calls:
        for batch_size in (70, 100):  # the recipe's own is 100, which does not fit either
            overrides = pb.RecipeOverrides(validation=3950, batch_size=batch_size)
            error = await failed(calls.training.CreateTrainingRun(pb.CreateTrainingRunRequest(overrides=overrides)))
            assert violation_list(error) == [
                ("overrides.batch_size", f"got {batch_size}, must be at most 50, the examples to train on")
            ]


async def test_a_gate_does_not_miss_held_out_examples_that_were_asked_for(training) -> None:
    request = pb.CreateTrainingRunRequest(gate=pb.Gate(serving=True), overrides=pb.RecipeOverrides(validation=4001))
    async with training() as calls:
        error = await failed(calls.training.CreateTrainingRun(request))
    assert violation_list(error) == [("overrides.validation", "got 4001, must be below 4,000, all examples")]


async def test_what_turns_an_augmentation_on_is_named_as_a_request_calls_it(training) -> None:
    augmentation = pb.AugmentationOverrides(noise=0.5, ramp=-1)
    request = pb.CreateTrainingRunRequest(recipe="plain", overrides=pb.RecipeOverrides(augmentation=augmentation))
    bound = "cannot be set while augmentation is none; turn it on as well, with overrides.augmentation.enabled"
    told = {"overrides.augmentation.noise": f"got 0.5, {bound}", "overrides.augmentation.ramp": f"got -1.0, {bound}"}
    async with training() as calls:
        assert violations(await failed(calls.training.CreateTrainingRun(request))) == told
        request.overrides.augmentation.enabled = False
        assert violations(await failed(calls.training.CreateTrainingRun(request))) == told
        request.overrides.augmentation.enabled = True
        error = await failed(calls.training.CreateTrainingRun(request))
        assert set(violations(error)) == {"overrides.augmentation.ramp"}
        request.overrides.augmentation.ramp = 1
        assert (
            metadata_of(await calls.training.CreateTrainingRun(request)).recipe_fields["augmentation"]["noise"] == 0.5
        )


async def test_every_field_at_fault_is_named_in_one_answer(training) -> None:
    request = pb.CreateTrainingRunRequest(
        network="resnet", overrides=pb.RecipeOverrides(steps=0, momentum=2), publish_name="-"
    )
    async with training() as calls:
        error = await failed(calls.training.CreateTrainingRun(request))
    assert set(violations(error)) == {"network", "overrides.steps", "overrides.momentum", "publish_name"}
