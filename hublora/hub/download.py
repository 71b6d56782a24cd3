"""Brings files of a commit to this machine, telling how far it is."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.file_download import repo_folder_name
from tqdm.std import tqdm

from hublora.errors import NotFoundError
from hublora.hub.client import translated

Progress = Callable[[int, int], None]  # bytes that are here, bytes in all
_HEAD_BYTES = 100_000  # 97 of 100 headers on the Hub are shorter (huggingface_hub's figure)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def download(
    repo_id: str,
    commit: str,
    path: str,
    repo_type: str = "model",
    *,
    progress: Progress | None = None,
) -> Path:
    """Return the local copy of one file of a commit, downloading it if it is not cached.

    Raises:
        NotFoundError: The commit has no such file.
        HubError: The Hub is away and the file is not cached.
    """
    with translated(f"{repo_type} {repo_id}", commit):
        try:
            copy = hf_hub_download(
                repo_id, path, repo_type=repo_type, revision=commit, tqdm_class=_bars(progress)
            )
        except Exception as error:
            if type(error).__name__ == "RemoteEntryNotFoundError":
                raise NotFoundError(f"{repo_id}@{commit[:8]} has no file {path!r}.") from error
            raise
    return Path(copy)


def download_pipeline(
    repo_id: str,
    commit: str,
    files: Mapping[str, int | None],
    *,
    progress: Progress | None = None,
) -> Path:
    """Return a local folder with the files of a diffusers pipeline at one commit.

    Only safetensors weights are taken, one precision of each: fp16 variants are left where full
    precision exists, as are the single-file checkpoints at the top level of many bases.

    Raises:
        NotFoundError: The repo is not a diffusers pipeline.
    """
    check_pipeline(repo_id, files)
    wanted = [name for name in files if _is_pipeline_file(name, files)]
    return _download_files(repo_id, commit, files, wanted, progress)


def download_model(
    repo_id: str,
    commit: str,
    files: Mapping[str, int | None],
    *,
    progress: Progress | None = None,
) -> Path:
    """Return a local folder with the files of a transformers model at one commit.

    Raises:
        NotFoundError: The repo is no model, or has no safetensors.
    """
    if "config.json" not in files:
        raise NotFoundError(f"{repo_id} is not a transformers model: it has no config.json.")
    if not any(name.endswith(".safetensors") for name in files if "/" not in name):
        raise NotFoundError(
            f"{repo_id} has no safetensors weights; pickles are not opened.",
            "Name a model or a revision that has them, such as refs/pr/… of a conversion.",
        )
    endings = (".json", ".txt", ".model", ".jinja", ".safetensors")
    wanted = [name for name in files if "/" not in name and name.endswith(endings)]
    return _download_files(repo_id, commit, files, wanted, progress)


def _download_files(
    repo_id: str,
    commit: str,
    files: Mapping[str, int | None],
    wanted: list[str],
    progress: Progress | None,
) -> Path:
    cached = cache_folder(repo_id) / "snapshots" / commit
    total = sum(files[name] or 0 for name in wanted if not (cached / name).exists())
    with translated(f"model {repo_id}", commit):
        folder = snapshot_download(
            repo_id, revision=commit, allow_patterns=wanted, tqdm_class=_bars(progress, total)
        )
    return Path(folder)


def range_reader(repo_id: str, commit: str, path: str) -> Callable[[int, int], bytes]:
    """Return a function that reads (offset, length) of a file at a commit, without the rest.

    The first read brings more than it was asked for: headers are mostly within it.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = hf_hub_url(repo_id, path, revision=commit)
    start = b""

    def fetch(offset: int, length: int) -> bytes:
        headers = {**build_hf_headers(), "Range": f"bytes={offset}-{offset + length - 1}"}
        headers["Accept-Encoding"] = "identity"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with (
            translated(f"model {repo_id}", commit),
            get_session().stream("GET", url, headers=headers, timeout=timeout) as answer,
        ):
            if answer.status_code == 416:  # there is nothing at that offset
                return b""
            if answer.is_error:
                answer.read()
            hf_raise_for_status(answer)
            # A server that does not know ranges sends everything: no more is taken than was asked.
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
        whole = len(start) < _HEAD_BYTES  # the file is no longer than that
        return start[offset:end] if whole or end <= len(start) else fetch(offset, length)

    return read


def check_pipeline(name: str, files: Collection[str]) -> None:
    """Check that a repo or folder with these files is a diffusers pipeline in safetensors.

    Raises:
        NotFoundError: It is no pipeline, or a part of it only has pickle weights.
    """
    if "model_index.json" not in files:
        raise NotFoundError(
            f"{name} is not a diffusers pipeline: it has no model_index.json.",
            "Name a base such as stable-diffusion-v1-5/stable-diffusion-v1-5.",
        )
    safe = {file.rpartition("/")[0] for file in files if file.endswith(".safetensors")}
    for file in files:
        part = file.rpartition("/")[0]
        if file.endswith(PICKLES) and part not in {"", "safety_checker", *safe}:
            raise NotFoundError(
                f"{name} only has pickle weights for its {part}, which can run code when opened.",
                "Name a base that has .safetensors files.",
            )


def cache_folder(repo_id: str, repo_type: str = "model") -> Path:
    """Return where the huggingface_hub cache keeps a repo."""
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type=repo_type)


def _is_pipeline_file(name: str, files: Mapping[str, int | None]) -> bool:
    if name in ("model_index.json", "README.md"):
        return True
    folder, _, file = name.rpartition("/")
    if not folder or folder.startswith("safety_checker"):
        return False
    if file.endswith((".json", ".txt", ".model")):
        return True
    if not file.endswith(".safetensors"):
        return False
    full = re.sub(r"\.(fp16|bf16|non_ema)\.", ".", name)
    return name == full or (full not in files and ".non_ema." not in name)


def _bars(progress: Progress | None, total: int | None = None) -> Any:
    """Return the class of bars for huggingface_hub that draws nothing and tells `progress`.

    Args:
        progress: Is told; nobody, if None.
        total: Bytes that will be downloaded, where the bar itself learns them file by file.
    """
    lock = threading.Lock()

    class Bars(tqdm):
        def __init__(self, *args: Any, **settings: Any) -> None:
            # One bar counts files, and with Xet one counts what crosses the network: the bytes
            # on disk are the ones that add up to the size.
            self.told = settings.get("unit") == "B" and settings.get("desc") != "Downloading bytes"
            settings.pop("name", None)
            super().__init__(*args, **{**settings, "disable": True})
            self.here = settings.get("initial") or 0

        def update(self, n: float | None = 1) -> None:
            with lock:
                self.here += int(n or 0)
                everything = total or self.total
                if self.told and progress is not None and everything:
                    progress(min(self.here, int(everything)), int(everything))

    return Bars
