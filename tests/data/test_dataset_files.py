"""Files of a dataset that unpack to far more than their size are found without unpacking them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from hublora.data.dataset_files import MAX_RATIO, check_sizes
from hublora.errors import DataError
from tests.data.images import png
from tests.data.tables import IMAGES, parquet, row

SIZE, FREE = 16 << 20, 1 << 20
LINE = b'{"text": "' + b"a" * SIZE + b'"}'


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as writing:
        writing.writestr("a.jsonl", LINE)
    return file.getvalue()


def table(column: pyarrow.Array) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"a": column}), file, compression="zstd")
    return file.getvalue()


def lists() -> bytes:
    """Return a table whose rows are lists of one long text, which is stored once."""
    return table(pyarrow.array([["a" * (1 << 16)] * 8] * (SIZE >> 19)))


BOMBS: dict[str, Callable[[], bytes]] = {
    "images.parquet": lambda: parquet(
        [{"image": {"bytes": bytes(1 << 20), "path": "a"}, "text": "a"}] * (SIZE >> 20), **IMAGES
    ),
    "lists.parquet": lists,
    "numbers.parquet": lambda: table(pyarrow.array([0]).take(pyarrow.array([0] * (SIZE >> 3)))),
    "one-value.parquet": lambda: table(pyarrow.array(["a" * SIZE])),
    "train.zip": zipped,
    "train.jsonl.gz": lambda: gzip.compress(LINE),
    "train.jsonl.bz2": lambda: bz2.compress(LINE),
    "train.jsonl.xz": lambda: lzma.compress(LINE, preset=0),
    "train.jsonl.zst": lambda: pyarrow.compress(LINE, "zstd", asbytes=True),
    "gzip-by-content.jsonl": lambda: gzip.compress(LINE),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BOMBS[name]())
    assert path.stat().st_size * MAX_RATIO < SIZE
    tracemalloc.start()
    with pytest.raises(DataError, match=f"The file {name} of the dataset me/a unpacks to over"):
        check_sizes("me/a", [path], FREE)
    assert tracemalloc.get_traced_memory()[1] < SIZE
    tracemalloc.stop()


def test_ordinary_and_damaged_files_pass(tmp_path: Path) -> None:
    ordinary = parquet([row(n, f"a caption {n}") for n in range(3)], **IMAGES)
    contents = {
        "a.parquet": ordinary,
        "cut.parquet": ordinary[:-9],
        "cut.zip": zipped()[:-99],
        "cut.gz": gzip.compress(b"abc")[:-6],
        "cut.zst": pyarrow.compress(b"abc" * 9, "zstd", asbytes=True)[:-3],
        "a.png": png(0),
        "empty.csv": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    check_sizes("me/a", sorted(tmp_path.iterdir()), FREE)
