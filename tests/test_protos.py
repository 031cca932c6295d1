"""The committed stubs are those of protos/, and the protos are the wire contract that clients were built against."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor

from service.pb import POOL, health_pb2, open_inference_pb2  # noqa: F401 - fills the pool

ROOT = Path(__file__).parent.parent
PB = ROOT / "service" / "pb"
NAMES = sorted(path.stem for path in (ROOT / "protos").glob("*.proto"))


def test_there_is_a_stub_for_each_proto_and_no_other() -> None:
    assert sorted(path.stem for path in PB.glob("*.binpb")) == NAMES
    assert sorted(path.name.removesuffix("_pb2.py") for path in PB.glob("*_pb2.py")) == NAMES


def test_the_committed_stubs_are_current(tmp_path) -> None:
    bin_directory = Path(sys.executable).parent
    if not (bin_directory / "protoc-gen-mypy").exists():
        pytest.skip("mypy-protobuf is not installed beside this Python")
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "service" / "pb").mkdir(parents=True)
    # The stamps say "installed": the recipe must only generate.
    make = ["make", "-s", f"BIN={bin_directory}", f"VENV={tmp_path}/venv", "protos"]
    (tmp_path / "venv").mkdir()
    for stamp in (".installed", ".installed-dev"):
        (tmp_path / "venv" / stamp).touch()
    for source in ("pyproject.toml", "constraints.txt"):
        shutil.copy2(ROOT / source, tmp_path)
    for stamp in (".installed", ".installed-dev"):
        (tmp_path / "venv" / stamp).touch()
    done = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    generated = (("service/pb", PB), ("tests/stubs", ROOT / "tests" / "stubs"))
    fresh = {path.name: path.read_bytes() for folder, _ in generated for path in (tmp_path / folder).iterdir()}
    committed = {
        path.name: path.read_bytes()
        for _, folder in generated
        for path in folder.iterdir()
        if path.is_file() and path.name != "__init__.py"
    }
    assert sorted(fresh) == sorted(committed)
    assert [name for name in fresh if fresh[name] != committed[name]] == [], "run `make protos` and commit the result"


def test_every_field_has_the_number_and_type_that_triton_gave_it() -> None:
    """Against tritonclient's own generated code; its process-wide pool and ours do not meet."""
    triton = pytest.importorskip("tritonclient.grpc").service_pb2.DESCRIPTOR
    messages = {
        **triton.message_types_by_name,
        **next(file for file in triton.dependencies if "config" in file.name).message_types_by_name,
    }
    ours = POOL.FindFileByName("open_inference.proto")
    compared = 0
    for name, message in ours.message_types_by_name.items():
        compared += _compare(message, messages[name])
    assert compared > 180
    (service,) = ours.services_by_name.values()
    theirs = triton.services_by_name["GRPCInferenceService"].methods_by_name
    for method in service.methods:
        assert method.input_type.full_name == theirs[method.name].input_type.full_name
        assert method.output_type.full_name == theirs[method.name].output_type.full_name


# Not Triton's: the Open Inference Protocol's own addition.
OURS_ALONE = {
    "inference.ModelMetadataResponse.properties",
    # KServe's copy of the repository calls.
    "inference.RepositoryModelLoadResponse.model_name",
    "inference.RepositoryModelLoadResponse.isLoaded",
    "inference.RepositoryModelUnloadResponse.model_name",
    "inference.RepositoryModelUnloadResponse.isUnloaded",
}


def _compare(ours, triton) -> int:
    compared = 0
    for field in ours.fields:
        if field.full_name in OURS_ALONE:
            continue
        other = triton.fields_by_name[field.name]
        assert (field.number, field.type, field.is_repeated) == (other.number, other.type, other.is_repeated), (
            field.full_name
        )
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            assert field.message_type.full_name == other.message_type.full_name
        compared += 1
    for nested in ours.nested_types:
        if f"{nested.full_name}".endswith("PropertiesEntry"):
            continue
        compared += _compare(nested, triton.nested_types_by_name[nested.name])
    return compared


def test_the_health_contract_is_the_standard_one() -> None:
    packaged = pytest.importorskip("grpc_health.v1.health_pb2").DESCRIPTOR
    ours = POOL.FindFileByName("health.proto")
    for name, message in packaged.message_types_by_name.items():
        theirs, mine = descriptor_pb2.DescriptorProto(), descriptor_pb2.DescriptorProto()
        message.CopyToProto(theirs)
        ours.message_types_by_name[name].CopyToProto(mine)
        for field in mine.field:
            field.ClearField("json_name")  # protoc fills it in; the packaged code leaves it to the default
        for field in theirs.field:
            field.ClearField("json_name")
        assert mine == theirs
