"""Text as masks of coverage, kept from one figure to the next: drawing text again is what a figure's time goes into."""

from __future__ import annotations

import math
import unicodedata
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

UNDRAWABLE = "□"
ELLIPSIS = "..."


@lru_cache(maxsize=1024)
def text_mask(text: str, size: int) -> Image.Image:
    """Return a line of text as a mask, its capitals centred on the mask's height.

    Parameters
    ----------
    text : str
        One line.
    size : int
        Height of the font, in pixels.

    Returns
    -------
    PIL.Image.Image [mode="L"]
        Coverage of each pixel, 0 to 255. Shared between callers: not to be drawn on.
    """
    font, half, baseline = _font(size), *_line(size)
    mask = Image.new("L", (math.ceil(font.getlength(text)) + 2, 2 * half))
    ImageDraw.Draw(mask).text((1, baseline), text, fill=255, font=font, anchor="ls")
    return mask


@lru_cache(maxsize=256)
def slanted_mask(text: str, size: int) -> tuple[Image.Image, tuple[int, int]]:
    """Return a line of text rising at 45 degrees, and where in that mask the text ends, as (x, y) in pixels."""
    flat = text_mask(text, size)
    slanted = flat.rotate(45, resample=Image.Resampling.BICUBIC, expand=True)
    reach = flat.width / 2 * math.sqrt(0.5)
    return slanted, (round(slanted.width / 2 + reach), round(slanted.height / 2 - reach))


@lru_cache(maxsize=4096)
def number_mask(number: int, size: int) -> Image.Image:
    """Return a count as a mask of just its height, made of the ten digits, each drawn once; see `text_mask`."""
    digits = _digits(size)
    return Image.fromarray(np.hstack([digits[int(digit)] for digit in str(number)]))


@lru_cache(maxsize=1024)
def shortened(text: str, size: int, width: int) -> str:
    """Return as much of a text as `width` pixels hold, with an ellipsis for the rest."""
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    kept = text
    while kept and font.getlength(kept + ELLIPSIS) > width:
        kept = kept[:-1].rstrip()
    return kept + ELLIPSIS


@lru_cache(maxsize=1024)
def drawable(name: str, position: int) -> str:
    """Return a genre's name on one line, a box for each character that the font lacks.

    Two names in a script that the font lacks may look the same after that, so such a name is preceded by the genre's
    position.
    """
    plain = " ".join(unicodedata.normalize("NFC", name).split())
    drawn = "".join(character if _has_glyph(character) else UNDRAWABLE for character in plain)
    return drawn if drawn == plain else f"{position}: {drawn}"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    try:
        return ImageFont.truetype(str(path), size)
    except OSError:
        # Some distributions package matplotlib without its fonts. Pillow's own font has no more than ASCII.
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)
        return font


@cache
def _line(size: int) -> tuple[int, int]:
    """Return half the height of a line and its baseline, both in pixels from its top."""
    font = _font(size)
    ascent, descent = font.getmetrics()
    capital = -font.getbbox("H", anchor="ls")[1]
    half = math.ceil(max(ascent - capital / 2, descent + capital / 2))
    return half, round(half + capital / 2)


@cache
def _digits(size: int) -> list[np.ndarray]:
    """Return the masks of 0 to 9, all of one width and height."""
    font = _font(size)
    width, top = round(font.getlength("0")), font.getbbox("0123456789", anchor="ls")[1]
    masks = [Image.new("L", (width, 1 - int(top))) for _ in range(10)]
    for digit, mask in enumerate(masks):
        ImageDraw.Draw(mask).text((0, -top), str(digit), fill=255, font=font, anchor="ls")
    return [np.asarray(mask) for mask in masks]


@cache
def _has_glyph(character: str) -> bool:
    # U+FFFF is no character, so what is drawn for it is the font's sign for a missing one.
    font = _font(16)
    return character.isprintable() and bytes(font.getmask(character)) != bytes(font.getmask("\uffff"))
