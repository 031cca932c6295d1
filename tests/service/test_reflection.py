from __future__ import annotations

import subprocess
import sys

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
    for asked in (
        {"file_containing_symbol": "no.such.Thing"},
        {"file_by_filename": "no.proto"},
        {"file_containing_extension": {"containing_type": "inference.ModelInferRequest", "extension_number": 7}},
        {"all_extension_numbers_of_type": "no.Type"},
    ):
        response = await ask(path, **asked)
        assert response.error_response.error_code == 5
        assert response.original_request == ServerReflectionRequest(**asked)
    assert (await ask(path)).error_response.error_code == 3


@pytest.mark.parametrize("path", PATHS)
async def test_files_are_found_by_name_and_message_types_have_their_extensions(ask, path) -> None:
    by_symbol = await ask(path, file_containing_symbol="inference.ModelInferRequest")
    name = FileDescriptorProto.FromString(by_symbol.file_descriptor_response.file_descriptor_proto[0]).name
    assert (await ask(path, file_by_filename=name)).file_descriptor_response == by_symbol.file_descriptor_response
    numbers = await ask(path, all_extension_numbers_of_type="inference.ModelInferRequest", host="h")
    assert numbers.all_extension_numbers_response.base_type_name == "inference.ModelInferRequest"
    assert numbers.valid_host == "h"


def test_a_server_on_its_own_connections_does_not_import_grpcio() -> None:
    program = "import sys, service.server.server, service.server.listeners; print('grpc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
