"""The seeds of the fuzzer, whole and broken, and a little of what hypothesis comes up with."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.connection import Drive, chunks_of
from tests.fuzz.seeds import seeds
from tests.service.transport.http2 import wire

if TYPE_CHECKING:
    from collections.abc import Iterator

FOUND = {
    "a prefix that says too much behind a message that is taken": "0f01040110001101380000000000000000000000000000000509"
    "04ff0308",
    "a priority of a wrong length on a stream that is opened afterwards": "0b0200030102030405010403020004000100",
    "a prefix of no message at the end of a stream, counted after the call was over": "070104019f001301fa232323dc1300",
}
"""Inputs that broke something once, as hex, by what was wrong."""


@pytest.fixture(scope="module")
def drive() -> Iterator[Drive]:
    logging.getLogger("service").setLevel(logging.ERROR)
    driver = Drive()
    yield driver
    driver.close()
    logging.getLogger("service").setLevel(logging.NOTSET)


def test_the_driver_sees_an_answer(drive) -> None:
    assert b"hello" in drive([wire.PREFACE + wire.settings() + wire.call(1)])


def test_seeds_whole(drive) -> None:
    for seed in seeds():
        chunks, reads = chunks_of(seed)
        drive(chunks, reads=reads)


def test_seeds_cut_off_and_cut_in_pieces(drive) -> None:
    for number, seed in enumerate(seeds()):
        drive(chunks_of(seed[: len(seed) * (number % 7 + 1) // 8])[0])
        whole = b"".join(chunks_of(seed)[0])
        drive([whole[at : at + 11] for at in range(0, min(len(whole), 1500), 11)])


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found(drive, what) -> None:
    chunks, reads = chunks_of(bytes.fromhex(FOUND[what]))
    drive(chunks, reads=reads)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(seeds()), min_size=1, max_size=3), st.binary(max_size=60), st.integers(0, 400))
def test_seeds_with_random_bytes_among_them(drive, chosen, noise, place) -> None:
    data = chosen[0] + b"".join(seed[1:] for seed in chosen[1:])
    chunks, reads = chunks_of(data[:place] + noise + data[place:])
    drive(chunks, reads=reads)
