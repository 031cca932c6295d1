from __future__ import annotations

import itertools

import pytest

from service.bench.call_headers import call_headers, varying_timeouts
from service.client import Tls
from service.wire import hpack
from tests.service.bench.test_load import plan


def decoded(block: bytes) -> list[hpack.Field]:
    return hpack.Decoder(lambda fields: fields).decode(block)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("vary", [False, True])
def test_a_call_says_its_path_and_a_timeout_where_it_has_one_for_all(streaming, vary) -> None:
    fields = dict(call_headers(plan(8001, streaming=streaming, vary_timeouts=vary, headers=((b"a", b"b"),))))
    method = b"ModelStreamInfer" if streaming else b"ModelInfer"
    assert fields[b":path"] == b"/inference.GRPCInferenceService/" + method
    assert (fields[b":authority"], fields[b":scheme"], fields[b"a"]) == (b"127.0.0.1:8001", b"http", b"b")
    assert fields.get(b"grpc-timeout") == (None if streaming or vary else b"20000m")


def test_the_authority_is_the_name_in_the_certificate() -> None:
    tls = Tls(server_name="models.example")
    fields = dict(call_headers(plan(8001, host="::1", tls=tls)))
    assert (fields[b":authority"], fields[b":scheme"]) == (b"models.example", b"https")
    assert dict(call_headers(plan(8001, host="::1")))[b":authority"] == b"[::1]:8001"


@pytest.mark.parametrize(
    ("deadline_s", "first", "last"),
    [(5.0, b"5000000u", b"4500001u"), (0.001, b"1000u", b"901u"), (3600.0, b"3600000m", b"3240001m")],
)
def test_each_timeout_is_another_and_none_is_longer_than_the_deadline(deadline_s, first, last) -> None:
    timeouts = varying_timeouts(deadline_s)
    count = int(first[:-1]) - int(last[:-1]) + 1
    seen = [decoded(block) for block in itertools.islice(timeouts, count)]
    assert {name for ((name, _),) in seen} == {b"grpc-timeout"}
    values = [value for ((_, value),) in seen]
    assert (values[0], values[-1], len(set(values))) == (first, last, count)
    assert max(len(value) for value in values) <= 9
    assert decoded(next(timeouts)) == [(b"grpc-timeout", first)]


def test_a_timeout_enters_no_table() -> None:
    decoder = hpack.Decoder(lambda fields: fields)
    for block in itertools.islice(varying_timeouts(5.0), 3):
        decoder.decode(block)
    with pytest.raises(hpack.HpackError, match="the table has 61"):
        decoder.decode(b"\xbe")
