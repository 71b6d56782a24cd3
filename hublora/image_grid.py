"""Composes images into one labelled grid: validation, `run --grid`, before and after."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

MAX_WIDTH = 2400
_CELL = 256  # pixels that small images are enlarged to
_LARGEST_CELL = 512
_LABEL_LINES = 6
_CAPTION_LINES = 3

_PAPER = "white"
_INK = "#1f2328"
_QUIET = "#59636e"


@dataclass(frozen=True)
class _Metrics:
    """Distances and text sizes of a grid in pixels, derived from the width of a cell."""

    margin: int
    gap: int
    label_width: int
    text: int
    heading: int

    @classmethod
    def of(cls, cell: int, labelled: bool) -> _Metrics:
        text = max(14, min(26, cell // 14))
        return cls(
            margin=max(20, cell // 8),
            gap=max(8, cell // 20),
            label_width=max(150, cell * 3 // 5) if labelled else 0,
            text=text,
            heading=round(text * 1.35),
        )


def sheet(
    rows: Sequence[Sequence[Image.Image]],
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str | None = None,
    cell: int | None = None,
    captions: Sequence[Sequence[str]] | None = None,
) -> Image.Image:
    """Return one image with `rows` of images and their labels.

    Small images are enlarged by a whole factor and large ones reduced, so that the grid is at most
    `MAX_WIDTH` pixels wide. Images of different sizes are centred in their cells.

    Args:
        rows: Images by row; rows may differ in length.
        row_labels: Text to the left of each row, such as its prompt; None without labels.
        column_labels: Text above each column, such as "base"; None without labels.
        title: Text above the grid; None without a title.
        cell: Side of a cell in pixels; None derives it from the images.
        captions: Text below each image, by row; None without captions.

    Raises:
        ValueError: There are no images, or not as many labels or captions as images.
    """
    columns = max((len(row) for row in rows), default=0)
    if not columns:
        raise ValueError("A grid needs at least one image.")
    _check_count("row", row_labels, len(rows))
    _check_count("column", column_labels, columns)
    if captions is not None and list(map(len, captions)) != list(map(len, rows)):
        raise ValueError("A grid with captions needs one for each image.")

    widest = max(image.width for row in rows for image in row)
    tallest = max(image.height for row in rows for image in row)
    side = _cell_side(max(widest, tallest), columns, row_labels is not None, cell)
    scale = _scale(max(widest, tallest), side)
    width, height = max(1, round(widest * scale)), max(1, round(tallest * scale))
    metrics = _Metrics.of(side, row_labels is not None)
    return _Grid(metrics, columns, width, height).draw(
        rows, row_labels, column_labels, title, captions
    )


def _check_count(kind: str, labels: Sequence[str] | None, count: int) -> None:
    if labels is not None and len(labels) != count:
        raise ValueError(
            f"A grid of {count} {kind}s needs {count} {kind} labels, got {len(labels)}."
        )


def _cell_side(largest: int, columns: int, labelled: bool, cell: int | None) -> int:
    if cell is None:
        cell = largest * max(1, _CELL // largest) if largest < _CELL else largest
        cell = max(_CELL // 2, min(cell, _LARGEST_CELL))
    while cell > 32 and _grid_width(cell, columns, labelled) > MAX_WIDTH:
        cell -= max(1, cell // 50)
    return cell


def _grid_width(cell: int, columns: int, labelled: bool) -> int:
    m = _Metrics.of(cell, labelled)
    label = m.label_width + m.gap if labelled else 0
    return 2 * m.margin + label + columns * cell + (columns - 1) * m.gap


def _scale(largest: int, side: int) -> float:
    """Return the factor by which images are scaled: a whole number, or a fraction below 1."""
    return side // largest if side >= largest else side / largest


class _Grid:
    """Positions of images and labels on a grid."""

    def __init__(self, metrics: _Metrics, columns: int, width: int, height: int) -> None:
        self.m, self.columns, self.width, self.height = metrics, columns, width, height
        self.left = metrics.margin + (metrics.label_width + metrics.gap if self._labelled else 0)
        self.right = self.left + columns * width + (columns - 1) * metrics.gap

    @property
    def _labelled(self) -> bool:
        return self.m.label_width > 0

    def draw(
        self,
        rows: Sequence[Sequence[Image.Image]],
        row_labels: Sequence[str] | None,
        column_labels: Sequence[str] | None,
        title: str | None,
        captions: Sequence[Sequence[str]] | None,
    ) -> Image.Image:
        from PIL import Image, ImageDraw

        m = self.m
        # A single narrow column is too narrow for a title.
        page = max(self.right, m.margin + 320 if title else 0) + m.margin
        heading = Lettering(title or "", m.heading, page - 2 * m.margin, 3)
        heads = [Lettering(label, m.text, self.width, 2) for label in column_labels or ()]
        top = m.margin + (heading.height + m.gap * 2 if title else 0)
        head_height = max((head.height for head in heads), default=0)
        first = top + (head_height + m.gap if heads else 0)
        below = self._below(captions or [()] * len(rows))
        caption_heights = [max((one.height for one in row), default=0) for row in below]
        bottom = first + len(rows) * self.height + (len(rows) - 1) * m.gap + sum(caption_heights)
        paper = Image.new("RGB", (page, bottom + m.margin), _PAPER)
        pen = ImageDraw.Draw(paper)

        heading.draw(pen, m.margin, m.margin, _INK)
        for column, head in enumerate(heads):
            head.draw(pen, self._column(column), top + head_height - head.height, _QUIET)
        y = first
        for index, row in enumerate(rows):
            if row_labels is not None:
                label = Lettering(
                    row_labels[index], m.text, m.label_width, _LABEL_LINES, self.height
                )
                label.draw(pen, m.margin, y + (self.height - label.height) // 2, _INK)
            for column, image in enumerate(row):
                self._place(paper, image, self._column(column), y)
            for column, caption in enumerate(below[index]):
                caption.draw(pen, self._column(column), y + self.height, _QUIET)
            y += self.height + caption_heights[index] + m.gap
        return paper

    def _below(self, captions: Sequence[Sequence[str]]) -> list[list[Lettering]]:
        """Return the captions below the images of each row."""
        return [
            [Lettering(text, self.m.text, self.width, _CAPTION_LINES) for text in row]
            for row in captions
        ]

    def _column(self, column: int) -> int:
        return self.left + column * (self.width + self.m.gap)

    def _place(self, paper: Image.Image, image: Image.Image, x: int, y: int) -> None:
        fitted = _fit(_flat(image), self.width, self.height)
        paper.paste(
            fitted, (x + (self.width - fitted.width) // 2, y + (self.height - fitted.height) // 2)
        )


def _flat(image: Image.Image) -> Image.Image:
    """Return the image in RGB, with white in place of transparency."""
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, _PAPER), layer).convert("RGB")


def _fit(image: Image.Image, width: int, height: int) -> Image.Image:
    from PIL import Image

    scale = min(width / image.width, height / image.height)
    if scale > 1:
        scale = int(scale)  # whole factors ring least
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


class Lettering:
    """A text that is wrapped to a width and cut with an ellipsis after the last line.

    Args:
        text: Any text; runs of white space become one space.
        size: Font size in pixels.
        width: Maximum width of a line in pixels.
        lines: Maximum number of lines, at least 1.
        height: Maximum height of all lines in pixels; None: unlimited.

    Attributes:
        height: Height of all lines in pixels; 0 for an empty text.
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
        """Draw the lines with their top left corner at (x, y) in pixels."""
        for number, line in enumerate(self.lines):
            middle = y + number * self.leading + self.leading / 2
            pen.text((x, middle), line, font=self.font, fill=colour, anchor="lm")


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int, limit: int) -> list[str]:
    lines: list[str] = []
    line = ""
    for word in re.findall(r"[^ \n\t]+", text):
        # The no-break space has prevented a break; Pillow's font has no glyph for it.
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
    """Return Pillow's own font, or DejaVu Sans for texts with glyphs that it lacks."""
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
