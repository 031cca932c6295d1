"""Server reflection, v1 and v1alpha, so that grpcurl and other generic clients need no proto files.

Both versions have the same messages under two package names, hence one handler under two paths; it answers from the
project's descriptor pool. Only the messages of the package grpcio-reflection are used: its servicer would import
grpcio, which a server with the native transport does not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2

from service.errors import Code
from service.pb import POOL, add
from service.rpc.methods import Bidi, CallContext
from service.security.access import Access

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from google.protobuf.descriptor import FileDescriptor

PATHS = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)


def methods(served: Sequence[str]) -> tuple[Bidi, ...]:
    """The reflection rows of the method table; ``served`` are the full names of the services to list."""
    names = sorted({*served, *(path.split("/")[1] for path in PATHS)})
    _describe_reflection()

    async def answer(
        requests: AsyncIterator[reflection_pb2.ServerReflectionRequest], _: CallContext
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        async for request in requests:
            yield _answered(request, names)

    return tuple(
        Bidi(
            path,
            reflection_pb2.ServerReflectionRequest.FromString,
            lambda response: response.SerializeToString(),
            answer,
            access=Access.OPEN,
        )
        for path in PATHS
    )


def _answered(
    request: reflection_pb2.ServerReflectionRequest, names: Sequence[str]
) -> reflection_pb2.ServerReflectionResponse:
    """The answer to one request. Unknown or invalid requests get an error message, and the stream goes on."""
    response = reflection_pb2.ServerReflectionResponse(valid_host=request.host, original_request=request)
    kind = request.WhichOneof("message_request")
    try:
        if kind == "list_services":
            response.list_services_response.service.extend(reflection_pb2.ServiceResponse(name=name) for name in names)
        elif kind == "all_extension_numbers_of_type":
            extended = POOL.FindMessageTypeByName(request.all_extension_numbers_of_type)
            response.all_extension_numbers_response.base_type_name = extended.full_name
            response.all_extension_numbers_response.extension_number.extend(
                sorted(extension.number for extension in POOL.FindAllExtensions(extended))
            )
        elif kind is not None:
            response.file_descriptor_response.file_descriptor_proto.extend(_with_imports(_file(request, kind)))
        else:
            _fail(response, Code.INVALID_ARGUMENT, "the request asks nothing")
    except KeyError:
        _fail(response, Code.NOT_FOUND, f"not found: {_asked(request)}")
    return response


def _file(request: reflection_pb2.ServerReflectionRequest, kind: str) -> FileDescriptor:
    """The requested file; raises KeyError for an unknown one."""
    if kind == "file_by_filename":
        return POOL.FindFileByName(request.file_by_filename)
    if kind == "file_containing_symbol":
        return POOL.FindFileContainingSymbol(request.file_containing_symbol)
    asked = request.file_containing_extension
    extended = POOL.FindMessageTypeByName(asked.containing_type)
    extension = POOL.FindExtensionByNumber(extended, asked.extension_number)
    return POOL.FindFileContainingSymbol(extension.full_name)


def _with_imports(file: FileDescriptor) -> list[bytes]:
    """A file and its imports, each once and the file first, so that one request is enough."""
    found: dict[str, bytes] = {}
    waiting = [file]
    while waiting:
        each = waiting.pop()
        if each.name not in found:
            found[each.name] = each.serialized_pb
            waiting.extend(each.dependencies)
    return list(found.values())


def _fail(response: reflection_pb2.ServerReflectionResponse, code: Code, message: str) -> None:
    response.error_response.error_code = code.value
    response.error_response.error_message = message


def _asked(request: reflection_pb2.ServerReflectionRequest) -> str:
    return " ".join(str(request).split())[:200]


def _describe_reflection() -> None:
    """Add reflection's descriptors to the pool under both names, since clients ask about every listed service."""
    v1alpha = reflection_pb2.DESCRIPTOR.serialized_pb
    # The two differ only in the package, whose names differ in length: edit the descriptor, not its bytes.
    v1 = descriptor_pb2.FileDescriptorProto.FromString(v1alpha)
    v1.name, v1.package = "grpc/reflection/v1/reflection.proto", "grpc.reflection.v1"
    for message in v1.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(".v1alpha.", ".v1.")
    for method in v1.service[0].method:
        method.input_type = method.input_type.replace(".v1alpha.", ".v1.")
        method.output_type = method.output_type.replace(".v1alpha.", ".v1.")
    # Adding the same file again changes nothing.
    POOL.AddSerializedFile(v1alpha)
    POOL.Add(v1)
    # Error details of calls and of operations, for clients that decode them.
    add(error_details_pb2.DESCRIPTOR)
