"""Streams the first rows of a large Hub dataset into the cache.

    <cache>/streams/<key>.lock   locked while reading
    <cache>/streams/<key>/       rows in the files of `hublora.data.stream_store`

A call for more rows than are cached continues where the last one stopped; a call for fewer uses the
first ones. Code in the dataset's repo is never run.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.data.captions import as_captions
from hublora.data.columns import Columns, choose_columns, has_tags
from hublora.data.config import DataConfig
from hublora.data.dataset_files import STREAMED_ROWS, check_stream
from hublora.data.examples import Listing
from hublora.data.hub_dataset import builder_of, listing_of, named_files, translated_errors
from hublora.data.hub_pairs import has_pairs
from hublora.data.row_file import SECONDS_BETWEEN_SYNCS, translated_disk_errors
from hublora.data.stream_store import Content, RowStore, read_progress, stored_examples
from hublora.data.table_rows import row_name
from hublora.errors import DataError, HubError
from hublora.hub.repo_layout import CARD

if TYPE_CHECKING:
    from hublora.hub.resolve import RepoSnapshot

# Increased whenever the format of the written files changes.
FORMAT = 3
MAX_BYTES = 256 << 20  # of one encoded image
_SMALL = 1 << 20
_VALUES = 10  # rows that are read for an example of a column's values

Count = Callable[[int, int], None]


def list_stream(config: DataConfig, report: Count | None = None) -> Listing:
    """Return the first `max_train_samples` rows of a Hub dataset, reading those not yet cached.

    Args:
        config: Dataset, revision, columns and number of rows.
        report: Called with (done, total) in rows.

    Raises:
        DataError: The configuration, split or column does not exist; there are no images; or the
            disk is full.
        NotFoundError: The dataset or revision does not exist.
        AccessError: The token may not read the dataset.
        HubError: The Hub cannot be reached; the rows that were read stay in the cache.
    """
    from huggingface_hub.utils import WeakFileLock

    from hublora.hub.resolve import inspect_repo
    from hublora.refs import parse_repo_id, parse_revision

    assert config.dataset is not None
    assert config.max_train_samples is not None
    snapshot = inspect_repo(
        parse_repo_id(config.dataset),
        "dataset",
        parse_revision(config.revision) if config.revision else None,
    )
    if has_pairs(snapshot):
        raise DataError(
            f"The dataset {config.dataset} has a .txt beside each image, which is not streamed.",
            "Leave out --streaming.",
        )
    folder = config.cache_root / "streams" / _key(config, snapshot.commit)
    with translated_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(folder.with_name(folder.name + ".lock")):
        progress = read_progress(folder)
        if not progress.get("ended") and progress.get("rows", 0) < config.max_train_samples:
            _check_online(config, progress)
            progress = _read_on(config, snapshot, folder, progress, report)
            _cache_card(config, snapshot)
    columns = Columns(**{**progress["columns"], "references": ()})
    return listing_of(
        config,
        snapshot,
        columns,
        list(stored_examples(folder, min(progress["rows"], config.max_train_samples))),
        [f"Streaming: at most the first {config.max_train_samples} rows are used."],
    )


def _check_online(config: DataConfig, progress: Mapping[str, Any]) -> None:
    """Check that offline mode is off.

    Raises:
        HubError: HF_HUB_OFFLINE is set.
    """
    from hublora.hub.client import is_offline

    if is_offline():
        raise HubError(
            f"{progress.get('rows', 0)} of {config.max_train_samples} rows of {config.dataset} are "
            "in the cache, and HF_HUB_OFFLINE is set.",
            "Unset HF_HUB_OFFLINE once to read them, or lower --max-train-samples.",
        )


def _read_on(
    config: DataConfig,
    snapshot: RepoSnapshot,
    folder: Path,
    progress: Mapping[str, Any],
    report: Count | None,
) -> dict[str, Any]:
    """Read rows from where an earlier process stopped and return the new progress."""
    done, limit = progress.get("rows", 0), int(config.max_train_samples or 0)
    commit = snapshot.commit
    with translated_errors(config, commit), RowStore(folder) as store:
        stream, columns = _open_stream(config, snapshot)
        if done:
            stream.load_state_dict(progress["state"])

        def note(ended: bool) -> dict[str, Any]:
            about = {"rows": done, "ended": ended, "columns": asdict(columns)}
            return store.note({**about, "state": stream.state_dict()})

        noted = time.monotonic()
        for row in islice(stream, limit - done):
            cell = row[columns.image] or {}
            text = row[columns.caption] if columns.caption else None
            captions = as_captions(text, config.caption_lines, has_tags(columns.caption))
            mask = row[columns.mask] if columns.mask else None
            store.add(
                row_name(done, cell.get("path")),
                captions,
                _content(config, commit, cell),
                _content(config, commit, mask) if mask else None,
            )
            done += 1
            if report:
                report(done, limit)
            if time.monotonic() - noted > SECONDS_BETWEEN_SYNCS:
                note(ended=False)
                noted = time.monotonic()
        return note(ended=done < limit)


def _open_stream(config: DataConfig, snapshot: RepoSnapshot) -> tuple[Any, Columns]:
    """Return the undecoded rows of the split and the columns to read."""
    builder = builder_of(config, snapshot)
    check_stream(snapshot, named_files(builder, snapshot), int(config.max_train_samples or 0))
    if hasattr(builder.config, "batch_size"):  # a table; else a whole row group is decoded at once
        builder.config.batch_size = STREAMED_ROWS
    stream = builder.as_streaming_dataset(split=config.split)
    if stream.features is None:
        stream = stream._resolve_features()  # for formats whose types come with the first row
    undecoded = stream.decode(False)
    columns = choose_columns(
        config,
        stream.features or {},
        lambda name: [row[name] for row in undecoded.select_columns([name]).take(_VALUES)],
    )
    if columns.references:
        raise DataError(
            f"Pairs are not streamed, and {config.dataset} has reference images in "
            f"{', '.join(map(repr, columns.references))}.",
            "Leave out --streaming, or leave the references out: --set data.references=false.",
        )
    wanted = [name for name in (columns.image, columns.caption, columns.mask) if name is not None]
    return undecoded.select_columns(wanted), columns


def _content(config: DataConfig, commit: str, cell: Mapping[str, Any]) -> Content:
    """Return the encoded image of a cell, or a clause about why there is none."""
    content, path = cell.get("bytes"), cell.get("path")
    if content is None:
        if not path:
            return "is missing"
        if not _is_inside(config, commit, path):
            return f"is only a link ({path[:200]})"
        content = _download(path)
    return content if len(content) <= MAX_BYTES else f"is larger than {MAX_BYTES >> 20} MiB"


def _is_inside(config: DataConfig, commit: str, path: str) -> bool:
    """Return whether a path is a file of the dataset, or in one of its archives.

    Rows are untrusted: any other path could be a file of this computer or an address in its
    network.
    """
    archive, _, container = path.rpartition("::")
    if archive and not archive.startswith("zip://"):
        return False
    root = f"hf://datasets/{config.dataset}@{commit}/"
    return container.startswith(root) and ".." not in container.split("/")


def _download(path: str) -> bytes:
    from datasets.utils.file_utils import xopen

    with xopen(path, "rb") as file:
        content: bytes = file.read(MAX_BYTES + 1)
    return content


def _cache_card(config: DataConfig, snapshot: RepoSnapshot) -> None:
    """Download the card, or else the smallest file, so that the commit is found offline."""
    from huggingface_hub import hf_hub_download

    sizes = {name: size for name, size in snapshot.files.items() if size is not None}
    name = CARD if CARD in sizes else min(sizes, key=lambda name: sizes[name], default=None)
    if name is not None and sizes[name] < _SMALL:
        with translated_errors(config, snapshot.commit):
            hf_hub_download(snapshot.repo_id, name, repo_type="dataset", revision=snapshot.commit)


def _key(config: DataConfig, commit: str) -> str:
    parts = (
        FORMAT,
        *(config.dataset, commit, config.config_name, config.split, config.image_column),
        *(config.caption_column, config.default_caption is None, config.masks, config.mask_column),
        config.caption_lines,
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
