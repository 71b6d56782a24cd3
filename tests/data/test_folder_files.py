"""The part of a folder that is trained on, and what is left out."""

from __future__ import annotations

import json
import os

import pytest

from hublora.data import Skipped, open_source, open_uncaptioned
from hublora.errors import DataError


def names(source):
    return [example.name for example in source.examples]


@pytest.fixture
def fill(make_image, tmp_path):
    """Make images with captions under the given paths in a folder."""

    def make(*paths):
        folder = tmp_path / "toys"
        for number, name in enumerate(paths):
            path = folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            make_image(number).save(path)
            path.with_suffix(".txt").write_text(f"image {number}")
        return folder

    return make


def test_a_train_beside_other_subjects_is_one_of_them(fill, configure):
    source = open_source(configure(folder=fill("train/a", "car/b", "plane/c")))
    assert names(source) == ["car/b.png", "plane/c.png", "train/a.png"]
    assert "train/ is no split, since beside it are car/, plane/" in source.notes[0]


def test_images_beside_train_are_used_too(fill, configure):
    source = open_source(configure(folder=fill("train/a", "b")))
    assert names(source) == ["b.png", "train/a.png"]
    assert "beside it are images" in source.notes[0]


def test_other_splits_are_left_out_and_counted(fill, configure):
    folder = fill("train/a", "validation/b", "validation/c", "test/d")
    source = open_source(configure(folder=folder))
    assert names(source) == ["a.png"]
    assert source.notes == ["Images are those of train/; left out: 1 in test/, 2 in validation/"]
    assert names(open_source(configure(folder=folder, split="validation"))) == ["b.png", "c.png"]


@pytest.mark.parametrize("split", ["test", "train[:1]"])
def test_a_split_without_a_subfolder_is_refused(fill, configure, split):
    with pytest.raises(DataError, match=r"toys has no subfolder .* it has 'train', 'validation'"):
        open_source(configure(folder=fill("train/a", "validation/b"), split=split))


@pytest.mark.parametrize("prefix", ["train/", ""])
def test_metadata_beside_train_is_read(fill, configure, prefix):
    folder = fill("train/a", "validation/b")
    rows = [{"file_name": f"{prefix}a.png", "text": "a dragon"}]
    rows += [{"file_name": "validation/b.png", "text": "a knight"}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = open_source(configure(folder=folder))
    assert [(one.name, one.captions) for one in source.examples] == [("train/a.png", ("a dragon",))]
    assert source.skipped == []


def test_two_files_of_metadata_that_name_one_image_are_refused(fill, configure):
    folder = fill("a", "b")
    (folder / "metadata.csv").write_text("file_name,text\na.png,x\n")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": "x"}))
    with pytest.raises(DataError, match=r"a\.png is named in metadata\.csv and in metadata\.jsonl"):
        open_source(configure(folder=folder))
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "b.png", "text": "x"}))
    assert names(open_source(configure(folder=folder))) == ["a.png", "b.png"]


def test_linked_subfolders_are_told(fill, configure, tmp_path):
    folder = fill("a")
    (tmp_path / "more").mkdir()
    os.symlink(tmp_path / "more", folder / "linked")
    source = open_source(configure(folder=folder))
    reason = "is a link to a folder; to use its images, copy them"
    assert source.skipped == [Skipped("linked/", reason)]


def test_a_link_to_itself_is_named(fill, configure):
    folder = fill("a")
    os.symlink("loop.png", folder / "loop.png")
    with pytest.raises(DataError, match=r"loop\.png is a link to itself"):
        open_source(configure(folder=folder))


def test_a_snapshot_of_the_cache_is_a_folder(fill, configure, tmp_path):
    images = fill("a", "b")
    repo = tmp_path / "hub" / "datasets--me--files"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    images.rename(repo / "blobs")
    for path in (repo / "blobs").iterdir():
        os.symlink(f"../../blobs/{path.name}", snapshot / path.name)
    assert names(open_source(configure(folder=snapshot))) == ["a.png", "b.png"]
    os.symlink("/etc/hostname", snapshot / "c.png")
    with pytest.raises(DataError, match=r"c\.png is a link that leads out"):
        open_source(configure(folder=snapshot))


def test_images_of_a_class_are_all_that_decode(fill, configure):
    folder = fill("train/a", "b", "c")
    (folder / "b.png").write_bytes(b"")
    (folder / "c.txt").write_bytes(b"\xff")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "c.png", "text": "x"}))
    source = open_uncaptioned(folder, "a toy", configure())
    assert [(one.name, one.captions) for one in source.examples] == [
        ("c.png", ("a toy",)),
        ("train/a.png", ("a toy",)),
    ]
    assert source.skipped == [Skipped("b.png", "is empty (0 bytes)")]
