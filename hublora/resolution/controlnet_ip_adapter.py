"""Opens models that stand beside a base: ControlNets and IP-Adapters, at their commits."""

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
    """Return the ControlNet in a repo, and its pinned ref.

    Args:
        ref: owner/name, or owner/name@revision.

    Raises:
        NotFoundError: There is none, or only pickle weights.
    """
    from diffusers import ControlNetModel

    from hublora.hub.client import translated

    repo_id, _, revision = ref.partition("@")
    snapshot = inspect_repo(repo_id, "model", revision or None)
    if "config.json" not in snapshot.files or not any(
        name.endswith(".safetensors") for name in snapshot.files
    ):
        raise NotFoundError(f"{repo_id} holds no ControlNet in safetensors.")
    with translated(f"model {repo_id}", snapshot.commit), quiet_loading():
        model = ControlNetModel.from_pretrained(
            repo_id, revision=snapshot.commit, use_safetensors=True
        )
    return model, f"{repo_id}@{snapshot.commit}"


@dataclass(frozen=True)
class IpAdapter:
    """An IP-Adapter on this machine.

    Attributes:
        name: Its pinned ref; of a local one the file's name.
        folder: Where it and its image encoder are.
        file: Inside of the folder.
        encoder: Folder of the image encoder, inside of the folder.
    """

    name: str
    folder: Path
    file: str
    encoder: str


def download_ip_adapter(ref: str) -> IpAdapter:
    """Bring an IP-Adapter and its image encoder to this machine.

    Args:
        ref: owner/name, with the file in it if it holds several, or a local file.

    Raises:
        NotFoundError: It is not there, or has no image encoder in safetensors.
    """
    parsed = AdapterRef.parse(ref)
    if parsed.kind == "local":
        return _local(Path(parsed.location).expanduser())
    if parsed.kind != "repo":
        raise NotFoundError(f"{ref} is no IP-Adapter on the Hub.", "Name a repo, or a local file.")
    snapshot = inspect_repo(parsed.location, "model", parsed.revision)
    file = parsed.path or _only(snapshot.files, parsed.location)
    if file not in snapshot.files:
        raise NotFoundError(f"{parsed.location} has no file {file}.")
    encoder = _encoder(snapshot.files, file, parsed.location)
    wanted = [file, f"{encoder}/config.json", f"{encoder}/model.safetensors"]
    paths = [download(parsed.location, snapshot.commit, one) for one in wanted]
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
            f"{repo_id} holds {len(found)} files that may be IP-Adapters.",
            f"Name one:{listed}" if found else None,
        )
    return found[0]


def _encoder(files: Collection[str], file: str, where: str) -> str:
    """Return the folder of the image encoder: beside the adapter, else the only one there is."""
    there = [
        name.removesuffix("/model.safetensors")
        for name in files
        if name.endswith(f"{_ENCODER}/model.safetensors")
    ]
    beside = f"{file.rpartition('/')[0]}/{_ENCODER}".lstrip("/")
    if beside in there:
        return beside
    if len(there) != 1:
        raise NotFoundError(f"{where} holds no {_ENCODER} in safetensors for {file}.")
    return there[0]
