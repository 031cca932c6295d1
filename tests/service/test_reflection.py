from __future__ import annotations

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from service.reflection import PATHS


@pytest.fixture
async def ask(repository, serving, connect):
    async with serving(repository) as server, connect(server) as stubs:

        async def question(path: str, **fields) -> ServerReflectionResponse:
            call = stubs.channel.stream_stream(
                path, ServerReflectionRequest.SerializeToString, ServerReflectionResponse.FromString
            )()
            await call.write(ServerReflectionRequest(**fields))
            await call.done_writing()
            return await call.read()

        yield question


@pytest.mark.parametrize("path", PATHS)
async def test_every_listed_service_can_be_described_completely(ask, path) -> None:
    listed = [service.name for service in (await ask(path, list_services="")).list_services_response.service]
    assert listed == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    ]
    for name in listed:
        response = (await ask(path, file_containing_symbol=name)).file_descriptor_response
        files = [FileDescriptorProto.FromString(data) for data in response.file_descriptor_proto]
        package, _, service = name.rpartition(".")
        assert files[0].package == package
        assert service in [described.name for described in files[0].service]


@pytest.mark.parametrize("path", PATHS)
async def test_what_is_unknown_is_an_error_in_the_stream(ask, path) -> None:
    response = await ask(path, file_containing_symbol="no.such.Thing")
    assert response.error_response.error_code == 5
