"""The contract has a place for whatever the project has: every field of a recipe, every event, every state."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import get_args

import pytest
from google.longrunning import operations_proto_pb2
from google.protobuf import descriptor_pb2
from google.rpc import status_pb2

from models.data.augmentation import Augmentation
from models.training import events
from models.training.recipes import TrainingRecipe
from service.pb import POOL
from service.pb import training_pb2 as pb
from service.training import messages
from service.training.run import RunState, StoredEvent
from service.training.snapshot import folded

CHOSEN_APART = {"name", "network", "seed"}
"""Fields of a recipe that the request has by themselves."""


def test_every_field_of_a_recipe_can_be_overridden_by_its_name() -> None:
    recipe = {field.name for field in dataclasses.fields(TrainingRecipe)}
    assert set(pb.RecipeOverrides.DESCRIPTOR.fields_by_name) == recipe - CHOSEN_APART
    parts = {field.name for field in dataclasses.fields(Augmentation)}
    assert set(pb.AugmentationOverrides.DESCRIPTOR.fields_by_name) == parts | {"enabled"}


def test_every_state_has_its_name() -> None:
    assert {value.name for value in pb.RunState.DESCRIPTOR.values} == {*RunState, "RUN_STATE_UNSPECIFIED"}


def test_every_event_of_a_run_has_its_message() -> None:
    named = {re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower() for kind in get_args(events.Event)}
    assert named <= messages.KINDS
    fields = set(pb.TrainingRunEvent.DESCRIPTOR.oneofs_by_name["event"].fields)
    assert {field.name for field in fields} == {field for field, _ in messages._EVENTS.values()}


def test_numbers_that_json_lacks_come_back() -> None:
    body = {"event": "progress", "step": 1, "total_steps": 2, "loss": None, "accuracy": 0.5, "steps_per_s": 1.0,
            "remaining_s": 1.0}  # fmt: skip
    assert math.isnan(messages.event(StoredEvent(1, 0.0, body)).progress.loss)
    assert folded({}, body)["loss"] is None


def test_a_snapshot_has_the_latest_of_everything() -> None:
    snapshot: dict[str, object] = {}
    for body in (
        {"event": "stage_started", "stage": "train"},
        {"event": "stage_started", "stage": "prepare"},  # a part of it
        {"event": "started", "start_step": 5, "total_steps": 20},
        {"event": "evaluated", "step": 10, "split": "test", "loss": 1.0, "accuracy": 0.5},
        {"event": "evaluated", "step": 20, "split": "test", "loss": 0.5, "accuracy": 0.6},
        {"event": "finished", "step": 20, "duration_s": 1.0, "weights_sha256": ""},
    ):
        snapshot = folded(snapshot, body)
    assert snapshot == {
        "stage": "train",
        "step": 20,
        "total_steps": 20,
        "remaining_s": 0.0,
        "evaluations": {"test": {"step": 20, "split": "test", "loss": 0.5, "accuracy": 0.6}},
    }


@pytest.mark.parametrize(
    ("file", "packaged"),
    [
        ("google/longrunning/operations.proto", operations_proto_pb2.DESCRIPTOR),
        ("google/rpc/status.proto", status_pb2.DESCRIPTOR),
    ],
)
def test_the_standard_contracts_are_the_standard_ones(file, packaged) -> None:
    ours = POOL.FindFileByName(file)
    assert ours.package == packaged.package
    for name, message in ours.message_types_by_name.items():
        assert _fields(message) == _fields(packaged.message_types_by_name[name])
    for name, service in ours.services_by_name.items():
        theirs = packaged.services_by_name[name].methods_by_name
        assert {
            method.name: (method.input_type.full_name, method.output_type.full_name) for method in service.methods
        } == {method.name: (method.input_type.full_name, method.output_type.full_name) for method in theirs.values()}


def _fields(message) -> set[tuple[object, ...]]:
    described = descriptor_pb2.DescriptorProto()
    message.CopyToProto(described)
    # Fields that googleapis added after the oldest version that is allowed may be missing there.
    newer = ("return_partial_success", "unreachable")
    fields = [field for field in described.field if field.name not in newer]
    return {(field.number, field.name, field.type, field.label, field.type_name) for field in fields}


def test_the_operation_info_names_messages_that_there_are() -> None:
    method = POOL.FindFileByName("training.proto").services_by_name["Training"].methods_by_name["CreateTrainingRun"]
    (extension,) = [value for field, value in method.GetOptions().ListFields() if field.number == 1049]
    for name in (extension.response_type, extension.metadata_type):
        POOL.FindMessageTypeByName(f"mnist1d.training.v1.{name}")
