"""Server reflection, v1 and v1alpha, so that grpcurl and other generic clients need no proto files.

The packaged servicer answers v1alpha only; v1 has the same messages under another package name, hence one handler
under two paths. It is asked about our own descriptor pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from service.access import Access
from service.pb import POOL
from service.transport.methods import BidiStream, CallContext

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

PATHS = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)


def methods(served: Sequence[str]) -> tuple[BidiStream, ...]:
    """The reflection rows of the method table; ``served`` are the full names of the services to list."""
    names = sorted({*served, *(path.split("/")[1] for path in PATHS)})
    _describe_reflection()
    servicer = ReflectionServicer(service_names=names, pool=POOL)

    def answer(requests: AsyncIterator[Any], _: CallContext) -> AsyncIterator[Any]:
        answers: AsyncIterator[Any] = servicer.ServerReflectionInfo(requests, None)
        return answers

    return tuple(
        BidiStream(
            path,
            reflection_pb2.ServerReflectionRequest.FromString,
            lambda response: response.SerializeToString(),
            answer,
            access=Access.OPEN,
        )
        for path in PATHS
    )


def _describe_reflection() -> None:
    """Put reflection's own descriptors into the pool, under both names: clients ask about whatever is listed."""
    v1alpha = reflection_pb2.DESCRIPTOR.serialized_pb
    # The two differ in the package alone, and the names have other lengths: edit the descriptor, not its bytes.
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
