"""The first rows of a dataset on the Hub that is too large to download, read into the cache.

    <cache>/streams/<key>.lock            held while reading
    <cache>/streams/<key>/pictures.bin    encoded pictures and masks, end to end
    <cache>/streams/<key>/rows.jsonl      name, captions and places of each row
    <cache>/streams/<key>/progress.json   how much of both is on the disk, and where the stream is

Whatever lies beyond what `progress.json` says is cut off before reading goes on. A later call that
wants more rows goes on too; one that wants fewer takes the first ones. No code of the dataset's own
is ever run.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hublora.data.config import DataConfig
from hublora.data.examples import Example, Listing
from hublora.data.folder import as_captions
from hublora.data.hub_columns import Columns, choose_columns
from hublora.data.hub_dataset import builder_of, digest_of, in_sentences, license_of, row_name
from hublora.data.rows import SECONDS_BETWEEN_SYNCS, explained
from hublora.errors import DataError, HubError
from hublora.filesystem import write_atomically
from hublora.hub.layout import CARD

if TYPE_CHECKING:
    from hublora.hub.resolve import RepoSnapshot

PICTURES, ROWS, PROGRESS = "pictures.bin", "rows.jsonl", "progress.json"
MOST_BYTES = 256 << 20  # of one encoded picture
_SMALL = 1 << 20

Tell = Callable[[int, int], None]
Place = tuple[int, int] | None  # first byte and length


def list_stream(config: DataConfig, tell: Tell | None = None) -> Listing:
    """Return the first `max_train_samples` rows of a Hub dataset, reading those that are missing.

    Args:
        config: Which dataset, and how many rows.
        tell: Told (done, total) in rows.

    Raises:
        DataError: It has no such configuration, split or column, or no pictures; the disk is full.
        NotFoundError: No such dataset or revision.
        AccessError: The token may not read it.
        HubError: The Hub is away; what was read stays, and the next call goes on.
    """
    from huggingface_hub.utils import WeakFileLock

    from hublora.hub.resolve import inspect_repo

    assert config.dataset is not None
    assert config.max_train_samples is not None
    snapshot = inspect_repo(config.dataset, "dataset", config.revision)
    folder = config.cache_root / "streams" / _key(config, snapshot.commit)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = WeakFileLock(folder.with_name(folder.name + ".lock"))
    with lock:
        progress = _load(folder / PROGRESS)
        if not progress.get("ended") and progress.get("rows", 0) < config.max_train_samples:
            _check_online(config, progress)
            progress = _read_on(config, snapshot.commit, folder, progress, tell)
            _keep_card(config, snapshot)
    columns = Columns(**progress["columns"])
    return Listing(
        id=config.dataset,
        revision=snapshot.commit,
        license=license_of(snapshot.card),
        image_column=columns.image,
        caption_column=columns.caption,
        digest=digest_of(config, snapshot.commit, columns),
        mask_digest=columns.mask or "",
        examples=list(_examples(folder, min(progress["rows"], config.max_train_samples))),
        notes=[f"Streamed: the first {config.max_train_samples} rows at most are taken."],
    )


def _check_online(config: DataConfig, progress: Mapping[str, Any]) -> None:
    """Check that there is a Hub to read from.

    Raises:
        HubError: There is not.
    """
    from hublora.hub.client import is_offline

    if is_offline():
        raise HubError(
            f"{progress.get('rows', 0)} of {config.max_train_samples} rows of {config.dataset} are "
            "in the cache, and HF_HUB_OFFLINE is set.",
            "Unset HF_HUB_OFFLINE once to read them, or lower --max-train-samples.",
        )


def _keep_card(config: DataConfig, snapshot: RepoSnapshot) -> None:
    """Download the smallest file, the card if there is one, so that the repo is known offline."""
    from huggingface_hub import hf_hub_download

    sizes = {name: size for name, size in snapshot.files.items() if size is not None}
    name = CARD if CARD in sizes else min(sizes, key=lambda name: sizes[name], default=None)
    if name is not None and sizes[name] < _SMALL:
        with in_sentences(config, snapshot.commit):
            hf_hub_download(snapshot.repo_id, name, repo_type="dataset", revision=snapshot.commit)


def _read_on(
    config: DataConfig, commit: str, folder: Path, progress: Mapping[str, Any], tell: Tell | None
) -> dict[str, Any]:
    """Read rows from where an earlier process stopped; return the new progress."""
    done, limit = progress.get("rows", 0), int(config.max_train_samples or 0)
    with in_sentences(config, commit):
        stream, columns = _open_stream(config, commit)
        if done:
            stream.load_state_dict(progress["state"])
        with _Shelf(folder, progress) as shelf:
            synced = time.monotonic()
            for row in islice(stream, limit - done):
                opens = partial(_content, config, commit)
                shelf.add(done, row, columns, opens)
                done += 1
                if tell:
                    tell(done, limit)
                if time.monotonic() - synced > SECONDS_BETWEEN_SYNCS:
                    shelf.note(done, columns, stream.state_dict(), ended=False)
                    synced = time.monotonic()
            return shelf.note(done, columns, stream.state_dict(), ended=done < limit)


def _open_stream(config: DataConfig, commit: str) -> tuple[Any, Columns]:
    """Return the rows of the split, undecoded, with the columns that are read."""
    stream = builder_of(config, commit).as_streaming_dataset(split=config.split)
    if stream.features is None:
        stream = stream._resolve_features()  # of formats that say their types with the first row
    columns = choose_columns(config, stream.features or {})
    wanted = [name for name in asdict(columns).values() if name is not None]
    return stream.decode(False).select_columns(wanted), columns


class _Shelf:
    """Appends rows to a folder.

    Args:
        folder: Where.
        progress: What of it can be kept; the rest is cut off.
    """

    def __init__(self, folder: Path, progress: Mapping[str, Any]) -> None:
        self.folder = folder
        with explained(folder):
            self._pictures = _open_at(folder / PICTURES, progress.get("pictures", 0))
            self._rows = _open_at(folder / ROWS, progress.get("lines", 0))

    def __enter__(self) -> _Shelf:
        return self

    def __exit__(self, *_: object) -> None:
        self._pictures.close()
        self._rows.close()

    def add(
        self, number: int, row: Mapping[str, Any], columns: Columns, content: Callable[..., bytes]
    ) -> None:
        """Append a row; a picture that is not there is noted as missing."""
        cell = row[columns.image] or {}
        record: dict[str, Any] = {"name": row_name(number, cell.get("path"))}
        record["captions"] = as_captions(row[columns.caption]) if columns.caption else ()
        for kind, name in (("image", columns.image), ("mask", columns.mask)):
            if name is None or (kind == "mask" and not row[name]):
                continue
            try:
                record[kind] = self._append(content(row[name]))
            except DataError as error:
                record[kind] = error.message
        with explained(self.folder):
            self._rows.write(json.dumps(record).encode() + b"\n")

    def note(
        self, done: int, columns: Columns, state: Mapping[str, Any], ended: bool
    ) -> dict[str, Any]:
        """Bring everything to the disk, then say so; return what is said."""
        with explained(self.folder):
            for file in (self._pictures, self._rows):
                file.flush()
                os.fsync(file.fileno())
            record = {
                "rows": done,
                "pictures": self._pictures.tell(),
                "lines": self._rows.tell(),
                "columns": asdict(columns),
                "ended": ended,
                "state": state,
            }
            write_atomically(self.folder / PROGRESS, json.dumps(record))
        return record

    def _append(self, content: bytes) -> Place:
        with explained(self.folder):
            start = self._pictures.tell()
            self._pictures.write(content)
        return start, len(content)


def _open_at(path: Path, size: int) -> IO[bytes]:
    """Open a file for appending after its first `size` bytes; the rest is cut off."""
    path.touch()
    file = path.open("r+b")
    file.truncate(size)
    file.seek(size)
    return file


def _content(config: DataConfig, commit: str, cell: Mapping[str, Any] | None) -> bytes:
    """Return the encoded picture of a cell.

    Raises:
        DataError: There is none, it is too large, or the cell points at a file that is not part
            of the dataset; the message is a clause.
    """
    cell = cell or {}
    content, path = cell.get("bytes"), cell.get("path")
    if content is None:
        if not path:
            raise DataError("is missing")
        content = _download(config, commit, path)
    if len(content) > MOST_BYTES:
        raise DataError(f"is larger than {MOST_BYTES >> 20} MiB")
    return content


def _download(config: DataConfig, commit: str, path: str) -> bytes:
    """Return the content of a file of the dataset, also of one inside an archive of it.

    A row is data: any other path could be a file of this computer or an address in its network.
    """
    from datasets.utils.file_utils import xopen

    archive, _, container = path.rpartition("::")
    inside = container.startswith(f"hf://datasets/{config.dataset}@{commit}/")
    if not inside or ".." in container or not (not archive or archive.startswith("zip://")):
        raise DataError(f"is only a link ({path[:200]})")
    with xopen(path, "rb") as file:
        content: bytes = file.read(MOST_BYTES + 1)
    return content


def _examples(folder: Path, count: int) -> Iterator[Example]:
    with open(folder / ROWS, "rb") as lines:
        for line in islice(lines, count):
            row = json.loads(line)
            mask = row.get("mask")
            yield Example(
                row["name"],
                tuple(row["captions"]),
                partial(_open, folder, row["image"]),
                mask=partial(_open, folder, mask) if mask is not None else None,
            )


def _open(folder: Path, place: tuple[int, int] | str) -> IO[bytes]:
    """Open a picture that was read; `place` says why where it was not.

    Raises:
        DataError: It was not; the message is a clause.
    """
    if isinstance(place, str):
        raise DataError(place)
    start, length = place
    with open(folder / PICTURES, "rb") as file:
        file.seek(start)
        return io.BytesIO(file.read(length))


def _key(config: DataConfig, commit: str) -> str:
    parts = (
        *(config.dataset, commit, config.config_name, config.split, config.image_column),
        *(config.caption_column, config.default_caption is None, config.masks, config.mask_column),
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _load(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
