"""The columns with images and captions are found, or asked for by name."""

from __future__ import annotations

import pytest

from hublora.data.columns import find_caption_column, find_image_column
from hublora.errors import DataError


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["text"], "text"),
        (["prompt", "caption"], "caption"),
        (["id", "url", "Caption"], "Caption"),
        (["url", "blip_caption"], "blip_caption"),
        (["url", "short", "llava_text"], "llava_text"),
        (["file_name", "what_it_shows"], "what_it_shows"),
        (["__key__", "__url__", "txt"], "txt"),
    ],
)
def test_captions_are_found_by_name(columns, expected):
    assert find_caption_column(None, columns, columns, "It") == expected


def test_addresses_and_hashes_are_not_taken_for_captions():
    with pytest.raises(DataError, match="no column with captions, only 'image', 'url', 'md5'"):
        find_caption_column(None, ["url", "md5"], ["image", "url", "md5"], "It")


def test_unknown_column_lists_those_there_are_and_the_nearest():
    with pytest.raises(DataError) as caught:
        find_caption_column("captoin", ["text", "caption"], ["image", "text", "caption"], "It")
    assert caught.value.message == "It has no caption column 'captoin'; it has 'text', 'caption'."
    assert caught.value.hint == "Name one with --caption-column caption."


def test_images_are_found_by_type_then_name():
    assert find_image_column(None, ["photo_of_it"], ["text", "photo_of_it"], "It") == "photo_of_it"
    assert find_image_column(None, ["mask", "image"], ["mask", "image"], "It") == "image"


def test_several_image_columns_must_be_chosen_from():
    with pytest.raises(DataError, match="several columns with images: 'left', 'right'"):
        find_image_column(None, ["left", "right"], ["left", "right"], "It")
    assert find_image_column("right", ["left", "right"], ["left", "right"], "It") == "right"


def test_a_table_without_images_is_refused():
    with pytest.raises(DataError, match="no column with images, only 'text'"):
        find_image_column(None, [], ["text"], "It")
