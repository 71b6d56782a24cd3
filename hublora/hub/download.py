"""Downloads files of a commit into the cache, with progress, or reads ranges of them."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.file_download import repo_folder_name
from tqdm.std import tqdm

from hublora.errors import HubError, NotFoundError
from hublora.filesystem import sha256_of
from hublora.hub.client import is_offline, translated
from hublora.hub.pipeline_files import check_pipeline, pipeline_files, read_components
from hublora.hub.transport import repeated

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)
_HEAD_BYTES = 100_000  # 97 of 100 headers on the Hub are shorter (huggingface_hub's figure)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def download(
    repo_id: str,
    commit: str,
    path: str,
    repo_type: str = "model",
    *,
    progress: Progress | None = None,
) -> Path:
    """Return the cached copy of one file of a commit, downloaded if it is not cached.

    Raises:
        NotFoundError: The commit has no such file.
        HubError: The Hub cannot be reached and the file is not cached.
    """
    place = cache_folder(repo_id, repo_type) / "snapshots" / commit / path
    cached = place.exists()
    if place.is_symlink() and not cached and is_offline():
        raise HubError(
            f"The cached copy of {repo_id}@{commit[:8]}/{path} is gone: {place} is a link to a "
            "file that does not exist, and HF_HUB_OFFLINE is set.",
            "Unset HF_HUB_OFFLINE once to download it again.",
        )
    with translated(f"{repo_type} {repo_id}", commit):
        try:
            copy = repeated(
                lambda: hf_hub_download(
                    repo_id, path, repo_type=repo_type, revision=commit, tqdm_class=_bars(progress)
                )
            )
        except Exception as error:
            if type(error).__name__ == "RemoteEntryNotFoundError":
                raise NotFoundError(f"{repo_id}@{commit[:8]} has no file {path!r}.") from error
            raise
    if not cached:
        _check_download(Path(copy), f"{repo_id}@{commit[:8]}/{path}")
    return Path(copy)


def _check_download(copy: Path, label: str) -> None:
    """Check a file that was just downloaded against the checksum that the Hub stated.

    huggingface_hub names the cached content of a large file by the SHA-256 that the Hub states,
    and compares only the size. The content stays cached only if both are equal.

    Raises:
        HubError: The file differs.
    """
    content = copy.resolve()
    if not _SHA256.fullmatch(content.name) or sha256_of(content) == content.name:
        return
    copy.unlink(missing_ok=True)
    content.unlink(missing_ok=True)
    raise HubError(
        f"{label} was damaged on its way: its SHA-256 is not the one that the Hub states.",
        "Try again; it was not kept.",
    )


def download_pipeline(
    repo_id: str,
    commit: str,
    files: Mapping[str, int | None],
    *,
    without: Collection[str] = (),
    progress: Progress | None = None,
) -> Path:
    """Return the local folder of a diffusers pipeline at one commit.

    Only components that `model_index.json` names are downloaded, and of weights only safetensors in
    one precision: no fp16 variant where full precision exists, and no single-file checkpoint.

    Args:
        repo_id: owner/name.
        commit: 40 hexadecimal digits.
        files: All files of the commit: path -> size in bytes.
        without: Components that are not downloaded.
        progress: Called with (bytes done, bytes in all).

    Raises:
        NotFoundError: The repo is not a diffusers pipeline.
    """
    check_pipeline(repo_id, files)
    components = read_components(download(repo_id, commit, "model_index.json")) - set(without)
    names = pipeline_files(files, components)
    return download_files(repo_id, commit, files, names, progress)


def download_model(
    repo_id: str,
    commit: str,
    files: Mapping[str, int | None],
    *,
    progress: Progress | None = None,
) -> Path:
    """Return the local folder of a transformers model at one commit.

    Raises:
        NotFoundError: The repo is not a transformers model, or has no safetensors.
    """
    if "config.json" not in files:
        raise NotFoundError(f"{repo_id} is not a transformers model: it has no config.json.")
    if not any(name.endswith(".safetensors") for name in files if "/" not in name):
        raise NotFoundError(
            f"{repo_id} has no safetensors weights; pickle files are not opened.",
            "Name a model or a revision that has them, such as refs/pr/… of a conversion.",
        )
    endings = (".json", ".txt", ".model", ".jinja", ".safetensors")
    names = [name for name in files if "/" not in name and name.endswith(endings)]
    return download_files(repo_id, commit, files, names, progress)


def download_files(
    repo_id: str,
    commit: str,
    files: Mapping[str, int | None],
    names: list[str],
    progress: Progress | None = None,
) -> Path:
    """Return the local folder of a model repo's commit, with these files in it.

    Args:
        repo_id: owner/name.
        commit: 40 hexadecimal digits.
        files: All files of the commit: path -> size in bytes.
        names: Paths of those to download.
        progress: Called with (bytes done, bytes in all).

    Raises:
        HubError: The Hub cannot be reached, or a file was damaged on its way.
    """
    cached = cache_folder(repo_id) / "snapshots" / commit
    missing = [name for name in names if not (cached / name).exists()]
    total = sum(files[name] or 0 for name in missing)
    with translated(f"model {repo_id}", commit):
        folder = repeated(
            lambda: snapshot_download(
                repo_id, revision=commit, allow_patterns=names, tqdm_class=_bars(progress, total)
            )
        )
    for name in missing:
        _check_download(Path(folder) / name, f"{repo_id}@{commit[:8]}/{name}")
    return Path(folder)


def range_reader(repo_id: str, commit: str, path: str) -> Callable[[int, int], bytes]:
    """Return a function that reads (offset, length) in bytes of a file at a commit.

    The first request fetches enough for most headers and answers later reads within it.
    huggingface_hub's `parse_safetensors_file_metadata` reads headers as well, but downloads a whole
    file from a server that does not know ranges, and cannot read the alphas after a header.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = hf_hub_url(repo_id, path, revision=commit)
    start = b""

    def fetch(offset: int, length: int) -> bytes:
        with translated(f"model {repo_id}", commit):
            return repeated(lambda: fetch_once(offset, length))

    def fetch_once(offset: int, length: int) -> bytes:
        headers = {**build_hf_headers(), "Range": f"bytes={offset}-{offset + length - 1}"}
        headers["Accept-Encoding"] = "identity"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=headers, timeout=timeout) as answer:
            if answer.status_code == 416:  # the file is not that long
                return b""
            if answer.is_error:
                answer.read()
            hf_raise_for_status(answer)
            # A server that does not know ranges sends the whole file: stop after the range.
            skip = 0 if answer.status_code == 206 else offset
            data = bytearray()
            for chunk in answer.iter_bytes():
                data += chunk
                if len(data) >= skip + length:
                    break
            return bytes(data[skip : skip + length])

    def read(offset: int, length: int) -> bytes:
        nonlocal start
        if not start:
            start = fetch(0, _HEAD_BYTES)
        end = offset + length
        whole = len(start) < _HEAD_BYTES  # the file is not longer
        return start[offset:end] if whole or end <= len(start) else fetch(offset, length)

    return read


def cache_folder(repo_id: str, repo_type: str = "model") -> Path:
    """Return the folder of a repo in huggingface_hub's cache."""
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type=repo_type)


def _bars(progress: Progress | None, total: int | None = None) -> Any:
    """Return a tqdm class for huggingface_hub that shows nothing and calls `progress`.

    Args:
        progress: Called with (bytes done, bytes in all); None for no calls.
        total: Bytes of the whole download, where the bar itself learns them file by file.
    """
    lock = threading.Lock()

    class Bars(tqdm):  # type: ignore[misc]  # tqdm has no types
        monitor_interval = 0  # each class with one starts a thread that never ends

        def __init__(self, *args: Any, **settings: Any) -> None:
            # One bar counts files, and with Xet another counts bytes on the wire: bytes on disk
            # are those that add up to the size.
            self.counts_bytes = (
                settings.get("unit") == "B" and settings.get("desc") != "Downloading bytes"
            )
            settings.pop("name", None)
            super().__init__(*args, **{**settings, "disable": True})
            self.done = settings.get("initial") or 0

        def update(self, n: float | None = 1) -> None:
            with lock:
                self.done += int(n or 0)
                whole = total or self.total
                if self.counts_bytes and progress is not None and whole:
                    progress(min(self.done, int(whole)), int(whole))

    return Bars
