"""What grpcurl does: learn services and messages from the server's reflection, then call with JSON."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha import reflection_pb2

if TYPE_CHECKING:
    import grpc
    from google.protobuf.descriptor import ServiceDescriptor
    from google.protobuf.message import Message

VERSIONS = ("v1", "v1alpha")


class Reflected:
    """A client that knows no proto file; ``version`` is that of the reflection service it asks."""

    def __init__(self, channel: grpc.Channel, version: str = "v1") -> None:
        self._channel = channel
        self._pool = descriptor_pool.DescriptorPool()
        self._known: set[str] = set()
        # Both versions have the same messages.
        self._stream = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )

    def list(self) -> list[str]:
        """``grpcurl ADDRESS list``."""
        return [service.name for service in self._ask(list_services="").list_services_response.service]

    def describe(self, service: str) -> ServiceDescriptor:
        """``grpcurl ADDRESS describe SERVICE``; raises LookupError for what the server does not know."""
        self._learn(file_containing_symbol=service)
        return self._pool.FindServiceByName(service)

    def call(self, path: str, *texts: str, **options: Any) -> Any:
        """``grpcurl -d TEXT ADDRESS SERVICE/METHOD``: the response as JSON has it; for a stream the responses.

        Raises grpc.RpcError.
        """
        service, method = path.split("/")
        found = self.describe(service).methods_by_name[method]
        request_class = message_factory.GetMessageClass(found.input_type)
        codec = (request_class.SerializeToString, message_factory.GetMessageClass(found.output_type).FromString)
        requests = [json_format.Parse(text, request_class()) for text in texts]
        if found.client_streaming:
            run = self._channel.stream_stream(f"/{path}", *codec)
            return [self._as_dict(answer) for answer in run(iter(requests), **options)]
        if found.server_streaming:
            return (
                self._as_dict(answer)
                for answer in self._channel.unary_stream(f"/{path}", *codec)(requests[0], **options)
            )
        return self._as_dict(self._channel.unary_unary(f"/{path}", *codec)(requests[0], **options))

    def _ask(self, **question: Any) -> reflection_pb2.ServerReflectionResponse:
        (answer,) = self._stream(iter([reflection_pb2.ServerReflectionRequest(**question)]))
        if answer.HasField("error_response"):
            raise LookupError(answer.error_response.error_message)
        return answer

    def _learn(self, **question: Any) -> None:
        """Add the files that answer ``question`` to the pool, after whatever they import."""
        answer = self._ask(**question).file_descriptor_response
        files = [descriptor_pb2.FileDescriptorProto.FromString(data) for data in answer.file_descriptor_proto]
        by_name = {file.name: file for file in files}
        for name in by_name:
            self._add(name, by_name)

    def _add(self, name: str, files: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
        """What it imports first; what did not come along is asked for."""
        if name in self._known:
            return
        if name not in files:
            self._learn(file_by_filename=name)
            return
        for needed in files[name].dependency:
            self._add(needed, files)
        self._known.add(name)
        self._pool.Add(files[name])

    def _as_dict(self, message: Message) -> Any:
        """With whatever is packed into an Any unpacked, as far as the server knows the types."""
        while True:
            try:
                return json_format.MessageToDict(message, descriptor_pool=self._pool)
            except TypeError as error:
                unknown = re.search(r"type_url: type\.googleapis\.com/([\w.]+)", str(error))
                if unknown is None:
                    raise
                self._learn(file_containing_symbol=unknown[1])
