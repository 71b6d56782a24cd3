"""Docstring entries that say nothing are found, and those that say something are not."""

from __future__ import annotations

import pytest

from tools.check_docstrings import empty_entries

CLASS = '''
class Crop:
    """A part of an image.

    Attributes:
        size: {}
    """
'''
FUNCTION = '''
def cut(size):
    """Return a part of an image.

    Args:
        size: {}

    Raises:
        ValueError: What is wrong here is none of the check's business.
    """
'''


@pytest.mark.parametrize("source", [CLASS, FUNCTION])
@pytest.mark.parametrize(
    "text", ["It.", "The same.", "Of the image.", "Of each.", "What is cut.", "As above.", "Its."]
)
def test_an_entry_without_content_is_found(source: str, text: str) -> None:
    assert list(empty_entries(source.format(text))) == [(2, f"size: {text}")]


@pytest.mark.parametrize("source", [CLASS, FUNCTION])
@pytest.mark.parametrize(
    "text", ["(h, w) in pixels.", "Images, at least 1.", "Items.", "As for `load`."]
)
def test_an_entry_with_content_is_not(source: str, text: str) -> None:
    assert not list(empty_entries(source.format(text)))


def test_lines_that_continue_an_entry_are_not_entries() -> None:
    source = FUNCTION.format("(h, w) in pixels, as in\n            note: What follows.")
    assert not list(empty_entries(source))
