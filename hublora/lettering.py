"""Wraps and draws short texts on pictures, in a font that has their letters."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont


class Lettering:
    """A text wrapped to a width and cut with an ellipsis after so many lines.

    Args:
        text: Any text; runs of white space count as one space.
        size: Height of the letters in pixels.
        width: Pixels that a line may take.
        lines: How many lines there may be.
        height: Pixels that all lines together may take.

    Attributes:
        height: Pixels that all lines together take; 0 when there is nothing to write.
    """

    def __init__(
        self, text: str, size: int, width: int, lines: int, height: int | None = None
    ) -> None:
        self.leading = round(size * 1.35)
        self.font = _font_for(text, size)
        if height is not None:
            lines = max(1, min(lines, height // self.leading))
        self.lines = _wrap(text, self.font, width, lines)
        self.height = len(self.lines) * self.leading

    def draw(self, pen: ImageDraw.ImageDraw, x: int, y: int, colour: str) -> None:
        """Write the lines with their top left corner at x, y."""
        for number, line in enumerate(self.lines):
            middle = y + number * self.leading + self.leading / 2
            pen.text((x, middle), line, font=self.font, fill=colour, anchor="lm")


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int, limit: int) -> list[str]:
    lines: list[str] = []
    line = ""
    for word in re.findall(r"[^ \n\t]+", text):
        # A no-break space has held its words together; Pillow's font has no such letter.
        word = word.replace("\N{NO-BREAK SPACE}", " ")
        joined = f"{line} {word}" if line else word
        if font.getlength(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        *pieces, line = _break_word(word, font, width)
        lines += pieces
        if len(lines) > limit:
            break
    lines += [line] if line else []
    if len(lines) <= limit:
        return lines
    last = lines[limit - 1]
    while last and font.getlength(f"{last}…") > width:
        last = last[:-1]
    return [*lines[: limit - 1], f"{last.rstrip(' ,.;:')}…"]


def _break_word(word: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Return `word` in pieces that are no wider than `width`."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and font.getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def _font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font, or matplotlib's wider one for texts that it cannot write."""
    own = _own_font(size)
    missing = bytes(own.getmask("\uffff"))
    if all(letter.isspace() or bytes(own.getmask(letter)) != missing for letter in set(text)):
        return own
    return _wide_font(size)


@cache
def _own_font(size: int) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


@cache
def _wide_font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib
    from PIL import ImageFont

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(path, size)
