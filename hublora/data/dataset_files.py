"""Checks the files of a Hub dataset before `datasets` opens them.

A dataset is untrusted: its metadata may name addresses and files outside of it, and small files may
unpack to any size. What is counted here is counted without taking the memory that it counts.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.data.folder_files import ENDINGS
from hublora.errors import DataError
from hublora.strict_yaml import Limits, YamlError, loads, split_front_matter

if TYPE_CHECKING:
    from hublora.hub.resolve import RepoSnapshot

MAX_RATIO = 200  # of unpacked to packed bytes; images hardly shrink, and captions less than this
FREE_OF_RATIO = 128 << 20  # unpacked bytes of a file up to which any ratio is harmless
STREAMED_ROWS = 16  # rows of a table that are decoded at a time while streaming
_BLOCK = 1 << 20
_ROWS = 1024  # rows of a table that are counted at a time
# Files of a repo that `datasets` reads its configurations from.
_METADATA = ("README.md", ".huggingface.yaml")
_LIMITS = Limits(characters=4 << 20, nodes=200_000, depth=48)  # it may list thousands of classes


def download_file(snapshot: RepoSnapshot, name: str) -> Path:
    """Return a file of a dataset repo in the cache that `datasets` uses, too.

    Raises:
        Exception: As `huggingface_hub.hf_hub_download`.
    """
    from huggingface_hub import hf_hub_download

    from hublora.hub.transport import repeated

    return Path(
        repeated(
            lambda: hf_hub_download(
                snapshot.repo_id, name, repo_type="dataset", revision=snapshot.commit
            )
        )
    )


def check_named_files(snapshot: RepoSnapshot) -> None:
    """Check that a dataset's metadata names only files of its own repo.

    Raises:
        DataError: It names an address or another place, or cannot be read.
    """
    for name in _METADATA:
        if name not in snapshot.files:
            continue
        text = download_file(snapshot, name).read_text(encoding="utf-8", errors="replace")
        try:
            yaml = split_front_matter(text)[0] if name.endswith(".md") else text
            values = loads(yaml, _LIMITS)
        except YamlError as error:
            raise DataError(
                f"The metadata in {name} of the dataset {snapshot.repo_id} cannot be read: {error}."
            ) from error
        for foreign in _foreign_paths(values):
            raise DataError(
                f"The dataset {snapshot.repo_id} names a file outside of itself in {name}: "
                f"{foreign[:200]!r}. Only files of the dataset are read.",
                "Ask its author to add the file to the dataset, or download it yourself and use "
                "--folder.",
            )


def _foreign_paths(values: Any) -> Iterator[str]:
    """Yield the paths in `configs` that leave the repo."""
    configs = values.get("configs") if isinstance(values, dict) else None
    for config in configs if isinstance(configs, list) else []:
        if isinstance(config, dict):
            for key in ("data_files", "data_dir"):
                yield from filter(_leaves, _texts(config.get(key)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(one)


def _leaves(path: str) -> bool:
    parts = path.replace("\\", "/").split("/")
    return "::" in path or ":/" in path or path.startswith(("/", "~")) or ".." in parts


def check_sizes(dataset: str, files: Iterable[Path], free: int = FREE_OF_RATIO) -> None:
    """Check that none of a dataset's downloaded files unpacks to far more than its own size.

    Args:
        dataset: Repo id, for the message.
        files: Files of the dataset.
        free: Unpacked bytes of a file up to which any ratio is harmless.

    Raises:
        DataError: One does, or states more values than its size allows.
    """
    for file in files:
        if file.suffix.lower() not in ENDINGS:
            count = _counter_of(file)
            limit = max(free, file.stat().st_size * MAX_RATIO)
            if count and _exceeds(count(file), limit):
                raise too_large(dataset, file.name, limit)


def check_stream(snapshot: RepoSnapshot, files: Iterable[str], rows: int) -> None:
    """Check the tables of a dataset that are to be streamed, by their footers.

    Args:
        snapshot: Dataset at a commit.
        files: Paths in the repo, in the order in which they are read.
        rows: Rows that are read; tables after them are not checked.

    Raises:
        DataError: A table states far more bytes than its own size.
        Exception: As `huggingface_hub.HfFileSystem`.
    """
    import pyarrow.parquet
    from huggingface_hub import HfFileSystem

    system = HfFileSystem()
    for name in files:
        if rows <= 0:
            return
        if not name.endswith(".parquet"):
            continue
        path = f"datasets/{snapshot.repo_id}@{snapshot.commit}/{name}"
        with system.open(path, block_size=_BLOCK) as opened:
            limit = max(FREE_OF_RATIO, opened.size * MAX_RATIO)
            metadata = pyarrow.parquet.ParquetFile(opened).metadata
            if max(stated_sizes(metadata), default=0) > limit:
                raise too_large(snapshot.repo_id, name, limit)
            rows -= metadata.num_rows


def too_large(dataset: str, name: str, limit: int) -> DataError:
    """Return the error for a file that unpacks to more than `limit` bytes."""
    return DataError(
        f"The file {name} of the dataset {dataset} unpacks to over {limit >> 20} MiB, more than "
        f"{MAX_RATIO} times its size.",
        "If you trust it, unpack it yourself and use --folder.",
    )


def _exceeds(sizes: Iterable[int], limit: int) -> bool:
    total = 0
    for size in sizes:
        total += size
        if total > limit:
            return True
    return False


Counter = Callable[[Path], Iterator[int]]


def _counter_of(file: Path) -> Counter | None:
    """Return what counts the unpacked bytes of a file, chosen by its first bytes."""
    with open(file, "rb") as opened:
        head = opened.read(6)
    return next((count for magic, count in _COUNTERS.items() if head.startswith(magic)), None)


def _count_zip(file: Path) -> Iterator[int]:
    try:
        with zipfile.ZipFile(file) as opened:
            # `ZipFile` reads no more of an entry than is stated.
            yield from (entry.file_size for entry in opened.infolist())
    except zipfile.BadZipFile:
        return  # left to `datasets` to refuse


def _count_packed(open_packed: Callable[..., Any]) -> Counter:
    def count(file: Path) -> Iterator[int]:
        try:
            with open_packed(file) as unpacked:
                while block := unpacked.read(_BLOCK):
                    yield len(block)
        except (OSError, EOFError, lzma.LZMAError):
            return  # damaged: left to `datasets` to refuse

    return count


def _count_zstd(file: Path) -> Iterator[int]:
    import pyarrow

    try:
        with pyarrow.CompressedInputStream(pyarrow.OSFile(str(file)), "zstd") as unpacked:
            while block := unpacked.read(_BLOCK):
                yield len(block)
    except OSError:
        return  # damaged: left to `datasets` to refuse


def _count_parquet(file: Path) -> Iterator[int]:
    """Yield the sizes of a table's values: what is stated first, then what repeated values take.

    Equal values are stored once, as a dictionary, and are read as one here.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
        yield max(stated_sizes(table.metadata), default=0)
        names = [
            column.path
            for column in map(table.schema.column, range(table.metadata.num_columns))
            if column.physical_type == "BYTE_ARRAY"
        ]
        folded = pyarrow.parquet.ParquetFile(file, read_dictionary=names)
        for batch in folded.iter_batches(_ROWS):
            yield sum(map(_byte_size, batch.columns))
    except pyarrow.ArrowException:
        return  # damaged: left to `datasets` to refuse


def stated_sizes(metadata: Any) -> Iterator[int]:
    """Yield the bytes that each row group of a parquet file takes, by what its footer states.

    Values of text and bytes count as they are stored, others at 8 bytes each.
    """
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(index) for index in range(group.num_columns)]
        yield sum(one.total_uncompressed_size + 8 * one.num_values for one in columns)


def _byte_size(array: Any) -> int:
    """Return the bytes of an Arrow array whose dictionaries are written out."""
    import pyarrow
    import pyarrow.compute

    kind = array.type
    if pyarrow.types.is_dictionary(kind):
        lengths = pyarrow.compute.binary_length(array.dictionary)
        taken = pyarrow.compute.take(lengths, array.indices)
        return pyarrow.compute.sum(taken.cast("int64")).as_py() or 0
    if pyarrow.types.is_struct(kind):
        return sum(map(_byte_size, array.flatten()))
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        return _byte_size(array.flatten())
    return int(array.nbytes)


_COUNTERS: Mapping[bytes, Counter] = {
    b"PAR1": _count_parquet,
    b"PK\x03\x04": _count_zip,
    b"\x1f\x8b": _count_packed(gzip.open),
    b"BZh": _count_packed(bz2.open),
    b"\xfd7zXZ\x00": _count_packed(lzma.open),
    b"\x28\xb5\x2f\xfd": _count_zstd,
}
