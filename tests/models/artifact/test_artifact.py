"""What a version directory must hold to be what its manifest says it is."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import re
import shutil
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.artifact.artifact import MANIFEST_FILE, MODEL_FILE, WIDEST_TOLERANCE, Artifact, Manifest, read_manifest
from models.artifact.datatypes import DATATYPES
from models.artifact.goldens import Golden, Tolerance, write_golden
from models.artifact.onnx_session import open_model
from models.artifact.tensor_spec import TensorSpec
from models.errors import ArtifactError, GoldenMismatch
from tests.conftest import affine_model, goldens_for, publish_affine, put_plain

# Everything that JSON text can carry; lone surrogates are no text.
text = st.text(st.characters(exclude_categories=["Cs"]))
specs = st.builds(
    TensorSpec,
    name=text.filter(bool),
    datatype=st.sampled_from(list(DATATYPES)),
    shape=st.lists(st.integers(0, 2**63 - 1) | text, max_size=4).map(tuple),
)
tolerances = st.builds(Tolerance, st.floats(0, 1e-2), st.floats(0, 1e-2))
free_form = st.dictionaries(
    text,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)
manifests = st.builds(
    Manifest,
    name=text,
    version=st.integers(1),
    created=text,
    model_sha256=text,
    model_bytes=st.integers(0),
    inputs=st.lists(specs, max_size=3).map(tuple),
    outputs=st.lists(specs, max_size=3).map(tuple),
    tolerances=st.dictionaries(text, tolerances, max_size=3),
    tolerance_rationale=text,
    goldens=st.lists(st.integers(0, 99).map("test_data_set_{}".format), max_size=3).map(tuple),
    labels=st.dictionaries(text, st.lists(text, max_size=3).map(tuple), max_size=2),
    metrics=free_form,
    parity=free_form,
    provenance=free_form,
)

SPEC = TensorSpec("x", "FP32", ("batch", 3))
MANIFEST = Manifest(
    name="affine",
    version=7,
    created="2026-01-01T00:00:00Z",
    model_sha256="0" * 64,
    model_bytes=12,
    inputs=(SPEC,),
    outputs=(dataclasses.replace(SPEC, name="y"),),
    tolerances={"y": Tolerance(absolute=1e-6)},
    tolerance_rationale="measured",
    goldens=("test_data_set_0", "test_data_set_1"),
    labels={"y": ("a", "b", "c")},
    metrics={"test_accuracy": 0.95},
)


FIELDS = {
    "format_version": int,
    "name": str,
    "version": int,
    "created": str,
    "model": dict,
    "model.file": str,
    "model.sha256": str,
    "model.bytes": int,
    "inputs": list,
    "outputs": list,
    "labels": dict,
    "labels.y": list,
    "tolerances": dict,
    "tolerances.y": dict,
    "tolerances.y.absolute": float,
    "tolerances.y.relative": float,
    "tolerance_rationale": str,
    "goldens": list,
    "metrics": dict,
    "parity": dict,
    "provenance": dict,
}
WRONG_VALUES = {None: None, bool: True, str: "text", float: 1.5, int: 3, list: [1], dict: {"a": 1}}


def changed(path: str, value: object) -> dict:
    """The JSON form of MANIFEST with one field set to another value; ``...`` removes it."""
    data = copy.deepcopy(MANIFEST.to_dict())
    *parents, last = path.split(".")
    inner = data
    for key in parents:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return data


def edit_manifest(directory, path: str, value: object) -> None:
    file = directory / MANIFEST_FILE
    data = json.loads(file.read_text(encoding="utf-8"))
    data[path] = value
    file.write_text(json.dumps(data), encoding="utf-8")


def answers(model_bytes: bytes):
    model = open_model(model_bytes)
    return lambda feeds: dict(zip(["y"], model.run(["y"], feeds), strict=True))


class TestManifestAsJson:
    @settings(deadline=None, max_examples=50)
    @given(manifests)
    def test_json_keeps_everything(self, manifest):
        assert Manifest.from_dict(json.loads(manifest.to_json())) == manifest

    def test_the_text_is_for_people_too(self):
        lines = dataclasses.replace(MANIFEST, name="Grüße").to_json().splitlines(keepends=True)
        assert lines[:3] == ["{\n", '  "format_version": 1,\n', '  "name": "Grüße",\n']
        assert lines[-1] == "}\n"

    def test_what_json_does_not_have_is_not_written(self):
        with pytest.raises(ValueError, match="JSON"):
            dataclasses.replace(MANIFEST, metrics={"loss": float("nan")}).to_json()

    def test_unknown_keys_are_left_for_later_formats(self):
        data = changed("signature", "later")
        data["model"]["licence"] = "Apache-2.0"
        data["inputs"][0]["unit"] = "V"
        data["tolerances"]["y"]["ulp"] = 4
        assert Manifest.from_dict(data) == MANIFEST

    def test_whole_numbers_are_tolerances(self):
        data = changed("tolerances", {"y": {"absolute": 0, "relative": 0}})
        tolerance = Manifest.from_dict(data).tolerances["y"]
        assert tolerance == Tolerance(0.0, 0.0)
        assert isinstance(tolerance.absolute, float)

    @pytest.mark.parametrize("field", ["absolute", "relative"])
    def test_a_tolerance_within_which_nothing_is_proven_is_refused(self, field):
        widest = getattr(WIDEST_TOLERANCE, field)
        assert Manifest.from_dict(changed(f"tolerances.y.{field}", widest)).tolerances
        for value in (math.nextafter(widest, 1), 1, 1e9):
            with pytest.raises(
                ArtifactError, match=rf"^manifest, tolerances\.y\.{field}: got .*, expected at most 0.01"
            ):
                Manifest.from_dict(changed(f"tolerances.y.{field}", value))
            with pytest.raises(ArtifactError, match="expected at most"):
                dataclasses.replace(MANIFEST, tolerances={"y": Tolerance(**{field: value})})

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (path, value)
            for path, right in FIELDS.items()
            for kind, value in WRONG_VALUES.items()
            if kind is not right and not (right is float and kind is int)
        ],
        ids=str,
    )
    def test_a_field_of_another_type_is_named(self, path, value):
        with pytest.raises(ArtifactError, match=f"^manifest, {re.escape(path)}: "):
            Manifest.from_dict(changed(path, value))

    @pytest.mark.parametrize("path", [path for path in FIELDS if path not in {"labels.y", "tolerances.y"}])
    def test_a_field_that_is_missing_is_named(self, path):
        with pytest.raises(ArtifactError, match=f"^manifest, {re.escape(path)}: got nothing, expected "):
            Manifest.from_dict(changed(path, ...))

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ("format_version", 2, "manifest, format_version: got 2, this program reads 1"),
            ("format_version", True, "manifest, format_version: got True, expected int"),
            ("version", ..., "manifest, version: got nothing, expected int"),
            ("version", True, "manifest, version: got True, expected int"),
            ("model.bytes", False, "manifest, model.bytes: got False, expected int"),
            ("model.file", "../model.onnx", "manifest, model.file: got '../model.onnx', expected 'model.onnx'"),
            ("inputs", ["x"], "manifest, inputs: tensor: got 'x', expected an object"),
            ("inputs", [None], "manifest, inputs: tensor: got None, expected an object"),
            ("outputs", [{"name": "y"}], "manifest, outputs: tensor 'y', datatype: got None"),
            ("tolerances", {"y": 1e-6}, "manifest, tolerances.y: got 1e-06, expected dict"),
            ("tolerances.y.absolute", True, "manifest, tolerances.y.absolute: got True, expected float"),
            ("tolerances.y.absolute", -1.0, "manifest, tolerances.y: tolerance, absolute: got -1.0, expected a finite"),
            ("tolerances.y.relative", 10**400, "manifest, tolerances.y: tolerance, relative: got inf"),
            ("goldens", [0], "manifest, goldens: got 0, expected test_data_set_N"),
            ("goldens", [{}], "manifest, goldens: got {}, expected test_data_set_N"),
            ("goldens", ["../x"], "manifest, goldens: got '../x', expected test_data_set_N"),
            ("goldens", ["/etc"], "manifest, goldens: got '/etc', expected test_data_set_N"),
            ("goldens", ["test_data_set_0/../x"], "manifest, goldens: got 'test_data_set_0/../x', expected"),
            ("goldens", [""], "manifest, goldens: got '', expected test_data_set_N"),
            ("labels", {"y": "abc"}, "manifest, labels.y: got 'abc', expected list"),
            ("labels", {"y": [0, 1]}, "manifest, labels.y: got 0, expected a string"),
        ],
    )
    def test_the_message_says_what_and_what_instead(self, path, value, message):
        with pytest.raises(ArtifactError) as raised:
            Manifest.from_dict(changed(path, value))
        assert str(raised.value).startswith(message)

    def test_another_format_is_refused_before_anything_else_is_asked_of_it(self):
        with pytest.raises(ArtifactError, match="format_version: got 2, this program reads 1"):
            Manifest.from_dict({"format_version": 2})


class TestManifestFile:
    @pytest.mark.parametrize(
        ("content", "named"),
        [
            (b"", "manifest.json is not JSON"),
            (b"{", "manifest.json is not JSON"),
            (b'{"name": "\xff\xfe"}', "manifest.json is not JSON"),
            (b"\x80", "manifest.json is not JSON"),
            (b"[" * 100_000, "manifest.json is not JSON"),
            (b'{"version": ' + b"1" * 5000 + b"}", "manifest.json is not JSON"),
            (b'{"metrics": {"loss": NaN}}', "manifest.json is not JSON: it contains NaN"),
            (b'{"metrics": {"loss": -Infinity}}', "manifest.json is not JSON: it contains -Infinity"),
            (b"[]", "manifest.json: expected an object, got list"),
            (b"null", "manifest.json: expected an object, got NoneType"),
            (b"{}", "manifest, format_version: got nothing"),
        ],
        ids=range(11),
    )
    def test_what_is_no_manifest_says_so(self, tmp_path, content, named):
        (tmp_path / MANIFEST_FILE).write_bytes(content)
        with pytest.raises(ArtifactError, match=named):
            read_manifest(tmp_path)

    def test_no_manifest(self, tmp_path):
        with pytest.raises(ArtifactError, match=r"manifest.json cannot be read: No such file"):
            read_manifest(tmp_path)

    def test_the_file_is_the_manifest(self, tmp_path):
        (tmp_path / MANIFEST_FILE).write_text(MANIFEST.to_json(), encoding="utf-8")
        assert read_manifest(tmp_path) == MANIFEST


class TestLoad:
    @pytest.fixture
    def directory(self, repository):
        """A published version with three goldens."""
        return publish_affine(repository)

    def test_a_published_version_is_provable_and_proves_itself(self, directory):
        artifact = Artifact.load(directory)
        assert artifact.is_provable
        assert artifact.directory == directory
        assert artifact.manifest == read_manifest(directory)
        assert hashlib.sha256(artifact.model_bytes).hexdigest() == artifact.manifest.model_sha256
        assert [golden.batch for golden in artifact.goldens] == [1, 2, 8]
        report = artifact.replay(answers(artifact.model_bytes))
        assert report.passed
        assert len(report.differences) == 3

    def test_tolerances_are_the_manifests(self, repository):
        model_bytes = affine_model()
        directory = publish_affine(repository, goldens=goldens_for(model_bytes, shift=5e-7))
        assert Artifact.load(directory).replay(answers(model_bytes)).passed
        edit_manifest(directory, "tolerances", {"y": {"absolute": 1e-8, "relative": 0}})
        assert not Artifact.load(directory).replay(answers(model_bytes)).passed

    def test_false_goldens_load_and_do_not_replay(self, repository):
        directory = publish_affine(repository, goldens=goldens_for(affine_model(), shift=0.5))
        report = Artifact.load(directory).replay(answers(affine_model()))
        with pytest.raises(GoldenMismatch, match=r"test_data_set_0 \(batch 1\), output 'y': difference 0.5 "):
            report.raise_if_failed()

    def test_a_plain_model_is_served_without_a_proof(self, repository):
        directory = put_plain(repository, "plain", affine_model())
        write_golden(directory, goldens_for(affine_model())[0])
        artifact = Artifact.load(directory)
        assert artifact.model_bytes == affine_model()
        assert (artifact.manifest, artifact.goldens, artifact.is_provable) == (None, (), False)
        artifact.check_interface((), ())  # nothing is promised

    def test_a_manifest_without_goldens_proves_nothing(self, repository):
        artifact = Artifact.load(publish_affine(repository, goldens=[]))
        assert artifact.manifest is not None
        assert not artifact.is_provable
        assert not artifact.replay(answers(artifact.model_bytes)).passed

    def test_no_model(self, tmp_path):
        with pytest.raises(ArtifactError, match=r"model.onnx cannot be read: No such file"):
            Artifact.load(tmp_path)

    def test_no_directory(self, tmp_path):
        with pytest.raises(ArtifactError, match=r"model.onnx cannot be read"):
            Artifact.load(tmp_path / "nowhere")

    def test_another_model_than_the_proven_one(self, directory):
        (directory / MODEL_FILE).write_bytes(affine_model(scale=3.0))
        with pytest.raises(ArtifactError, match=r"model.onnx is not what was proven: sha256 is [0-9a-f]{64}, the man"):
            Artifact.load(directory)

    def test_a_damaged_manifest_does_not_make_a_plain_model(self, directory):
        (directory / MANIFEST_FILE).write_text("{", encoding="utf-8")
        with pytest.raises(ArtifactError, match=r"manifest.json is not JSON"):
            Artifact.load(directory)

    def test_a_lost_manifest_does_not_make_a_plain_model(self, directory):
        (directory / MANIFEST_FILE).unlink()
        (directory / MANIFEST_FILE).symlink_to("elsewhere.json")
        with pytest.raises(ArtifactError, match=r"manifest.json cannot be read: No such file"):
            Artifact.load(directory)

    def test_missing_goldens_are_named(self, directory):
        for name in ("test_data_set_0", "test_data_set_2"):
            shutil.rmtree(directory / name)
        with pytest.raises(ArtifactError, match=r"are missing: test_data_set_0, test_data_set_2$"):
            Artifact.load(directory)

    def test_a_damaged_golden_is_named(self, directory):
        (directory / "test_data_set_1" / "output_0.pb").write_bytes(b"\xff")
        with pytest.raises(ArtifactError, match=r"test_data_set_1/output_0.pb is not a tensor"):
            Artifact.load(directory)

    def test_a_golden_beside_the_promised_ones_is_replayed_too(self, directory):
        (false,) = goldens_for(affine_model(), batches=[4], shift=0.5)
        write_golden(directory, dataclasses.replace(false, name="test_data_set_7"))
        report = Artifact.load(directory).replay(answers(affine_model()))
        assert [item.golden for item in report.differences if not item.passed] == ["test_data_set_7"]

    @pytest.mark.parametrize(
        ("inputs", "outputs", "named"),
        [
            ([], ["y"], "test_data_set_9 records the inputs none, the manifest promises x"),
            (["x", "z"], ["y"], "test_data_set_9 records the inputs x, z, the manifest promises x"),
            (["x"], ["z"], "test_data_set_9 records the outputs z, the manifest promises y"),
            (["x"], ["y", "z"], "test_data_set_9 records the outputs y, z, the manifest promises y"),
        ],
    )
    def test_a_golden_that_lost_or_gained_a_tensor_is_no_proof(self, directory, inputs, outputs, named):
        one = np.ones((1, 3), np.float32)
        write_golden(directory, Golden("test_data_set_9", dict.fromkeys(inputs, one), dict.fromkeys(outputs, one)))
        with pytest.raises(ArtifactError, match=f"^{named}$"):
            Artifact.load(directory)


class TestInterface:
    @pytest.mark.parametrize(
        "change",
        [
            {"name": "z"},
            {"datatype": "FP64"},
            {"shape": ("batch", 4)},
            {"shape": ("n", 3)},
            {"shape": ("", 3)},
            {"shape": (1, 3)},
            {"shape": ("batch", 3, 1)},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("role", ["inputs", "outputs"])
    def test_any_difference_is_named(self, repository, role, change):
        artifact = Artifact.load(publish_affine(repository))
        promised = {"inputs": artifact.manifest.inputs, "outputs": artifact.manifest.outputs}
        (spec,) = promised[role]
        got = dataclasses.replace(spec, **change)
        with pytest.raises(ArtifactError) as raised:
            artifact.check_interface(**{**promised, role: (got,)})
        assert str(raised.value) == f"{role}: the manifest promises {spec}, the model has {got}"

    @pytest.mark.parametrize("got", [(), (SPEC, SPEC)], ids=["fewer", "more"])
    def test_the_number_counts(self, repository, got):
        artifact = Artifact.load(publish_affine(repository))
        with pytest.raises(ArtifactError, match=r"inputs: the manifest promises x FP32\[batch, 3\], the model has"):
            artifact.check_interface(got, artifact.manifest.outputs)

    def test_the_model_has_what_its_manifest_promises(self, repository):
        artifact = Artifact.load(publish_affine(repository))
        model = open_model(artifact.model_bytes)
        assert artifact.check_interface(model.inputs, model.outputs) is None


def test_a_manifest_of_a_model_has_its_digest_its_size_and_the_names_of_its_goldens() -> None:
    goldens = [Golden(f"test_data_set_{n}", {"x": np.ones(1)}, {"y": np.ones(1)}) for n in (3, 1)]
    made = Manifest.of(
        b"abc", name="m", version=2, inputs=(SPEC,), outputs=(), goldens=goldens, tolerances={}, tolerance_rationale="r"
    )
    assert made.model_sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert (made.model_bytes, made.goldens) == (3, ("test_data_set_3", "test_data_set_1"))
    assert datetime.fromisoformat(made.created).tzinfo is UTC
