"""Folders' names say how often images are repeated."""

from __future__ import annotations

import pytest

from hublora.data import open_source
from hublora.errors import DataError
from tests.data.images import noise_image


@pytest.fixture
def shelf(tmp_path):
    """Put one image into each folder; the first one has a caption of its own."""

    def make(*names):
        for number, name in enumerate(names):
            (tmp_path / "all" / name).mkdir(parents=True, exist_ok=True)
            noise_image(number).save(tmp_path / "all" / name / f"{number}.png")
        (tmp_path / "all" / names[0] / "0.txt").write_text("mine")
        return tmp_path / "all"

    return make


def repeats(source):
    return [(one.repeats, one.captions[0]) for one in source.examples]


def test_kohyas_folders_are_repeats_and_captions_and_the_log_says_so(shelf, configure):
    folder = shelf("10_sks dog", "1_dog", "10_sks dog")
    source = open_source(configure(folder=folder))
    assert repeats(source) == [(10, "mine"), (10, "sks dog"), (1, "dog")]
    assert source.notes == [
        "Images are repeated by their folders' names: '10_sks dog' (2), '1_dog' (1)",
        "2 images without a caption get their folder's name",
    ]
    assert repeats(open_source(configure(folder=folder, repeats=3))) == [
        (30, "mine"),
        (30, "sks dog"),
        (3, "dog"),
    ]
    apart = open_source(configure(folder=folder, folder_repeats=False))
    assert repeats(apart) == [(1, "mine")]


@pytest.mark.parametrize(
    "names", [("10_dog", "."), ("2023_summer",), ("01_a", "02_b"), ("10-dog",), ("dog",), (".",)]
)
def test_other_names_are_names(shelf, configure, names):
    source = open_source(configure(folder=shelf(*names), default_caption="x"))
    assert {one.repeats for one in source.examples} == {1}
    assert source.notes == []


def test_numbered_folders_are_asked_about(shelf, configure):
    folder = shelf("1_a", "2_b")
    source = open_source(configure(folder=folder, default_caption="x"))
    assert [one.repeats for one in source.examples] == [1, 1]
    assert "--set data.folder_repeats=true" in source.notes[0]
    asked = open_source(configure(folder=folder, folder_repeats=True))
    assert repeats(asked) == [(1, "mine"), (2, "b")]
    given = open_source(configure(folder=folder, folder_repeats=True, default_caption="x"))
    assert repeats(given) == [(1, "mine"), (2, "x")]


def test_repeats_that_are_asked_for_must_be_there(shelf, configure):
    with pytest.raises(DataError, match="no folder has a name such as"):
        open_source(configure(folder=shelf("dog"), folder_repeats=True))
