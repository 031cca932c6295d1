from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import grpc
import pytest

from service.errors import PermissionDenied, ServiceError, Unauthenticated
from service.pb import health_pb2
from service.pb import open_inference_pb2 as pb
from service.rpc.methods import Unary
from service.security.access import Access, Guard, Tokens
from service.security.tokens import TokenFile
from tests.conftest import publish_affine
from tests.service.conftest import affine_request
from tests.stubs import open_inference_pb2_grpc

if TYPE_CHECKING:
    from service.server.server import Server

METHOD = Unary("/test.Service/Method", bytes.decode, str.encode, None)
INFERENCE, CONTROL, UNKNOWN = "inference-token", "control-token", "unknown-token"


class Context:
    """A call with some metadata."""

    peer = "test"

    def __init__(self, *metadata: tuple[str, str | bytes]) -> None:
        self.metadata = metadata

    def time_remaining_s(self) -> None:
        return None


def bearing(token: str | None) -> Context:
    return Context() if token is None else Context(("authorization", f"Bearer {token}"))


@pytest.fixture
def token_files(tmp_path):
    paths = tmp_path / "inference_tokens", tmp_path / "control_tokens"
    paths[0].write_text(f"reader:{INFERENCE}\n")
    paths[1].write_text(f"{CONTROL}\n")
    return paths


def outcome(guard: Guard, access: Access, context: Context) -> str:
    try:
        guard.check(METHOD, access, context)
    except ServiceError as error:
        return error.code.name
    return "OK"


# token -> what becomes of calls that need (nothing, inference, control)
WITH_BOTH = {
    None: ("OK", "UNAUTHENTICATED", "UNAUTHENTICATED"),
    UNKNOWN: ("OK", "UNAUTHENTICATED", "UNAUTHENTICATED"),
    INFERENCE: ("OK", "OK", "PERMISSION_DENIED"),
    CONTROL: ("OK", "OK", "OK"),
}
WITH_INFERENCE = {
    None: ("OK", "UNAUTHENTICATED", "OK"),
    UNKNOWN: ("OK", "UNAUTHENTICATED", "OK"),
    INFERENCE: ("OK", "OK", "OK"),
}
WITH_CONTROL = {
    None: ("OK", "OK", "UNAUTHENTICATED"),
    UNKNOWN: ("OK", "OK", "UNAUTHENTICATED"),
    CONTROL: ("OK", "OK", "OK"),
}
WITH_NONE = {None: ("OK", "OK", "OK"), UNKNOWN: ("OK", "OK", "OK")}
TABLES = {
    (True, True): WITH_BOTH,
    (True, False): WITH_INFERENCE,
    (False, True): WITH_CONTROL,
    (False, False): WITH_NONE,
}


@pytest.mark.parametrize("files", TABLES)
def test_rights_by_token(token_files, files) -> None:
    inference, control = (
        TokenFile(path.name, path) if present else None for path, present in zip(token_files, files, strict=True)
    )
    guard = Guard(Tokens(inference, control))
    found = {token: tuple(outcome(guard, access, bearing(token)) for access in Access) for token in TABLES[files]}
    assert found == TABLES[files]


def test_control_on_another_port_is_refused_whatever_the_token(token_files) -> None:
    tokens = Tokens(*(TokenFile(path.name, path) for path in token_files))
    guard = Guard(tokens, control_refusal=lambda: "it is served on 127.0.0.1:8003 only")
    for token in WITH_BOTH:
        with pytest.raises(
            PermissionDenied, match=r"is a control call: it is served on 127\.0\.0\.1:8003 only"
        ) as failure:
            guard.check(METHOD, Access.CONTROL, bearing(token))
        assert failure.value.details.reason == "CONTROL_NOT_ON_THIS_PORT"
        assert outcome(guard, Access.INFERENCE, bearing(token)) == WITH_BOTH[token][1]


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        (Context(), "TOKEN_MISSING"),
        (Context(("authorization", "Basic YTpi")), "TOKEN_MISSING"),
        (Context(("authorization", INFERENCE)), "TOKEN_MISSING"),
        (Context(("authorization", "Bearer ")), "TOKEN_MISSING"),
        (Context(("authorization", b"Bearer " + INFERENCE.encode())), "TOKEN_MISSING"),
        (Context(*[("authorization", f"Bearer {INFERENCE}")] * 2), "TOKEN_MISSING"),
        (Context(("authorization", f"Bearer {UNKNOWN}")), "TOKEN_UNKNOWN"),
        (Context(("authorization", f"Bearer {INFERENCE} x")), "TOKEN_UNKNOWN"),
    ],
)
def test_what_is_no_token_says_what_is_wanted(token_files, context, reason) -> None:
    guard = Guard(Tokens(inference=TokenFile("inference_tokens", token_files[0])))
    with pytest.raises(Unauthenticated, match="this call needs an inference token") as failure:
        guard.check(METHOD, Access.INFERENCE, context)
    assert failure.value.details.reason == reason
    assert INFERENCE not in str(failure.value)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_told_from_any_spelling(token_files, scheme) -> None:
    guard = Guard(Tokens(inference=TokenFile("inference_tokens", token_files[0])))
    guard.check(METHOD, Access.INFERENCE, Context(("authorization", f"{scheme} {INFERENCE}")))


def test_control_calls_are_logged_with_the_name_and_without_the_token(token_files, caplog) -> None:
    guard = Guard(Tokens(control=TokenFile("control_tokens", token_files[1])))
    with caplog.at_level(logging.INFO):
        guard.check(METHOD, Access.CONTROL, bearing(CONTROL))
    (record,) = caplog.records
    assert (record.message, record.method, record.by) == ("control call", METHOD.path, "token 1")
    assert CONTROL not in repr(vars(record))


OPEN = {
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/List",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
}
ALWAYS_CONTROL = {
    "/inference.GRPCInferenceService/RepositoryModelLoad",
    "/inference.GRPCInferenceService/RepositoryModelUnload",
}
CONTROL_IF_IT_CHANGES = {
    pb.LogSettingsRequest: "/inference.GRPCInferenceService/LogSettings",
    pb.TraceSettingRequest: "/inference.GRPCInferenceService/TraceSetting",
}


async def test_every_method_of_the_server_has_its_right(repository, serving) -> None:
    async with serving(repository) as server:
        methods = {method.path: method for method in server.methods}
    by_access = {access: {path for path, method in methods.items() if method.access is access} for access in Access}
    assert by_access[Access.OPEN] == OPEN
    assert by_access[Access.CONTROL] == ALWAYS_CONTROL
    assert len(by_access[Access.INFERENCE]) >= 10
    for request, path in CONTROL_IF_IT_CHANGES.items():
        assert not methods[path].changes(request())
        change = request()
        change.settings["log_info"].SetInParent()
        assert methods[path].changes(change)


def stream_code(server: Server, metadata) -> str:
    """Of a stream that sends at once. By the blocking client: the asyncio one is told INTERNAL where its write comes
    after the server's refusal.
    """
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            next(stub.ModelStreamInfer(iter([affine_request()]), metadata=metadata))
        except grpc.RpcError as error:
            return error.code().name
    return "OK"


async def code_of(call) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def test_through_the_server(repository, serving, connect, token_files) -> None:
    publish_affine(repository)
    files = {path.name: path for path in token_files}

    async def outcomes(server: Server, token: str | None) -> tuple[str, ...]:
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        async with connect(server) as stubs:
            value = pb.LogSettingsRequest.SettingValue(bool_param=True)
            return (
                await code_of(stubs.health.Check(health_pb2.HealthCheckRequest(), metadata=metadata)),
                await code_of(stubs.inference.ModelInfer(affine_request(), metadata=metadata)),
                await asyncio.to_thread(stream_code, server, metadata),
                await code_of(stubs.inference.LogSettings(pb.LogSettingsRequest(), metadata=metadata)),
                await code_of(
                    stubs.inference.LogSettings(pb.LogSettingsRequest(settings={"log_info": value}), metadata=metadata)
                ),
                await code_of(
                    stubs.inference.RepositoryModelUnload(
                        pb.RepositoryModelUnloadRequest(model_name="x"), metadata=metadata
                    )
                ),
            )

    unauthenticated, denied = ["UNAUTHENTICATED"], ["PERMISSION_DENIED"]
    async with serving(repository, model_control_mode="explicit", load_model="affine", **files) as server:
        for token in (None, UNKNOWN):
            assert await outcomes(server, token) == ("OK", *unauthenticated * 5)
        assert await outcomes(server, INFERENCE) == (*["OK"] * 4, *denied * 2)
        *allowed, changed, unloaded = await outcomes(server, CONTROL)
        assert (*allowed, unloaded) == ("OK",) * 5
        # Let through, to a process whose log may or may not be the server's to change.
        assert changed in ("OK", "UNIMPLEMENTED")
