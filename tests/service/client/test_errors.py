from __future__ import annotations

import pytest
from google.protobuf import any_pb2

from service.client.errors import ErrorDetails, FieldViolation, read_details


def test_details_are_read_as_google_rpc_defines_them() -> None:
    error_details_pb2 = pytest.importorskip("google.rpc.error_details_pb2")
    status_pb2 = pytest.importorskip("google.rpc.status_pb2")
    status = status_pb2.Status(code=3, message="wrong")
    for detail in (
        error_details_pb2.ErrorInfo(reason="SHAPE", domain="mnist1d-service", metadata={"model": "m", "version": "1"}),
        error_details_pb2.BadRequest(
            field_violations=[{"field": "inputs[0].shape", "description": "é"}, {"field": "inputs[1]"}]
        ),
        error_details_pb2.RetryInfo(retry_delay={"seconds": 1, "nanos": 500_000_000}),
        error_details_pb2.Help(links=[{"url": "x"}]),
    ):
        status.details.append(any_pb2.Any())
        status.details[-1].Pack(detail)
    details = read_details(status.SerializeToString())
    assert (details.reason, details.domain) == ("SHAPE", "mnist1d-service")
    assert details.metadata == {"model": "m", "version": "1"}
    assert details.violations == (FieldViolation("inputs[0].shape", "é"), FieldViolation("inputs[1]", ""))
    assert details.retry_after_s == 1.5
    assert details.raw["google.rpc.Help"] == error_details_pb2.Help(links=[{"url": "x"}]).SerializeToString()


def any_of(name: bytes, value: bytes) -> bytes:
    """A Status with one detail, by hand."""
    packed = b"\x0a" + bytes([len(name)]) + name + b"\x12" + bytes([len(value)]) + value
    return b"\x08\x05\x1a" + bytes([len(packed)]) + packed


def test_a_detail_by_hand() -> None:
    details = read_details(any_of(b"type.googleapis.com/google.rpc.ErrorInfo", b"\x0a\x01R\x12\x01D"))
    assert (details.reason, details.domain, details.retry_after_s) == ("R", "D", None)


@pytest.mark.parametrize(
    "status",
    [
        b"",
        b"\xff",
        b"\x1a\x05ab",
        b"\x1b",
        b"\xff" * 20,
        any_of(b"type.googleapis.com/google.rpc.ErrorInfo", b"\x0a\x09R"),
        any_of(b"type.googleapis.com/google.rpc.ErrorInfo", b"\x0a\x01\xff"),
        any_of(b"\xff", b""),
    ],
)
def test_bytes_that_are_no_status_give_no_details_and_no_error(status) -> None:
    details = read_details(status)
    assert ErrorDetails(raw=details.raw) == details
