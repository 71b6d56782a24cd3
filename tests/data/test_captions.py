"""Captions are made clean, and the long ones are counted."""

from __future__ import annotations

import pytest

from hublora.data.captions import clean, count_truncated, truncation_note


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  a  cat\n on\ta mat \r\n", "a cat on a mat"),
        ("\ufeffa cat", "a cat"),
        ("a\u00a0cat\u2028sits", "a cat sits"),
        ("a\x00 cat\x1b[31m", "a cat[31m"),
        ("ein Kätzchen 👩‍🎨", "ein Kätzchen 👩‍🎨"),
        ("", ""),
    ],
)
def test_captions_are_cleaned(raw, expected):
    assert clean(raw) == expected


def test_long_captions_are_counted_and_measured_once():
    measured = []

    def count_tokens(texts):
        measured.extend(texts)
        return [len(text.split()) + 2 for text in texts]

    captions = ["a b", "a b c d", "a b c d", "a b c"]
    assert count_truncated(captions, count_tokens, 5, batch_size=2) == 2
    assert measured == ["a b", "a b c d", "a b c"]


def test_the_log_says_how_many_are_cut():
    assert truncation_note(0, 48, 77) is None
    assert (
        truncation_note(1, 48, 77)
        == "1 of 48 captions is longer than 77 tokens and will be truncated"
    )
    assert truncation_note(3, 48, 77).startswith("3 of 48 captions are longer")
