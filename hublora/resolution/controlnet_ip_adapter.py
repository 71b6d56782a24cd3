"""Downloads ControlNets and IP-Adapters at a commit."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hublora.adapters.header import read_file_header
from hublora.errors import AdapterError, NotFoundError
from hublora.hub.download import download, download_files
from hublora.hub.resolve import inspect_repo
from hublora.quiet import quiet_loading
from hublora.refs import AdapterRef
from hublora.resolution.model_folder import check_model_folder, read_json

CONTROLNET = "ControlNetModel"  # of diffusers
_ENCODER = "image_encoder"
_CONTROLNET_FILE = re.compile(
    r"config\.json|diffusion_pytorch_model(-\d+-of-\d+)?\.safetensors(\.index\.json)?"
)


def load_controlnet(ref: str) -> tuple[Any, str]:
    """Load a ControlNet; return it and its ref at the commit.

    Args:
        ref: owner/name, or owner/name@revision.

    Raises:
        NotFoundError: The repo has no ControlNet, or only pickle weights.
        AdapterError: It names code, a pickle, or sizes that its weights do not have.
    """
    from diffusers import ControlNetModel

    from hublora.resolution.parameter_count import check_parameter_count

    parsed = AdapterRef.parse(f"hf://{ref.removeprefix('hf://')}")
    repo_id = parsed.repo_id
    snapshot = inspect_repo(repo_id, "model", parsed.revision)
    if "config.json" not in snapshot.files or not any(
        name.endswith(".safetensors") for name in snapshot.files
    ):
        raise NotFoundError(f"{repo_id} has no ControlNet in safetensors.")
    names = [name for name in snapshot.files if _CONTROLNET_FILE.fullmatch(name)]
    folder = download_files(repo_id, snapshot.commit, snapshot.files, names)
    check_model_folder(folder, repo_id)
    kind = read_json(folder / "config.json", repo_id).get("_class_name", CONTROLNET)
    if kind != CONTROLNET:
        raise AdapterError(
            f"{repo_id} is a {kind}; only ControlNets of Stable Diffusion and SDXL "
            f"({CONTROLNET}) are used.",
            "Leave --controlnet out, or name one of those.",
        )
    with quiet_loading():
        check_parameter_count(ControlNetModel, folder, repo_id)
        model = ControlNetModel.from_pretrained(folder, use_safetensors=True, local_files_only=True)
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
        AdapterError: It is no safetensors, or its image encoder does not pass
            `check_model_folder`.
    """
    found = _download_ip_adapter(ref)
    path = found.folder / found.file
    if path.suffix != ".safetensors":  # diffusers unpickles any other
        raise AdapterError(f"{path.name} is not a .safetensors file.", "Name one that is.")
    read_file_header(path)
    check_model_folder(found.folder / found.encoder, f"{found.name}/{found.encoder}")
    return found


def _download_ip_adapter(ref: str) -> IpAdapter:
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
