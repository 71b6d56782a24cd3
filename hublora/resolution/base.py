"""Resolves, downloads and loads a base: from a name to a pipeline at a commit."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from hublora.errors import NotFoundError
from hublora.families import Family, family_of_folder
from hublora.hub.download import check_pipeline, download_pipeline
from hublora.hub.resolve import inspect_repo, read_card
from hublora.progress import Callback, downloading, no_callback
from hublora.quiet import quiet_loading
from hublora.resolution.base_layers import check_named

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Base:
    """A base at a commit, downloaded and not yet loaded.

    Attributes:
        name: Hub id, or the folder's name.
        commit: 40 hexadecimal digits; None for a folder.
        folder: Local folder with its files.
        card: Front matter of its card.
        family: Model family of its pipeline.
    """

    name: str
    commit: str | None
    folder: Path
    card: Mapping[str, Any]
    family: Family

    @property
    def hub_id(self) -> str | None:
        """The Hub id, None for a folder."""
        return self.name if self.commit else None

    @property
    def license(self) -> str | None:
        """Licence id of the card; None if that states none."""
        stated = self.card.get("license")
        return stated if isinstance(stated, str) else None

    @property
    def label(self) -> str:
        return f"{self.name}@{self.commit[:8]}" if self.commit else self.name

    def load(self, dtype: torch.dtype | dict[str, torch.dtype]) -> Any:
        """Return the pipeline on the CPU, weights in `dtype`; see `Family.load`.

        Raises:
            NotFoundError: A file is missing or damaged.
        """
        try:
            with quiet_loading():
                return self.family.load(self.folder, dtype)
        except (OSError, ValueError, SafetensorError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            raise NotFoundError(
                f"The base {self.label} cannot be loaded: {str(error).splitlines()[0]}",
                f"Remove {self.folder} to download it again."
                if self.commit
                else "Check the folder.",
            ) from error


def resolve_base(model: str, revision: str | None = None) -> str | None:
    """Return the commit that a base's Hub id stands for, None for a folder; downloads nothing.

    Raises:
        ConfigError: The name is empty.
        NotFoundError: No such repo, revision or folder, or it holds no pipeline.
    """
    if _is_folder(check_named(model)):
        folder = Path(model).expanduser()
        paths = [*folder.glob("*"), *folder.glob("*/*")]
        check_pipeline(model, [path.relative_to(folder).as_posix() for path in paths])
        return None
    snapshot = inspect_repo(model, "model", revision)
    check_pipeline(model, snapshot.files)
    return snapshot.commit


def download_base(
    model: str, revision: str | None = None, callback: Callback = no_callback
) -> Base:
    """Find a base by Hub id or folder and bring its files to this machine.

    Raises:
        NotFoundError: No such repo, revision or folder, or it holds no pipeline.
        AdapterError: Its architecture is not known here.
    """
    if _is_folder(check_named(model)):
        resolve_base(model)
        folder = Path(model).expanduser()
        card = read_card(folder / "README.md")
        return Base(folder.resolve().name, None, folder, card, family_of_folder(folder))
    snapshot = inspect_repo(model, "model", revision)
    progress = downloading(callback)
    folder = download_pipeline(model, snapshot.commit, snapshot.files, progress=progress)
    return Base(model, snapshot.commit, folder, snapshot.card, family_of_folder(folder))


def _is_folder(model: str) -> bool:
    return model.startswith((".", "/", "~")) or Path(model).expanduser().is_dir()
