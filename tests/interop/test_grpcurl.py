"""A generic client without proto files: list, describe and call through reflection, as grpcurl does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import ServiceDescriptorProto

from tests.reflected import VERSIONS, Reflected

if TYPE_CHECKING:
    from collections.abc import Iterator

INFERENCE = "inference.GRPCInferenceService"
X = {"name": "x", "datatype": "FP32", "shape": [1, 3], "contents": {"fp32_contents": [1, 2, 3]}}


@pytest.fixture(params=VERSIONS)
def reflected(zoo_server, request) -> Iterator[Reflected]:
    with grpc.insecure_channel(f"127.0.0.1:{zoo_server.port}") as channel:
        yield Reflected(channel, request.param)


def test_list(reflected) -> None:
    assert {INFERENCE, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} <= set(reflected.list())


def test_everything_listed_can_be_described(reflected) -> None:
    for name in reflected.list():
        described = ServiceDescriptorProto()
        reflected.describe(name).CopyToProto(described)
        assert described.name == name.rpartition(".")[2]
        assert described.method


def test_every_method_of_the_contract_is_described_with_its_kind(reflected) -> None:
    methods = reflected.describe(INFERENCE).methods_by_name
    assert len(methods) == 20
    assert [name for name, method in methods.items() if method.client_streaming] == ["ModelStreamInfer"]


def test_calls_with_json(reflected) -> None:
    assert reflected.call(f"{INFERENCE}/ServerLive", "{}") == {"live": True}
    assert reflected.call("grpc.health.v1.Health/Check", '{"service": "model/affine"}') == {"status": "SERVING"}
    config = reflected.call(f"{INFERENCE}/ModelConfig", '{"name": "affine"}')["config"]
    assert config["input"] == [{"name": "x", "dataType": "TYPE_FP32", "dims": ["3"]}]
    answer = reflected.call(f"{INFERENCE}/ModelInfer", json.dumps({"model_name": "affine", "inputs": [X]}))
    assert answer["outputs"][0]["contents"]["fp32Contents"] == [4, 7, 10]


def test_a_stream_with_json(reflected) -> None:
    requests = [json.dumps({"model_name": name, "inputs": [X], "id": name}) for name in ("affine", "nope", "labelled")]
    answers = reflected.call(f"{INFERENCE}/ModelStreamInfer", *requests)
    assert [answer["inferResponse"]["id"] for answer in answers] == ["affine", "nope", "labelled"]
    assert ["errorMessage" in answer for answer in answers] == [False, True, False]


def test_watching_with_json(reflected) -> None:
    answers = reflected.call("grpc.health.v1.Health/Watch", '{"service": "model/broken"}', timeout=30)
    assert next(answers) == {"status": "NOT_SERVING"}


def test_what_is_unknown(reflected) -> None:
    with pytest.raises(LookupError):
        reflected.describe("no.such.Service")
    with pytest.raises(json_format.ParseError):
        reflected.call(f"{INFERENCE}/ServerLive", '{"no_such_field": 1}')
    with pytest.raises(grpc.RpcError) as raised:
        reflected.call(f"{INFERENCE}/ModelMetadata", '{"name": "nope"}')
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
