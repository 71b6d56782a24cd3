"""Resolves, downloads and loads a base: from a name to a pipeline at a commit.

Over 300 lines because a base is a pipeline or a single file, each of them on the Hub or local.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from hublora.adapters.header import Header, read_file_header, read_header
from hublora.errors import AdapterError, HubloraError, NotFoundError
from hublora.families import Family, family_of_folder, text_encoders_of
from hublora.hub.client import is_offline
from hublora.hub.download import download, download_files, download_pipeline, range_reader
from hublora.hub.pipeline_files import check_pipeline, pipeline_files, read_components
from hublora.hub.resolve import inspect_repo, read_card
from hublora.progress import Callback, downloading, no_callback
from hublora.quiet import quiet_loading
from hublora.quoting import one_line
from hublora.refs import BaseRef
from hublora.resolution.base_contents import (
    components_of,
    hash_components,
    remembered_sha256,
)
from hublora.resolution.model_folder import check_pipeline_folder
from hublora.resolution.single_file import SingleFile, convert_single_file, read_single_file

if TYPE_CHECKING:
    import torch

    from hublora.memory.quantization import Quantization

_MOST_LISTED = 8  # single files of a repo, in a message

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
        sha256: Hash of a single file, 64 hexadecimal digits; None for a pipeline.
        components: Pipeline, with its commit if it is on the Hub, that has what a single file
            lacks; None for a pipeline.
    """

    name: str
    commit: str | None
    folder: Path
    card: Mapping[str, Any]
    family: Family
    sha256: str | None = None
    components: str | None = None

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
    def repo_id(self) -> str | None:
        """owner/name of its repo, which begins the id of a single file; None for a folder."""
        return "/".join(self.name.split("/")[:2]) if self.commit else None

    @property
    def published_components(self) -> str | None:
        """The components of a single file as owner/name@commit; None for a local folder."""
        named = self.components
        return named if named is not None and "@" in named else None

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
        if self.sha256 is not None:
            return f"sha256:{self.sha256} {self.components}"
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
        single: Facts from the header of a single file; None for a pipeline.
        components: Pipeline that has what a single file lacks; None for a pipeline.
    """

    ref: BaseRef
    commit: str | None
    files: Mapping[str, int | None] = field(repr=False)
    card: Mapping[str, Any] = field(repr=False)
    single: SingleFile | None = None
    components: ResolvedBase | None = None


def resolve_base(ref: BaseRef) -> ResolvedBase:
    """Resolve a base to its commit, in one request, and of a single file read its header; downloads
    nothing.

    Raises:
        NotFoundError: No such repo, revision or folder, or it is not a diffusers pipeline.
        AdapterError: A single file is of no known family, or its components are not known.
        HubError: The Hub cannot be reached.
    """
    if ref.repo_id is not None:
        snapshot = inspect_repo(ref.repo_id, "model", ref.revision)
        resolved = ResolvedBase(ref, snapshot.commit, snapshot.files, snapshot.card)
        file = ref.file or _only_file(ref.repo_id, snapshot.files)
        if file is not None:
            return _resolve_single_file(replace(resolved, ref=replace(ref, file=file)))
    elif ref.folder is not None and ref.folder.suffix == ".safetensors":
        return _resolve_single_file(ResolvedBase(ref, None, {}, {}))
    else:
        assert ref.folder is not None, "one of both is set"
        paths = [*ref.folder.glob("*"), *ref.folder.glob("*/*")]
        files = {path.relative_to(ref.folder).as_posix(): None for path in paths}
        resolved = ResolvedBase(ref, None, files, read_card(ref.folder / "README.md"))
    check_pipeline(str(ref.folder or ref.repo_id), resolved.files)
    if ref.components is not None:
        raise AdapterError(
            f"{ref.name} is a pipeline with components of its own, and --components names others.",
            "Leave --components out, or name a single .safetensors file as base.",
        )
    return resolved


def _only_file(repo_id: str, files: Mapping[str, int | None]) -> str | None:
    """Return the single file of a repo that is no pipeline; None for a pipeline.

    Raises:
        NotFoundError: It has several.
    """
    if "model_index.json" in files:
        return None
    found = [name for name in files if name.endswith(".safetensors") and "/" not in name]
    if len(found) > 1:
        listed = ", ".join(f"{repo_id}/{name}" for name in found[:_MOST_LISTED])
        raise NotFoundError(
            f"{repo_id} is no diffusers pipeline, and has {len(found)} single files.",
            f"Name one of them: {listed}",
        )
    return found[0] if found else None


def _resolve_single_file(base: ResolvedBase) -> ResolvedBase:
    ref = base.ref
    if ref.repo_id is None:
        assert ref.folder is not None, "one of both is set"
        if not ref.folder.is_file():
            raise NotFoundError(f"There is no file {ref.folder}.")
        header = read_file_header(ref.folder)
    else:
        assert ref.file is not None, "it was found"
        if ref.file not in base.files:
            raise NotFoundError(f"{ref.repo_id}@{str(base.commit)[:8]} has no file {ref.file!r}.")
        header = _remote_header(ref.repo_id, str(base.commit), ref.file)
    single = read_single_file(header, ref.name)
    named = ref.components
    if named is None and not single.version_of:
        known = ", ".join(single.family.known_bases.architectures)
        raise AdapterError(
            f"{ref.name} is a single file of the family {single.family.name}, and does not say of "
            "which base model it is a version.",
            f"Name that one: --components with one of {known}",
        )
    if named is None:
        components = BaseRef.parse(single.version_of)
    elif named.kind == "repo":
        components = BaseRef(named.repo_id, None, named.revision)
    else:
        components = BaseRef(None, Path(named.location).expanduser())
    return replace(base, single=single, components=resolve_base(components))


def _remote_header(repo_id: str, commit: str, file: str) -> Header:
    if is_offline():
        return read_file_header(download(repo_id, commit, file))
    return read_header(range_reader(repo_id, commit, file), Path(file).name)


def read_family(base: ResolvedBase) -> Family:
    """Return the family of a base, of which only the index is downloaded.

    Raises:
        AdapterError: No family has its pipeline class.
        HubError: The Hub cannot be reached and the index is not cached.
    """
    if base.single is not None:
        return base.single.family
    folder = base.ref.folder
    if base.ref.repo_id is not None:
        assert base.commit is not None, "resolving sets the commit"
        folder = download(base.ref.repo_id, base.commit, "model_index.json").parent
    assert folder is not None, "one of both is set"
    return family_of_folder(folder)


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
    if base.single is not None:
        return _download_single_file(base, base.single, callback)
    folder = base.ref.folder
    if base.ref.repo_id is not None:
        assert base.commit is not None, "resolving sets the commit"
        progress = downloading(callback)
        folder = download_pipeline(
            base.ref.repo_id, base.commit, base.files, without=without, progress=progress
        )
    assert folder is not None, "one of both is set"
    return Base(base.ref.name, base.commit, folder, base.card, family_of_folder(folder))


def _download_single_file(base: ResolvedBase, single: SingleFile, callback: Callback) -> Base:
    """Download a single file and what it lacks; return the pipeline that both make."""
    ref, parts = base.ref, base.components
    assert parts is not None, "resolving sets them"
    label = f"{ref.name}@{base.commit[:8]}" if base.commit else ref.name
    folder, version = _download_components(parts, single, callback)
    if ref.repo_id is not None:
        progress = downloading(callback)
        file = download(ref.repo_id, str(base.commit), str(ref.file), progress=progress)
    else:
        assert ref.folder is not None, "one of both is set"
        file = ref.folder
    if (family := family_of_folder(folder)) is not single.family:
        raise AdapterError(
            f"{label} is a single file of the family {single.family.name}, and {parts.ref.name}, "
            f"whose components it is to have, is of {family.name}.",
            "Name the base model that it is a version of: --components owner/name",
        )
    digest = remembered_sha256(file)
    whole = convert_single_file(file, single, folder, f"{digest} {version}", label)
    return Base(ref.name, base.commit, whole, base.card, family, digest, version)


def _download_components(
    parts: ResolvedBase, single: SingleFile, callback: Callback
) -> tuple[Path, str]:
    """Download a pipeline without the weights that a single file has; return its folder and what
    tells it from others."""
    if parts.ref.repo_id is None:
        folder = parts.ref.folder
        assert folder is not None, "one of both is set"
        return folder, f"{folder.resolve().name} {hash_components(folder, components_of(folder))}"
    repo_id, commit = parts.ref.repo_id, str(parts.commit)
    components = read_components(download(repo_id, commit, "model_index.json"))
    own = tuple(f"{name}/" for name in single.replaced)
    names = [
        name
        for name in pipeline_files(parts.files, components)
        if not (name.endswith(".safetensors") and name.startswith(own))
    ]
    progress = downloading(callback)
    return download_files(repo_id, commit, parts.files, names, progress), f"{repo_id}@{commit}"
