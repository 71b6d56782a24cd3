"""Is it made again? Adapter ─ its recipe ─▶ the same training ─▶ how alike both adapters are."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hublora.adapters.files import load_adapter
from hublora.adapters.header import read_file_header
from hublora.adapters.similarity import Similarity, similarity_of
from hublora.filesystem import sha256_of
from hublora.hub.repo_layout import WEIGHTS
from hublora.progress import Callback, no_callback
from hublora.training.config.training_config import TrainingConfig
from hublora.workflows.repo_checks import trained_files
from hublora.workflows.train.recipe import drift_since, read_recipe, remake, report_changes
from hublora.workflows.train.train import train
from hublora.workflows.verify import downloaded_repo

# Two trainings of one recipe in another precision are more alike than this, with another seed far
# less (docs/training.md has figures).
MIN_COSINE = 0.95


@dataclass(frozen=True)
class Reproduced:
    """An adapter and the one that its recipe gives now.

    Attributes:
        label: The repo at its commit, or the folder.
        same_bytes: Whether both files are the same.
        similarity: Cosine and difference of the updates.
        images: Mean difference of the galleries' images in 8-bit levels; None without any.
        drift: Sentences about versions and devices that differ.
        exact: Whether the bytes had to be the same: on a CPU, where nothing drifted.
        folder: Run folder of the new training; None if it was removed.
    """

    label: str
    same_bytes: bool
    similarity: Similarity
    images: float | None
    drift: tuple[str, ...]
    exact: bool
    folder: Path | None

    @property
    def holds(self) -> bool:
        """Whether the recipe gives the adapter."""
        return self.same_bytes or (not self.exact and self.similarity.cosine >= MIN_COSINE)


def reproduce(
    ref: str,
    *,
    given: Mapping[str, Any] | None = None,
    output: Path | None = None,
    callback: Callback = no_callback,
) -> Reproduced:
    """Train an adapter again as its repo says it was made, and compare.

    Args:
        ref: owner/name, with @revision if it is not the newest; or the folder of a run.
        given: Settings that win over the recorded ones, such as where a folder of images is.
        output: Folder to train in, which is kept; a temporary one if not given.
        callback: Is told what happens.

    Raises:
        HubloraError: It does not say how it was made, or cannot be trained here.
    """
    recipe = read_recipe(ref)
    drift = drift_since(recipe)
    with downloaded_repo(ref, callback) as copy, _somewhere(output) as above:
        original = copy.folder
        header = read_file_header(original / trained_files(original)[0])
        # The adapter's file says its title, which is its folder's name.
        folder = above / Path(header.metadata.get("modelspec.title", recipe.name)).name
        # A cache of its own: what an older VAE encoded would hide what a newer one does.
        own = {"output_dir": folder, "data.cache_dir": above / "cache"}
        changes = {**(given or {}), **own}
        config = TrainingConfig.from_settings(remake(recipe, changes))
        report_changes(recipe, changes, callback)
        train(config, callback=callback)
        return Reproduced(
            label=copy.label,
            same_bytes=_hashes(original) == _hashes(folder),
            similarity=compare(original, folder),
            images=_images_apart(original, folder),
            drift=drift,
            exact=not drift and "cpu_threads" in recipe.environment,
            folder=folder if output else None,
        )


def _hashes(folder: Path) -> dict[str, str]:
    return {name: sha256_of(folder / name) for name in trained_files(folder)}


def compare(one: Path, other: Path) -> Similarity:
    """Return how alike what two folders have learned is: the adapters or the words, whichever are
    less so.

    Raises:
        AdapterError: A file is damaged.
        NotFoundError: The first one has learned nothing.
    """
    both = [name for name in trained_files(one) if (other / name).is_file()]
    found = [
        similarity_of(load_adapter(one / name), load_adapter(other / name))
        if name == WEIGHTS
        else _of_words(one / name, other / name)
        for name in both
    ]
    return min(found, key=lambda like: like.cosine, default=Similarity(0.0, 1.0))


def _of_words(one: Path, other: Path) -> Similarity:
    """Compare the vectors of learned words as one long vector."""
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
def _somewhere(output: Path | None) -> Iterator[Path]:
    if output is not None:
        yield output
        return
    with tempfile.TemporaryDirectory(prefix="hublora-reproduce-") as folder:
        yield Path(folder)


def _images_apart(one: Path, other: Path) -> float | None:
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
