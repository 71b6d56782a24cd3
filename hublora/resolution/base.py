"""Resolves, downloads and loads a base: from a name to a pipeline at a commit."""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from hublora.errors import HubloraError, NotFoundError
from hublora.families import Family, family_of_folder, text_encoders_of
from hublora.hub.download import download_pipeline
from hublora.hub.pipeline_files import check_pipeline
from hublora.hub.resolve import inspect_repo, read_card
from hublora.progress import Callback, downloading, no_callback
from hublora.quiet import quiet_loading
from hublora.quoting import one_line
from hublora.refs import BaseRef
from hublora.resolution.base_contents import components_of, hash_components
from hublora.resolution.model_folder import check_pipeline_folder

if TYPE_CHECKING:
    import torch

    from hublora.memory.quantization import Quantization

# What diffusers and transformers raise on files of strangers.
_LOAD_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    SafetensorError,
)


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
        """Licence id of the card, the licence's name where the id is "other"; None if the card
        states none."""
        stated, name = self.card.get("license"), self.card.get("license_name")
        if stated == "other" and isinstance(name, str):
            stated = name
        return one_line(stated) or None if isinstance(stated, str) else None

    @property
    def label(self) -> str:
        """The name in messages, with the first digits of the commit."""
        return f"{self.name}@{self.commit[:8]}" if self.commit else self.name

    @property
    def encodes_prompts(self) -> list[str]:
        """Components in a local folder that may affect prompt embeddings: tokenizers, text
        encoders and whatever else is neither denoiser nor VAE."""
        others = (self.family.denoiser, self.family.vae)
        return [name for name in components_of(self.folder) if name not in others]

    def version(self, components: Collection[str] | None = None) -> str:
        """Return what tells this base from all others of its name: its commit, or the hash of a
        folder's files.

        Args:
            components: The components that matter; all by default.
        """
        if self.commit is not None:
            return self.commit
        chosen = components_of(self.folder) if components is None else components
        return hash_components(self.folder, chosen)

    def load(
        self,
        dtype: torch.dtype | dict[str, torch.dtype],
        quantize: Quantization | None = None,
        **components: Any,
    ) -> Any:
        """Return the pipeline on the CPU, weights in `dtype`; see `Family.load`.

        Args:
            dtype: Dtype of all weights, or component -> dtype, with "default" for the others.
            quantize: Kind in which denoiser and text encoders are quantised, those given apart.
            components: Components that stand for those in the folder, which may be missing there.

        Raises:
            NotFoundError: A file is missing or damaged.
            AdapterError: It names code, a pickle, or sizes that its weights do not have.
        """
        from hublora.resolution.parameter_count import check_parameter_counts

        try:
            check_pipeline_folder(self.folder, self.family, self.label, without=components)
            with quiet_loading():
                check_parameter_counts(self.folder, self.family, self.label, without=components)
                pipe = self.family.load(self.folder, dtype, **components)
        except HubloraError:
            raise
        except _LOAD_ERRORS as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            raise NotFoundError(
                f"The base {self.label} cannot be loaded: {' '.join(str(error).split())[:200]}",
                f"Remove {self.folder} to download it again."
                if self.commit
                else "Check the folder.",
            ) from error
        if quantize is not None:
            _quantize(pipe, self.family, quantize, dtype, components)
        return pipe


def _quantize(
    pipe: Any,
    family: Family,
    kind: Quantization,
    dtype: torch.dtype | dict[str, torch.dtype],
    given: Collection[str],
) -> None:
    from hublora.memory.frozen_linear import quantize_model

    usual = dtype["default"] if isinstance(dtype, dict) else dtype
    for name in {family.denoiser, *text_encoders_of(family, pipe)} - set(given):
        quantize_model(getattr(pipe, name), kind, usual)


@dataclass(frozen=True)
class ResolvedBase:
    """A base at a commit, of which nothing is downloaded.

    Attributes:
        ref: The base as it was named.
        commit: 40 hexadecimal digits; None for a folder.
        files: Path -> size in bytes; None as size in a folder.
        card: Front matter of its card.
    """

    ref: BaseRef
    commit: str | None
    files: Mapping[str, int | None] = field(repr=False)
    card: Mapping[str, Any] = field(repr=False)


def resolve_base(ref: BaseRef) -> ResolvedBase:
    """Resolve a base to its commit, in one request; downloads nothing.

    Raises:
        NotFoundError: No such repo, revision or folder, or it is not a diffusers pipeline.
        HubError: The Hub cannot be reached.
    """
    if ref.repo_id is not None:
        snapshot = inspect_repo(ref.repo_id, "model", ref.revision)
        resolved = ResolvedBase(ref, snapshot.commit, snapshot.files, snapshot.card)
    else:
        assert ref.folder is not None, "one of both is set"
        paths = [*ref.folder.glob("*"), *ref.folder.glob("*/*")]
        files = {path.relative_to(ref.folder).as_posix(): None for path in paths}
        resolved = ResolvedBase(ref, None, files, read_card(ref.folder / "README.md"))
    check_pipeline(str(ref.folder or ref.repo_id), resolved.files)
    return resolved


def download_base(
    base: ResolvedBase, callback: Callback = no_callback, *, without: Collection[str] = ()
) -> Base:
    """Download the files of a base; those of a folder are used where they are.

    Args:
        base: The base.
        callback: Called with each event (`hublora.progress.Event`).
        without: Components that are not downloaded.

    Raises:
        AdapterError: No family has its pipeline class.
        HubError: The Hub cannot be reached and a file is not cached.
    """
    folder = base.ref.folder
    if base.ref.repo_id is not None:
        assert base.commit is not None, "resolving sets the commit"
        progress = downloading(callback)
        folder = download_pipeline(
            base.ref.repo_id, base.commit, base.files, without=without, progress=progress
        )
    assert folder is not None, "one of both is set"
    return Base(base.ref.name, base.commit, folder, base.card, family_of_folder(folder))
