"""The wire messages, in a descriptor pool of their own.

Everything below this folder except this file is made by ``make protos`` from ``protos/`` and committed.

protobuf keeps one default pool a process, and two modules that both bring ``package inference`` cannot share it:
importing tritonclient after ordinary generated code of the same protocol dies with "duplicate symbol
'inference.ServerLiveRequest'". These messages live in `POOL` instead, so that anyone can import this package and
tritonclient, or KServe's client, side by side.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

POOL = descriptor_pool.DescriptorPool()


def load(name: str) -> dict[str, Any]:
    """What the module ``name_pb2`` exports, from ``name.binpb``: a serialised FileDescriptorSet beside this file.

    The set holds whatever the file imports before the file itself, which is the last one.
    """
    files = descriptor_pb2.FileDescriptorSet.FromString((Path(__file__).parent / f"{name}.binpb").read_bytes())
    for file in files.file:
        POOL.Add(file)  # the same file again changes nothing
    descriptor = POOL.FindFileByName(files.file[-1].name)
    exports: dict[str, Any] = {"DESCRIPTOR": descriptor}
    for message in descriptor.message_types_by_name.values():
        exports[message.name] = message_factory.GetMessageClass(message)
        # Otherwise the class claims the module of whoever built it, and pickling or printing it misleads.
        exports[message.name].__module__ = f"{__name__}.{name}_pb2"
    for enum in descriptor.enum_types_by_name.values():
        exports[enum.name] = EnumTypeWrapper(enum)
        exports.update({value.name: value.number for value in enum.values})
    return exports


def add(file: FileDescriptor) -> None:
    """A file of another pool, after whatever it imports."""
    for needed in file.dependencies:
        add(needed)
    POOL.AddSerializedFile(file.serialized_pb)


def message_class(full_name: str) -> Any:  # noqa: ANN401 - a class that is made here
    """The class of a message that some loaded file imports; raises KeyError for what no file does."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(full_name))
