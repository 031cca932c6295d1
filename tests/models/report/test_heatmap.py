from __future__ import annotations

import base64
import re
import struct
import zlib

import numpy as np

from models.report.heatmap import NEGATIVE, POSITIVE, cells, image, png, strengths


def pixels(content: bytes) -> np.ndarray:
    """A PNG as this project writes it, read back chunk by chunk with its sums checked."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack(">I", content[at + 8 + length : at + 12 + length])
        assert checksum == zlib.crc32(kind + data)
        chunks[kind] = data
        at += 12 + length
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, colour) == (8, 6)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + 4 * width)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, 4)


def test_a_png_holds_its_pixels():
    rgba = np.random.default_rng(0).integers(0, 256, (3, 5, 4)).astype(np.uint8)
    np.testing.assert_array_equal(pixels(png(rgba)), rgba)


def test_hue_is_the_sign_and_opacity_the_size():
    svg = image(np.array([[1.0, -2.0, 0.0, np.nan]]), left=0, top=0, width=4, height=1)
    seen = pixels(base64.b64decode(re.search(r"base64,([^\"]+)", svg)[1]))[0]
    assert tuple(seen[0]) == (*POSITIVE, 128)
    assert tuple(seen[1]) == (*NEGATIVE, 255)
    assert seen[2, 3] == seen[3, 3] == 0


def test_cells_lie_where_their_values_do():
    ground, *marks = cells(np.array([[0.5, -1.0], [0.0, 1.0]]), left=10, top=20, width=4, height=6)
    assert 'd="M10 20H17V31H10Z"' in ground
    found = [
        (m["x"], m["y"], m["class"], m["fill-opacity"])
        for m in (dict(re.findall(r'([\w-]+)="([^"]*)"', x)) for x in marks)
    ]
    assert found == [
        ("10", "20", "plus", "0.5"),
        ("14", "20", "minus", "1"),
        ("10", "26", "plus", "0"),
        ("14", "26", "plus", "1"),
    ]


def test_nothing_is_stronger_than_the_largest():
    np.testing.assert_array_equal(strengths(np.array([1.0, -4.0]), largest=2.0), [0.5, -1.0])
    np.testing.assert_array_equal(strengths(np.zeros(3)), np.zeros(3))
