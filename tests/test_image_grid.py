"""Grids of labelled images."""

from __future__ import annotations

import pytest
from PIL import Image

from hublora.image_grid import MAX_WIDTH, Lettering, sheet

WORDS = "a drawing of a green star on a yellow background, "


def plain_image(width: int = 64, height: int = 64, colour: str = "red") -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def count(image: Image.Image, colour: tuple[int, int, int]) -> int:
    return sum(n for n, found in image.getcolors(1 << 20) if found == colour)


def test_small_images_grow_by_a_whole_factor():
    image = sheet([[plain_image(), plain_image()]])
    assert count(image, (255, 0, 0)) == 2 * 256 * 256


@pytest.mark.parametrize("side", [64, 512, 1024])
@pytest.mark.parametrize("columns", [1, 4, 12])
def test_sheet_fits_a_screen(side, columns):
    labels = [WORDS * 5]
    row = [plain_image(side, side)] * columns
    image = sheet([row], labels, [WORDS] * columns, WORDS * 10)
    assert image.width <= MAX_WIDTH
    assert image.height < 1200


def test_images_of_several_shapes_keep_their_shape():
    image = sheet([[plain_image(128, 64, "blue"), plain_image(64, 128, "lime")]])
    assert count(image, (0, 0, 255)) == count(image, (0, 255, 0)) == 256 * 128


def test_rows_may_differ_in_length():
    image = sheet([[plain_image()] * 3, [plain_image()]])
    assert count(image, (255, 0, 0)) == 4 * 256 * 256


def test_transparent_parts_lie_on_white():
    image = sheet([[Image.new("RGBA", (64, 64), (255, 0, 0, 0))]])
    assert image.mode == "RGB"
    assert image.getcolors() == [(image.width * image.height, (255, 255, 255))]


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "CMYK", "I;16"])
def test_images_of_any_mode_keep_their_colour(mode):
    image = sheet([[plain_image(32, 32, "black").convert(mode)]])
    assert image.mode == "RGB"
    assert count(image, (0, 0, 0)) == 256 * 256


def test_labels_are_written_and_stay_in_their_column():
    rows = [[plain_image()] * 2]
    bare = sheet(rows)
    labelled = sheet(rows, ["x" * 400], ["base", "with the adapter"], "title")
    assert labelled.width > bare.width
    first = labelled.width - bare.width + 32  # left edge of the first image
    gap = labelled.crop((first - 8, 0, first, labelled.height)).convert("L")
    assert gap.crop((0, labelled.height // 2, 8, labelled.height)).getextrema() == (255, 255)
    assert labelled.convert("L").crop((0, 0, first - 8, labelled.height)).getextrema()[0] < 100


@pytest.mark.parametrize("label", ["é × – 猫 🐈 \u202e", "Ж" * 500, "<b>\x00", "", " \n "])
def test_any_text_is_a_label_and_covers_no_image(label):
    image = sheet([[plain_image()]], [label], [label], label)
    assert count(image, (255, 0, 0)) == 256 * 256
    pixels = image.width * image.height
    blank = count(image, (255, 255, 255)) + 256 * 256 == pixels
    assert blank == (not label.strip()), "whatever has letters is written"


def test_nothing_to_show_is_refused():
    for rows in ([], [[]]):
        with pytest.raises(ValueError, match="A grid needs at least one image"):
            sheet(rows)


def test_a_wrong_number_of_labels_is_refused():
    with pytest.raises(ValueError, match="A grid of 2 rows needs 2 row labels, got 1"):
        sheet([[plain_image()]] * 2, ["one"])


def test_a_no_break_space_holds_words_together_and_is_written_as_a_space():
    assert Lettering("a cat (seed\N{NO-BREAK SPACE}0)", 14, 60, 3).lines == ["a cat", "(seed 0)"]


def test_captions_are_written_below_their_images():
    rows = [[plain_image()] * 2, [plain_image()]]
    captioned = sheet(rows, captions=[["seed 1", "seed 2"], ["seed 3 " * 40]])
    bare = sheet(rows)
    assert captioned.width == bare.width
    assert captioned.height > bare.height
    assert count(captioned, (255, 0, 0)) == 3 * 256 * 256
    with pytest.raises(ValueError, match="one for each image"):
        sheet(rows, captions=[["seed 1", "seed 2"]])
