"""Reproduces trainings: adapter ─ recorded settings ─▶ same training ─▶ similarity of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hublora.adapters.files import load_adapter
from hublora.adapters.header import read_file_header
from hublora.adapters.similarity import Similarity, similarity_of
from hublora.filesystem import sha256_of, temporary_folder
from hublora.hub.repo_layout import WEIGHTS
from hublora.progress import Callback, default_callback
from hublora.training.config.training_config import TrainingConfig
from hublora.workflows.repo_checks import trained_files
from hublora.workflows.train.recipe import drift_since, read_recipe, remake, report_changes
from hublora.workflows.train.train import train
from hublora.workflows.verify import downloaded_repo

# Least cosine of two trainings with the same settings. Another precision stays above it, another
# seed falls far below (figures in docs/training.md).
MIN_COSINE = 0.95


@dataclass(frozen=True)
class Reproduced:
    """Comparison of an adapter with the one that its recorded settings give now.

    Attributes:
        label: Repo id and commit, or the folder.
        same_bytes: Whether the files of the weights are equal.
        similarity: Cosine and relative difference of the updates.
        images: Mean difference of the galleries' images in 8-bit levels; None without any.
        drift: Sentences about versions and devices that differ.
        exact: Whether the bytes must be equal: on a CPU, without drift.
        folder: Run folder of the new training; None if it was temporary.
    """

    label: str
    same_bytes: bool
    similarity: Similarity
    images: float | None
    drift: tuple[str, ...]
    exact: bool
    folder: Path | None

    @property
    def is_reproduced(self) -> bool:
        """Whether the training reproduces the adapter."""
        return self.same_bytes or (not self.exact and self.similarity.cosine >= MIN_COSINE)


def reproduce(
    ref: str,
    *,
    given: Mapping[str, Any] | None = None,
    output: Path | None = None,
    callback: Callback = default_callback,
) -> Reproduced:
    """Repeat the training of an adapter from its recorded settings, and compare both adapters.

    Args:
        ref: owner/name, optionally with @revision; or a run folder.
        given: Dotted settings that replace the recorded ones, e.g. {"data.folder": "images"}.
        output: Folder to train in; a temporary one by default, removed afterwards.
        callback: Called with each event (`hublora.progress.Event`).

    Raises:
        HubloraError: No settings are recorded, or the training cannot run here.
    """
    recipe = read_recipe(ref)
    drift = drift_since(recipe)
    with downloaded_repo(ref, callback) as copy, _output_folder(output) as above:
        original = copy.folder
        header = read_file_header(original / trained_files(original)[0])
        # The title in the adapter file is the name of its run folder.
        folder = above / Path(header.metadata.get("modelspec.title", recipe.name)).name
        # A cache of its own: cached latents of an older VAE would hide a difference.
        own = {"output_dir": folder, "data.cache_dir": above / "cache"}
        changes = {**(given or {}), **own}
        config = TrainingConfig.from_settings(remake(recipe, changes))
        report_changes(recipe, changes, callback)
        train(config, callback=callback)
        return Reproduced(
            label=copy.label,
            same_bytes=_hashes(original) == _hashes(folder),
            similarity=compare(original, folder),
            images=_image_difference(original, folder),
            drift=drift,
            exact=not drift and "cpu_threads" in recipe.environment,
            folder=folder if output else None,
        )


def _hashes(folder: Path) -> dict[str, str]:
    return {name: sha256_of(folder / name) for name in trained_files(folder)}


def compare(one: Path, other: Path) -> Similarity:
    """Return the similarity of the weights in two run folders: the lower one of adapter and token
    embeddings.

    Raises:
        AdapterError: A file is damaged.
        NotFoundError: `one` has no weights.
    """
    both = [name for name in trained_files(one) if (other / name).is_file()]
    found = [
        similarity_of(load_adapter(one / name), load_adapter(other / name))
        if name == WEIGHTS
        else _token_similarity(one / name, other / name)
        for name in both
    ]
    return min(found, key=lambda like: like.cosine, default=Similarity(0.0, 1.0))


def _token_similarity(one: Path, other: Path) -> Similarity:
    """Return the similarity of token embeddings, as one vector each."""
    import torch
    from safetensors.torch import load_file

    first, second = load_file(one), load_file(other)
    if {name: t.shape for name, t in first.items()} != {
        name: t.shape for name, t in second.items()
    }:
        return Similarity(0.0, 1.0)
    a, b = (
        torch.cat([tensors[name].flatten().double() for name in sorted(first)])
        for tensors in (first, second)
    )
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=0).item()
    return Similarity(cosine, ((a - b).norm() / a.norm()).item())


@contextmanager
def _output_folder(output: Path | None) -> Iterator[Path]:
    if output is not None:
        yield output
        return
    with temporary_folder("reproduce") as folder:
        yield folder


def _image_difference(one: Path, other: Path) -> float | None:
    """Return the mean difference of the images that both galleries have."""
    from PIL import Image

    from hublora.generation.gallery import gallery_images
    from hublora.generation.sample import image_difference

    differences = []
    for path, _ in gallery_images(one):
        if (again := other / "images" / path.name).is_file():
            with Image.open(path) as first, Image.open(again) as second:
                differences.append(image_difference(first, second))
    return sum(differences) / len(differences) if differences else None
