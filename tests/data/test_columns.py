"""The columns with images and captions are found, or asked for by name."""

from __future__ import annotations

import pytest

from hublora.data.columns import find_caption_column, find_image_column, has_tags
from hublora.errors import DataError

VALUES = {
    "artist": ["Ada", "Ada", "Bo", "Cy", "Di"],
    "image_name": ["a.png", "b.png"],
    "width": ["512", "640"],
    "tags": [["1girl", "red"], None],
}


def find(wanted, texts, columns=None):
    return find_caption_column(
        wanted, texts, columns or texts, "It", lambda name: VALUES.get(name, ["x" * 60])
    )


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["text"], "text"),
        (["prompt", "caption"], "caption"),
        (["id", "url", "Caption"], "Caption"),
        (["url", "blip_caption"], "blip_caption"),
        (["url", "short", "llava_text"], "llava_text"),
        (["artist", "captionText"], "captionText"),
        (["negative_prompt", "caption_2"], "caption_2"),
        (["__key__", "__url__", "txt"], "txt"),
    ],
)
def test_captions_are_found_by_name(columns, expected):
    assert find(None, columns) == expected


@pytest.mark.parametrize(
    "column",
    ["artist", "image_name", "width", "tags", "title", "context", "negative_prompt", "aesthetics"],
)
def test_a_column_is_no_caption_unless_its_name_says_so(column):
    with pytest.raises(DataError, match=r"It has no column whose name says caption\.") as caught:
        find(None, [column])
    assert f"--caption-column {column}" in caught.value.hint


def test_three_values_of_each_candidate_are_shown():
    with pytest.raises(DataError) as caught:
        find(None, ["artist", "image_name", "tags", "long"])
    assert caught.value.message == (
        "It has no column whose name says caption. Columns with text are "
        "'artist': 'Ada', 'Bo', 'Cy'; 'image_name': 'a.png', 'b.png'; 'tags': '1girl, red'; "
        f"'long': '{'x' * 39}…'."
    )


def test_a_table_without_text_lists_its_columns():
    with pytest.raises(DataError, match="no column with captions, only 'image', 'md5'"):
        find(None, [], ["image", "md5"])


def test_unknown_column_lists_those_there_are_and_the_nearest():
    with pytest.raises(DataError) as caught:
        find("captoin", ["text", "caption"], ["image", "text", "caption"])
    assert caught.value.message == "It has no caption column 'captoin'; it has 'text', 'caption'."
    assert caught.value.hint == "Name one with --caption-column caption."


def test_a_named_column_without_text_is_said_to_have_none():
    with pytest.raises(DataError, match="The column 'label' of It has no text"):
        find("label", [], ["image", "label"])


@pytest.mark.parametrize(
    ("column", "expected"),
    [("tags", True), ("wd_tags", True), ("Keywords", True), ("captions", False), (None, False)],
)
def test_lists_of_tags_are_told_from_lists_of_captions(column, expected):
    assert has_tags(column) is expected


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
