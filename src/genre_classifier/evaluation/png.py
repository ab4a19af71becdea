"""Pixels as a PNG file. A drawing is flat colour: without the usual search for each line's filter it takes a tenth."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def png(pixels: np.ndarray) -> bytes:
    """Return the content of a PNG file.

    Parameters
    ----------
    pixels : np.ndarray [shape=(height, width, 3), dtype=uint8]
        RGB.
    """
    height, width, _ = pixels.shape
    lines = np.zeros((height, 1 + 3 * width), np.uint8)  # a line starts with its filter: 0, none
    lines[:, 1:] = pixels.reshape(height, 3 * width)
    bits, rgb, deflate, adaptive, whole = 8, 2, 0, 0, 0
    header = struct.pack(">IIBBBBB", width, height, bits, rgb, deflate, adaptive, whole)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", zlib.compress(lines.data, level=3)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
