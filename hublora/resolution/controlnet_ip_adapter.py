"""Downloads ControlNets and IP-Adapters at a commit."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hublora.errors import NotFoundError
from hublora.hub.download import download
from hublora.hub.resolve import inspect_repo
from hublora.quiet import quiet_loading
from hublora.refs import AdapterRef

_ENCODER = "image_encoder"


def load_controlnet(ref: str) -> tuple[Any, str]:
    """Load a ControlNet; return it and its ref at the commit.

    Args:
        ref: owner/name, or owner/name@revision.

    Raises:
        NotFoundError: The repo has no ControlNet, or only pickle weights.
    """
    from diffusers import ControlNetModel

    from hublora.hub.client import translated

    parsed = AdapterRef.parse(f"hf://{ref.removeprefix('hf://')}")
    repo_id = parsed.repo_id
    snapshot = inspect_repo(repo_id, "model", parsed.revision)
    if "config.json" not in snapshot.files or not any(
        name.endswith(".safetensors") for name in snapshot.files
    ):
        raise NotFoundError(f"{repo_id} has no ControlNet in safetensors.")
    with translated(f"model {repo_id}", snapshot.commit), quiet_loading():
        model = ControlNetModel.from_pretrained(
            repo_id, revision=snapshot.commit, use_safetensors=True
        )
    return model, f"{repo_id}@{snapshot.commit}"


@dataclass(frozen=True)
class IpAdapter:
    """A local copy of an IP-Adapter and its image encoder.

    Attributes:
        name: Ref at the commit, or the file name of a local model.
        folder: The folder that holds both.
        file: Path of its weights in the folder.
        encoder: Path of the image encoder's folder in the folder.
    """

    name: str
    folder: Path
    file: str
    encoder: str


def download_ip_adapter(ref: str) -> IpAdapter:
    """Download an IP-Adapter and its image encoder.

    Args:
        ref: owner/name, with the file in it if it has several, or a local file.

    Raises:
        NotFoundError: It does not exist, or has no image encoder in safetensors.
    """
    parsed = AdapterRef.parse(ref)
    if parsed.kind == "local":
        return _local(Path(parsed.location).expanduser())
    if parsed.kind != "repo":
        raise NotFoundError(f"An IP-Adapter must be a Hub repo or a local file, got {ref}.")
    snapshot = inspect_repo(parsed.repo_id, "model", parsed.revision)
    file = parsed.path or _only(snapshot.files, parsed.location)
    if file not in snapshot.files:
        raise NotFoundError(f"{parsed.location} has no file {file}.")
    encoder = _encoder(snapshot.files, file, parsed.location)
    names = [file, f"{encoder}/config.json", f"{encoder}/model.safetensors"]
    paths = [download(parsed.location, snapshot.commit, name) for name in names]
    folder = paths[0].parents[file.count("/")]
    return IpAdapter(str(parsed.at(snapshot.commit, file)), folder, file, encoder)


def _local(path: Path) -> IpAdapter:
    if not path.is_file():
        raise NotFoundError(f"There is no file {path}.")
    folder = path.parent
    files = [found.relative_to(folder).as_posix() for found in folder.glob(f"{_ENCODER}/*")]
    return IpAdapter(path.name, folder, path.name, _encoder(files, path.name, str(folder)))


def _only(files: Collection[str], repo_id: str) -> str:
    found = sorted(
        file for file in files if file.endswith(".safetensors") and f"{_ENCODER}/" not in file
    )
    if len(found) != 1:
        listed = "".join(f"\n  {repo_id}/{file}" for file in found)
        raise NotFoundError(
            f"{repo_id} has {len(found)} files that may be IP-Adapters.",
            f"Name one:{listed}" if found else None,
        )
    return found[0]


def _encoder(files: Collection[str], file: str, where: str) -> str:
    """Return the folder of the image encoder: the one beside the adapter, else the only one."""
    encoders = [
        name.removesuffix("/model.safetensors")
        for name in files
        if name.endswith(f"{_ENCODER}/model.safetensors")
    ]
    beside = f"{file.rpartition('/')[0]}/{_ENCODER}".lstrip("/")
    if beside in encoders:
        return beside
    if len(encoders) != 1:
        raise NotFoundError(f"{where} has no {_ENCODER} in safetensors for {file}.")
    return encoders[0]
