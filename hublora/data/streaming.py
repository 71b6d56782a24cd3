"""The first rows of a dataset on the Hub that is too large to download, read into the cache.

    <cache>/streams/<key>.lock   held while reading
    <cache>/streams/<key>/       what was read: see `hublora.data.stream_store`

A call that wants more rows than there are goes on where the last one stopped; one that wants fewer
takes the first ones. No code of the dataset's own is ever run.
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
from hublora.data.columns import Columns, choose_columns
from hublora.data.config import DataConfig
from hublora.data.examples import Listing
from hublora.data.hub_dataset import builder_of, in_sentences, listing_of, row_name
from hublora.data.row_file import SECONDS_BETWEEN_SYNCS, explained
from hublora.data.stream_store import Content, RowStore, read_progress, stored_examples
from hublora.errors import HubError
from hublora.hub.repo_layout import CARD

if TYPE_CHECKING:
    from hublora.hub.resolve import RepoSnapshot

# Raised whenever the files that are written mean something else than before.
FORMAT = 1
MOST_BYTES = 256 << 20  # of one encoded image
_SMALL = 1 << 20

Tell = Callable[[int, int], None]


def list_stream(config: DataConfig, tell: Tell | None = None) -> Listing:
    """Return the first `max_train_samples` rows of a Hub dataset, reading those that are missing.

    Args:
        config: Which dataset, and how many rows.
        tell: Told (done, total) in rows.

    Raises:
        DataError: It has no such configuration, split or column, or no images; the disk is full.
        NotFoundError: No such dataset or revision.
        AccessError: The token may not read it.
        HubError: The Hub is away; what was read stays, and the next call goes on.
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
    folder = config.cache_root / "streams" / _key(config, snapshot.commit)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(folder.with_name(folder.name + ".lock")):
        progress = read_progress(folder)
        if not progress.get("ended") and progress.get("rows", 0) < config.max_train_samples:
            _check_online(config, progress)
            progress = _read_on(config, snapshot.commit, folder, progress, tell)
            _keep_card(config, snapshot)
    columns = Columns(**progress["columns"])
    return listing_of(
        config,
        snapshot,
        columns,
        list(stored_examples(folder, min(progress["rows"], config.max_train_samples))),
        [f"Streamed: the first {config.max_train_samples} rows at most are taken."],
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


def _read_on(
    config: DataConfig, commit: str, folder: Path, progress: Mapping[str, Any], tell: Tell | None
) -> dict[str, Any]:
    """Read rows from where an earlier process stopped; return the new progress."""
    done, limit = progress.get("rows", 0), int(config.max_train_samples or 0)
    with in_sentences(config, commit), RowStore(folder) as store:
        stream, columns = _open_stream(config, commit)
        if done:
            stream.load_state_dict(progress["state"])

        def note(ended: bool) -> dict[str, Any]:
            about = {"rows": done, "ended": ended, "columns": asdict(columns)}
            return store.note({**about, "state": stream.state_dict()})

        noted = time.monotonic()
        for row in islice(stream, limit - done):
            cell = row[columns.image] or {}
            captions = as_captions(row[columns.caption]) if columns.caption else ()
            mask = row[columns.mask] if columns.mask else None
            store.add(
                row_name(done, cell.get("path")),
                captions,
                _content(config, commit, cell),
                _content(config, commit, mask) if mask else None,
            )
            done += 1
            if tell:
                tell(done, limit)
            if time.monotonic() - noted > SECONDS_BETWEEN_SYNCS:
                note(ended=False)
                noted = time.monotonic()
        return note(ended=done < limit)


def _open_stream(config: DataConfig, commit: str) -> tuple[Any, Columns]:
    """Return the rows of the split, undecoded, with the columns that are read."""
    stream = builder_of(config, commit).as_streaming_dataset(split=config.split)
    if stream.features is None:
        stream = stream._resolve_features()  # of formats that say their types with the first row
    columns = choose_columns(config, stream.features or {})
    wanted = [name for name in asdict(columns).values() if name is not None]
    return stream.decode(False).select_columns(wanted), columns


def _content(config: DataConfig, commit: str, cell: Mapping[str, Any]) -> Content:
    """Return the encoded image of a cell, or the clause that says why there is none."""
    content, path = cell.get("bytes"), cell.get("path")
    if content is None:
        if not path:
            return "is missing"
        if not _is_inside(config, commit, path):
            return f"is only a link ({path[:200]})"
        content = _download(path)
    return content if len(content) <= MOST_BYTES else f"is larger than {MOST_BYTES >> 20} MiB"


def _is_inside(config: DataConfig, commit: str, path: str) -> bool:
    """Tell whether a path is that of a file of the dataset, or of one inside an archive of it.

    A row is data: any other path could be a file of this computer or an address in its network.
    """
    archive, _, container = path.rpartition("::")
    if archive and not archive.startswith("zip://"):
        return False
    root = f"hf://datasets/{config.dataset}@{commit}/"
    return container.startswith(root) and ".." not in container.split("/")


def _download(path: str) -> bytes:
    from datasets.utils.file_utils import xopen

    with xopen(path, "rb") as file:
        content: bytes = file.read(MOST_BYTES + 1)
    return content


def _keep_card(config: DataConfig, snapshot: RepoSnapshot) -> None:
    """Download the smallest file, the card if there is one, so that the repo is known offline."""
    from huggingface_hub import hf_hub_download

    sizes = {name: size for name, size in snapshot.files.items() if size is not None}
    name = CARD if CARD in sizes else min(sizes, key=lambda name: sizes[name], default=None)
    if name is not None and sizes[name] < _SMALL:
        with in_sentences(config, snapshot.commit):
            hf_hub_download(snapshot.repo_id, name, repo_type="dataset", revision=snapshot.commit)


def _key(config: DataConfig, commit: str) -> str:
    parts = (
        FORMAT,
        *(config.dataset, commit, config.config_name, config.split, config.image_column),
        *(config.caption_column, config.default_caption is None, config.masks, config.mask_column),
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
