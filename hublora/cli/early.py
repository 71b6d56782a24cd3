"""Checks of what was typed, before a command imports the libraries, which takes seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hublora.errors import DataError, NotFoundError
from hublora.refs import AdapterRef, BaseRef, parse_repo_id


def check_adapters(
    refs: Sequence[str],
    base: str | None = None,
    base_revision: str | None = None,
    weights: Mapping[str, str] | None = None,
) -> None:
    """Check the form of refs, weights and base, and that those on this machine are there.

    Raises:
        HubloraError: As the command would, later.
    """
    from hublora.resolution.adapter import local_file
    from hublora.resolution.composition_parts import parse_weighted_refs

    for one in parse_weighted_refs(refs, weights):
        if one.ref.kind == "local":
            local_file(one.ref)
    check_base(base, base_revision)


def check_base(base: str | None, revision: str | None = None) -> None:
    """Check the form of a base, and that a folder has one.

    Raises:
        HubloraError: It has another form, or is not the folder of a pipeline.
    """
    from hublora.resolution.base import resolve_base

    folder = BaseRef.parse(base, revision).folder if base is not None else None
    if folder is not None and not (folder.suffix == ".safetensors" and folder.is_file()):
        resolve_base(BaseRef(None, folder))  # of a single file, components may be asked of a Hub


def check_repo(ref: str) -> None:
    """Check the form of the ref of a repo, or that a folder is there.

    Raises:
        RefError: It is no ref.
        NotFoundError: The folder does not exist.
    """
    parsed = AdapterRef.parse(ref)
    folder = Path(parsed.location).expanduser()
    if parsed.kind == "local" and not folder.exists():
        raise NotFoundError(f"There is no file or folder {folder}.")


def check_push_name(name: str | None) -> None:
    """Check the form of a repo to push to; a name alone is one of the token's owner.

    Raises:
        RefError: It has another form.
    """
    if name is not None:
        parse_repo_id(name if "/" in name else f"me/{name}")


def check_images(source: str) -> None:
    """Check that a folder has images, or the form of a dataset's name.

    Raises:
        HubloraError: As the command would, later.
    """
    from hublora.data.folder_files import find_images

    path = Path(source).expanduser()
    if path.is_dir():
        if not find_images(path):
            raise DataError(f"{source} has no images.")
    elif path.suffix.lower() != ".zip" and "://" not in source:
        parse_repo_id(source)
