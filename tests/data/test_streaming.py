"""A dataset on the Hub is read row by row, no further than asked, and goes on where it stopped."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from PIL import Image

from hublora.data import Skipped, open_source
from hublora.data.stream_store import IMAGES, PROGRESS, ROWS
from hublora.errors import DataError, NotFoundError
from tests.data.images import png
from tests.data.tables import IMAGES as TYPES
from tests.data.tables import parquet, row


def white() -> bytes:
    file = io.BytesIO()
    Image.new("L", (48, 32), 255).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module", autouse=True)
def seeded(hub) -> None:
    """Put two repos on the session's Hub: a table in two files, and a folder of images."""
    tables = [
        parquet([row(4 * half + n, f"cap {4 * half + n}") for n in range(4)], **TYPES)
        for half in range(2)
    ]
    odd = [
        row(0, "a") | {"mask": {"bytes": white(), "path": "m.png"}},
        row(1, None) | {"mask": None},
        {"image": {"bytes": None, "path": "/etc/hostname"}, "text": "a", "mask": None},
        {"image": {"bytes": None, "path": "http://127.0.0.1/a.png"}, "text": "a", "mask": None},
        {"image": None, "text": "a", "mask": None},
        {"image": {"bytes": b"junk", "path": "junk.png"}, "text": "a", "mask": None},
    ]
    lines = (
        {"file_name": f"{n}.png", "mask_file_name": "white.png", "texts": [f"a {n}", "b"]}
        for n in range(3)
    )
    repos = {
        "me/streamed-table": {
            f"data/train-0000{n}-of-00002.parquet": t for n, t in enumerate(tables)
        },
        "me/streamed-odd": {"train.parquet": parquet(odd, **TYPES, mask="Image")},
        "me/streamed-folder": {
            "metadata.jsonl": "\n".join(map(json.dumps, lines)).encode(),
            "white.png": white(),
            **{f"{n}.png": png(n) for n in range(3)},
        },
    }
    api = HfApi()
    for repo, files in repos.items():
        api.create_repo(repo, repo_type="dataset")
        adding = [CommitOperationAdd(name, content) for name, content in files.items()]
        api.create_commit(repo, adding, commit_message="Add", repo_type="dataset")


@pytest.fixture
def read(configure):
    def stream(dataset, most, **settings):
        return open_source(
            configure(dataset=dataset, streaming=True, max_train_samples=most, **settings)
        )

    return stream


def stored_folder(tmp_path: Path) -> Path:
    [folder] = [path for path in (tmp_path / "cache" / "streams").iterdir() if path.is_dir()]
    return folder


@pytest.mark.parametrize(
    ("dataset", "settings"),
    [
        ("me/streamed-table", {}),
        ("me/streamed-folder", {}),
        ("me/streamed-folder", {"masks": True}),
        ("me/streamed-odd", {"masks": True, "mask_column": "mask", "default_caption": "x"}),
    ],
)
def test_it_is_what_a_download_gives(read, configure, dataset, settings):
    streamed = read(dataset, 100, **settings)
    whole = open_source(configure(dataset=dataset, **settings))
    assert streamed.revision == whole.revision
    assert [one.mask is not None for one in streamed.examples] == [
        one.mask is not None for one in whole.examples
    ]
    assert streamed.fingerprint == whole.fingerprint
    assert streamed.examples == whole.examples
    for ours, theirs in zip(streamed.examples, whole.examples, strict=True):
        assert ours.open().tobytes() == theirs.open().tobytes()


def test_no_more_is_read_than_asked_and_a_second_run_reads_nothing(read, tmp_path):
    source = read("me/streamed-table", 3)
    assert [one.captions for one in source.examples] == [(f"cap {n}",) for n in range(3)]
    assert source.notes == ["Streaming: at most the first 3 rows are used."]
    folder = stored_folder(tmp_path)
    assert (folder / IMAGES).stat().st_size == sum(len(png(n)) for n in range(3))
    before = (folder / PROGRESS).stat().st_mtime_ns
    assert read("me/streamed-table", 2).examples == source.examples[:2]
    assert read("me/streamed-table", 3).examples == source.examples
    assert (folder / PROGRESS).stat().st_mtime_ns == before


def test_what_was_stopped_goes_on_and_ends_in_the_same_bytes(read, tmp_path, configure):
    reported = []
    for most in (2, 5):
        read("me/streamed-table", most)
        folder = stored_folder(tmp_path)
        for name in (IMAGES, ROWS):  # as a process leaves it that was killed while writing
            with open(folder / name, "ab") as file:
                file.write(b"half a row")
    config = configure(dataset="me/streamed-table", streaming=True, max_train_samples=8)
    open_source(config, progress=lambda *counts: reported.append(counts))
    assert reported[0] == (6, 8), "the first five were there"
    whole = configure(
        dataset="me/streamed-table",
        streaming=True,
        max_train_samples=8,
        cache_dir=tmp_path / "whole" / "cache",
    )
    open_source(whole)
    for name in (IMAGES, ROWS):
        assert (folder / name).read_bytes() == (
            stored_folder(tmp_path / "whole") / name
        ).read_bytes()


def test_rows_that_cannot_be_used_are_named_and_nothing_else_is_opened(read):
    source = read("me/streamed-odd", 10)
    assert [one.name for one in source.examples] == ["row 0 (0.png)"]
    reasons = {one.name: one.reason for one in source.skipped}
    assert reasons.pop("row 5 (junk.png)") == "is not an image of a known format"
    assert reasons == {
        "row 1 (1.png)": "has no caption",
        "row 2 (hostname)": "is only a link (/etc/hostname)",
        "row 3 (a.png)": "is only a link (http://127.0.0.1/a.png)",
        "row 4": "is missing",
    }


def test_masks_are_streamed_too(read):
    source = read("me/streamed-odd", 10, masks=True, default_caption="x")
    assert [one.mask is not None for one in source.examples] == [True, False]
    assert Skipped("row 4", "is missing") in source.skipped


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"dataset": "me/streamed-none"}, NotFoundError, "me/streamed-none"),
        ({"split": "tset"}, DataError, r"no split 'tset'; choose from 'train'"),
        ({"caption_column": "txt"}, DataError, "no caption column 'txt'"),
    ],
)
def test_what_is_not_there_is_one_sentence(read, settings, error, said):
    with pytest.raises(error, match=said):
        read(**{"dataset": "me/streamed-table", "most": 3, **settings})


def test_a_flipped_byte_is_found_and_the_remedy_told(read, tmp_path):
    source = read("me/streamed-table", 2)
    folder = stored_folder(tmp_path)
    for name in (IMAGES, ROWS):
        content = (folder / name).read_bytes()
        flipped = bytearray(content)
        flipped[len(content) - 9] ^= 1
        (folder / name).write_bytes(flipped)
        use = source.examples[1].open if name == IMAGES else lambda: read("me/streamed-table", 2)
        with pytest.raises(DataError, match="damaged") as caught:
            use()
        assert f"hublora cache rm {folder.name[:12]}" in str(caught.value.hint)
        (folder / name).write_bytes(content)
