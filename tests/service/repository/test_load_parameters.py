from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from service.errors import InvalidRequest
from service.pb.open_inference_pb2 import ModelRepositoryParameter, RepositoryModelLoadRequest
from service.repository.load_parameters import LoadParameters
from service.repository.model_settings import ModelSettings

CONFIG = ModelRepositoryParameter(string_param="{}")
DATA = ModelRepositoryParameter(bytes_param=b"data")


def parse(**parameters: ModelRepositoryParameter) -> LoadParameters:
    request = RepositoryModelLoadRequest(model_name="m", parameters=parameters)
    return LoadParameters.parse("m", request.parameters)


def test_without_parameters_nothing_is_replaced() -> None:
    parsed = parse()
    assert parsed == LoadParameters(None, {})
    with parsed.directory() as directory:
        assert directory is None


def test_files_lie_in_a_directory_of_their_own_until_they_are_read() -> None:
    parsed = parse(
        **{"config": CONFIG, "file:1/model.onnx": DATA, "file:1/test_data_set_0/input_0.pb": DATA, "file:l.txt": DATA}
    )
    assert parsed.settings == ModelSettings()
    assert set(parsed.files) == {PurePosixPath("1/model.onnx"), PurePosixPath("1/test_data_set_0/input_0.pb")}
    with parsed.directory() as directory:
        assert (directory / "1" / "model.onnx").read_bytes() == b"data"
        assert (directory / "1" / "test_data_set_0" / "input_0.pb").read_bytes() == b"data"
        assert [path.name for path in directory.iterdir()] == ["1"]
    assert not directory.exists()


def test_what_is_ignored_of_a_config_is_logged(caplog) -> None:
    caplog.set_level("INFO")
    config = '{"max_batch_size": 4, "backend": "onnxruntime", "instance_group": []}'
    assert parse(config=ModelRepositoryParameter(string_param=config)).settings == ModelSettings(None, 4)
    assert [record.ignored for record in caplog.records] == ["backend, instance_group"]


@pytest.mark.parametrize(
    "path",
    [
        "../1/model.onnx",
        "1/../../model.onnx",
        "/1/model.onnx",
        "1//model.onnx",
        "1/model.onnx/",
        "1/./model.onnx",
        "1/.hidden",
        "1/mo\\del.onnx",
        "1/mo\0del.onnx",
        "1/mödel.onnx",
        "1/a/b/c/d",
        "0/model.onnx",
        "01/model.onnx",
        "-1/model.onnx",
        "x/model.onnx",
        f"1/{'a' * 200}",
        "",
        "..",
    ],
)
def test_no_path_leads_anywhere_else(path) -> None:
    with pytest.raises(InvalidRequest, match="load parameter 'file:"):
        parse(**{"config": CONFIG, f"file:{path}": DATA})


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"file:1/model.onnx": DATA}, "'config' must be there"),
        ({"config": DATA}, "Unrecognized load parameter 'config' with type bytes_param"),
        ({"config": ModelRepositoryParameter()}, "'config' with type nothing"),
        ({"config": CONFIG, "file:1/model.onnx": CONFIG}, "'file:1/model.onnx' with type string_param"),
        ({"speed": CONFIG}, "Unrecognized load parameter 'speed' with type string_param"),
        ({"config": ModelRepositoryParameter(string_param="{")}, "load parameter 'config': config is not JSON"),
    ],
)
def test_parameters_that_cannot_be_used_are_refused_by_name(parameters, says) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(**parameters)
    assert says in str(refused.value)
