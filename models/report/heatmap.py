"""Matrices as pictures: cells for a few values, an image for many.

The opacity of a colour shows the size of a value, its hue (green or purple) the sign. With opacity the same picture
works on a light and on a dark background.
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING, Final

import numpy as np

from models.report.markup import Markup, element, number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.networks.convolution import Array

POSITIVE: Final = (38, 145, 84)
NEGATIVE: Final = (146, 84, 178)


def strengths(values: Array, largest: float | None = None) -> Array:
    """Scale values to -1..1 by their largest absolute value, or by ``largest`` if it is given."""
    scale = float(np.abs(values).max(initial=0.0)) if largest is None else largest
    return np.clip(values / scale, -1, 1) if scale > 0 else np.zeros_like(values)


def cells(
    values_RC: Array,
    *,
    left: float,
    top: float,
    width: float,
    height: float,
    largest: float | None = None,
    positive: str = "plus",
) -> list[Markup]:
    """Draw a rectangle of ``width`` x ``height`` for each value of (rows, columns).

    ``positive`` is the CSS class of values from 0 on. A pale background makes cells near zero visible too.
    """
    rows, columns = values_RC.shape
    marks = [element("path", d=_ground(rows, columns, left, top, width, height), class_="ground")]
    for row, strength_C in enumerate(strengths(values_RC, largest)):
        for column, strength in enumerate(strength_C):
            marks.append(
                element(
                    "rect",
                    x=left + column * width,
                    y=top + row * height,
                    width=width - 1,
                    height=height - 1,
                    class_=positive if strength >= 0 else "minus",
                    fill_opacity=round(abs(float(strength)), 2),
                )
            )
    return marks


def _ground(rows: int, columns: int, left: float, top: float, width: float, height: float) -> str:
    right, bottom = left + columns * width - 1, top + rows * height - 1
    return f"M{number(left)} {number(top)}H{number(right)}V{number(bottom)}H{number(left)}Z"


def image(values_RC: Array, *, left: float, top: float, width: float, height: float) -> Markup:
    """Draw (rows, columns) as one image, stretched to ``width`` x ``height``; NaN is left transparent."""
    visible_RC = np.isfinite(values_RC)
    strength_RC = strengths(np.where(visible_RC, values_RC, 0.0))
    rgba = np.empty((*values_RC.shape, 4), np.uint8)
    rgba[..., :3] = np.where((strength_RC >= 0)[..., None], POSITIVE, NEGATIVE)
    rgba[..., 3] = np.round(255 * np.abs(strength_RC))
    data = base64.b64encode(png(rgba)).decode()
    return element(
        "image",
        href=f"data:image/png;base64,{data}",
        x=left,
        y=top,
        width=width,
        height=height,
        preserveAspectRatio="none",
        class_="pixels",
    )


def png(rgba_HWC: NDArray[np.uint8]) -> bytes:
    """Encode (height, width, 4) bytes as a PNG file."""
    height, width, _ = rgba_HWC.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), rgba_HWC.reshape(height, width * 4)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
