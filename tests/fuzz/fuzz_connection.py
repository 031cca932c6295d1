"""Feeds an HTTP/2 connection whatever a coverage-guided fuzzer comes up with: ``make fuzz``.

Seeds are the rows of the conformance suite; what breaks goes into `tests.fuzz.test_corpus` as a case of its own.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["service.transport.http2", "hpack"]):
    from tests.fuzz.connection import Drive, chunks_of
    from tests.fuzz.seeds import seeds


def main() -> None:
    """Run libFuzzer with the command line's options."""
    drive = Drive()

    def one_input(data: bytes) -> None:
        chunks, reads = chunks_of(data)
        drive(chunks, reads=reads)

    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds()):
            Path(corpus, f"seed-{number:03}").write_bytes(seed)
        atheris.Setup([*sys.argv, corpus], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
