"""What clients that read google.rpc details find in them, through a live server."""

from __future__ import annotations

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

from service import errors
from service.errors import Code, ServiceError, Status, status_of
from service.pb import open_inference_pb2 as pb
from service.wire import error_details
from tests.conftest import affine_model, goldens_for, publish_affine, put_plain
from tests.service.conftest import affine_request


def read(error: grpc.aio.AioRpcError) -> dict[str, object]:
    raw = dict(error.trailing_metadata())[error_details.METADATA_KEY]
    status = error_details.RpcStatus.FromString(raw)
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    found: dict[str, object] = {}
    for detail in status.details:
        for kind in (BadRequest, ErrorInfo, RetryInfo):
            message = kind()
            if detail.Unpack(message):
                found[kind.__name__] = message
    return found


def spoil(**fields) -> pb.ModelInferRequest:
    request = affine_request()
    for name, value in fields.items():
        if name == "raw":
            request.raw_input_contents[0] = value
        elif name == "shape":
            request.inputs[0].shape[:] = value
        else:
            setattr(request.inputs[0], name, value)
    return request


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (spoil(shape=[1, 4]), "inputs[0].shape"),
        (spoil(datatype="FP64"), "inputs[0].datatype"),
        (spoil(name="z"), "inputs[0].name"),
        (spoil(raw=b"\0"), "raw_input_contents[0]"),
        (spoil(raw=b"\xff" * 12), "raw_input_contents[0]"),
        (pb.ModelInferRequest(model_name="affine"), "inputs"),
    ],
)
async def test_a_wrong_request_names_the_field(repository, serving, connect, request_, field) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stubs.inference.ModelInfer(request_)
    found = read(failure.value)
    (violation,) = found["BadRequest"].field_violations
    assert (violation.field, violation.description) == (field, failure.value.details())
    assert (found["ErrorInfo"].reason, found["ErrorInfo"].domain) == ("INVALID_REQUEST", "mnist1d-service")
    assert "RetryInfo" not in found


async def test_an_unknown_model_has_a_reason_and_no_retry(repository, serving, connect) -> None:
    async with serving(repository) as server, connect(server) as stubs:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stubs.inference.ModelInfer(affine_request())
    found = read(failure.value)
    assert found["ErrorInfo"].reason == "MODEL_NOT_FOUND"
    assert dict(found["ErrorInfo"].metadata) == {"model": "affine"}
    assert set(found) == {"ErrorInfo"}


async def test_what_is_worth_trying_again_says_when(repository, serving, connect) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        server._admission.close()
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stubs.inference.ModelInfer(affine_request())
    found = read(failure.value)
    assert found["ErrorInfo"].reason == "SERVER_STOPPING"
    assert found["RetryInfo"].retry_delay.ToTimedelta().total_seconds() == 0.1


@pytest.mark.parametrize("version", ["", "1"])
async def test_a_refused_model_says_why_and_not_to_try_again(repository, serving, connect, version) -> None:
    publish_affine(repository, goldens=goldens_for(affine_model(), shift=1.0))
    put_plain(repository, "junk", b"junk")
    async with serving(repository) as server, connect(server) as stubs:
        for model, reason in (("affine", "GOLDEN_MISMATCH"), ("junk", "ARTIFACT_INVALID")):
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await stubs.inference.ModelInfer(affine_request(model=model, version=version))
            assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
            found = read(failure.value)
            assert found["ErrorInfo"].reason == reason
            assert dict(found["ErrorInfo"].metadata) == {"model": model, "version": "1"}
            assert "RetryInfo" not in found


@pytest.mark.parametrize("letter", ["a", "ä", "€", "%"])
async def test_a_message_of_any_length_arrives(repository, serving, connect, letter) -> None:
    publish_affine(repository)
    async with serving(repository) as server, connect(server) as stubs:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stubs.inference.ModelInfer(affine_request(model=letter * 100_000))
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND
    assert failure.value.details().endswith(f"{letter}' is not found")
    about = read(failure.value)["ErrorInfo"].metadata["model"]
    assert about.startswith(letter * 40)
    assert "characters left out" in about


def test_the_packaged_reader_of_synchronous_clients_understands_them() -> None:
    from grpc_status import rpc_status

    error = errors.InvalidRequest("why", field="inputs")

    class Call:
        def trailing_metadata(self):
            return ((error_details.METADATA_KEY, error_details.serialize(status_of(error))),)

        def code(self):
            return grpc.StatusCode.INVALID_ARGUMENT

        def details(self):
            return "why"

    assert rpc_status.from_call(Call()).details[0].Is(ErrorInfo.DESCRIPTOR)


# Codes that clients may retry, and the errors that carry them although trying again does not help.
RETRIED = {Code.UNAVAILABLE}
TRITONS_WORDS = {errors.ControlNotAllowed}


def test_every_error_has_a_reason_of_its_own_and_a_retry_exactly_where_its_code_is_retried() -> None:
    leaves = ServiceError.__subclasses__()
    assert len({leaf.reason for leaf in leaves}) == len(leaves)
    for leaf in leaves:
        assert leaf.reason.replace("_", "").isupper()
        if leaf not in TRITONS_WORDS:
            assert (leaf.retry_after_s is not None) == (leaf.code in RETRIED), leaf


def test_a_status_without_details_sends_none() -> None:
    assert error_details.serialize(Status(Code.INTERNAL, "x")) is None
    assert error_details.serialize(status_of(ValueError("secret"))) is None
