from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from service.repository.model_settings import ModelFileError, ModelSettings, from_triton_config, read_model_file
from service.repository.version_policy import VersionPolicy

TWO = VersionPolicy(latest=2)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("{}", ModelSettings()),
        ('{"version_policy": "latest:2"}', ModelSettings(TWO)),
        ('{"version_policy": {"latest": {"num_versions": 2}}}', ModelSettings(TWO)),
        ('{"version_policy": {"all": {}}, "max_batch_size": 8}', ModelSettings(VersionPolicy(None), 8)),
        ('{"version_policy": {"specific": {"versions": [1, 3]}}}', ModelSettings(VersionPolicy(None, (1, 3)))),
        ('{"version_policy": null, "max_batch_size": 1}', ModelSettings(None, 1)),
        ('{"rows_are_independent": true}', ModelSettings(rows_are_independent=True)),
        ('{"rows_are_independent": false}', ModelSettings(rows_are_independent=False)),
    ],
)
def test_a_model_may_say_how_it_is_served(tmp_path, text, settings) -> None:
    (tmp_path / "model.json").write_text(text)
    assert read_model_file(tmp_path) == settings


def test_without_a_file_there_are_no_settings(tmp_path) -> None:
    assert read_model_file(tmp_path) == ModelSettings()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "model.json is not JSON"),
        ("\xff\xfe", "model.json is not JSON"),
        ("[" * 50_000, "model.json is not JSON"),
        ("[]", "model.json: expected an object, got list"),
        ('{"max_batch": 4}', "max_batch: unknown; known are version_policy, max_batch_size, rows_are_independent"),
        ('{"rows_are_independent": 1}', "model.json, rows_are_independent: got 1, expected true or false"),
        ('{"rows_are_independent": "yes"}', "model.json, rows_are_independent: got 'yes', expected true or false"),
        ('{"max_batch_size": 0}', "model.json, max_batch_size: got 0, expected a whole number from 1 to"),
        ('{"max_batch_size": true}', "model.json, max_batch_size: got True"),
        ('{"max_batch_size": 2.0}', "model.json, max_batch_size: got 2.0"),
        ('{"max_batch_size": 2147483648}', "model.json, max_batch_size: got 2147483648"),
        ('{"version_policy": "newest"}', "model.json, version_policy: version policy: got 'newest'"),
        ('{"version_policy": {"latest": {"num_versions": 0}}}', "version policy, latest: expected a whole number"),
        ('{"version_policy": {"specific": {"versions": []}}}', "version policy, specific: expected a list"),
        ('{"version_policy": {"latest": {}, "all": {}}}', "an object with one of the three"),
        (" " * 70_000, "model.json has more than 65536 bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_field(tmp_path, text, says) -> None:
    (tmp_path / "model.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelFileError) as refused:
        read_model_file(tmp_path)
    assert says in str(refused.value)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, make) -> None:
    make(tmp_path / "model.json")
    with pytest.raises(ModelFileError, match=r"model.json is no regular file"):
        read_model_file(tmp_path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path, monkeypatch) -> None:
    (tmp_path / "model.json").write_text("{}")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModelFileError, match=r"model.json cannot be read: Permission denied"):
        read_model_file(tmp_path)


@pytest.mark.parametrize(
    ("config", "settings", "ignored"),
    [
        ({}, ModelSettings(), ()),
        ({"name": "m", "backend": "onnxruntime", "max_batch_size": 8}, ModelSettings(None, 8), ("backend", "name")),
        ({"maxBatchSize": 8, "versionPolicy": {"latest": {"numVersions": "2"}}}, ModelSettings(TWO, 8), ()),
        ({"max_batch_size": 0}, ModelSettings(), ()),
        ({"version_policy": {"specific": {"versions": ["4"]}}}, ModelSettings(VersionPolicy(None, (4,))), ()),
        (
            {"parameters": {"rows_are_independent": {"string_value": "true"}}},
            ModelSettings(rows_are_independent=True),
            (),
        ),
        (
            {"parameters": {"rows_are_independent": {"stringValue": "false"}}},
            ModelSettings(rows_are_independent=False),
            (),
        ),
        ({"parameters": {"other": {"string_value": "true"}}}, ModelSettings(), ("parameters",)),
        # Not Triton's field, and so ignored like every other that it does not have.
        ({"rows_are_independent": True}, ModelSettings(), ("rows_are_independent",)),
    ],
)
def test_tritons_config_gives_what_it_has_and_names_what_is_ignored(config, settings, ignored) -> None:
    assert from_triton_config(json.dumps(config)) == (settings, ignored)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name: 'pbtxt'",
        "[1]",
        '{"max_batch_size": "x"}',
        '{"version_policy": 3}',
        '{"parameters": {"rows_are_independent": {"string_value": "yes"}}}',
        '{"parameters": {"rows_are_independent": 1}}',
    ],
)
def test_a_config_that_cannot_be_used_is_refused(text) -> None:
    with pytest.raises(ModelFileError, match="config"):
        from_triton_config(text)
