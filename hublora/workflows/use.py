"""Use: adapter refs ─ resolve ─▶ adapters ─▶ compose ─▶ picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora._version import __version__
from hublora.adapters.adapter import Adapter, AdapterFacts
from hublora.errors import AdapterError, ConfigError, NotFoundError
from hublora.refs import parse_refs
from hublora.workflows.adapters import open_adapter
from hublora.workflows.bases import Base, open_base
from hublora.workflows.outputs import output_paths, save_grid
from hublora.workflows.progress import Note, Observer, Stage, Wrote, ignore

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from hublora.generation.sample import Sampling


@dataclass(frozen=True)
class Composition:
    """What a pipeline was put together from; `hublora.load` leaves it in `pipe.hublora`.

    Attributes:
        base: The base at its commit.
        adapters: Facts and weight of each adapter, in order.
        dtype: Torch name of the weights' type, e.g. "float32".
    """

    base: Base
    adapters: tuple[tuple[AdapterFacts, float], ...]
    dtype: str

    def facts(self) -> dict[str, Any]:
        """Return what a picture says about it."""
        return {
            "hublora": __version__,
            "base": self.base.name,
            "base_revision": self.base.commit,
            "dtype": self.dtype,
            "adapters": [
                {"ref": facts.source, "weight": weight, "sha256": facts.sha256}
                for facts, weight in self.adapters
            ],
        }


def load(
    *refs: str,
    base: str | None = None,
    base_revision: str | None = None,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    observer: Observer = ignore,
) -> Any:
    """Return the diffusers pipeline of the base with the adapters active.

    Args:
        refs: Adapter refs such as "user/name", "user/name@main:0.7" or a file; none for the base.
        base: Hub id or folder of the base; found from the adapters' own facts if not given.
        base_revision: Branch, tag or commit of `base`.
        device: A torch device; a GPU if there is one.
        dtype: Type of the weights; float16 on a GPU, float32 elsewhere.
        observer: Is told what happens.

    Raises:
        RefError: A ref does not parse.
        NotFoundError: A repo, revision or file is not there.
        AdapterError: A file is broken, or does not fit the base.
    """
    import torch

    from hublora.generation.compose import Part, apply_adapters

    parsed = parse_refs(refs)
    device = _check_device(device) if device else _default_device()
    adapters = [open_adapter(ref, observer) for ref in parsed]
    opened = _find_base(adapters, base, base_revision, observer)
    if dtype is None:
        dtype = torch.float32 if device.startswith("cpu") else torch.float16
    pipe = opened.load(dtype)
    parts = [Part(adapter, ref.weight) for adapter, ref in zip(adapters, parsed, strict=True)]
    apply_adapters(pipe, parts, opened.name)
    pipe.to(device)
    pipe.hublora = Composition(
        opened, tuple((part.adapter.facts, part.weight) for part in parts), str(dtype)[6:]
    )
    return pipe


def run(
    refs: Sequence[str],
    prompt: str,
    *,
    output: Path | None = None,
    num_images: int = 1,
    grid: bool = False,
    seed: int = 0,
    base: str | None = None,
    base_revision: str | None = None,
    device: str | None = None,
    scheduler: str | None = None,
    observer: Observer = ignore,
    **sampling: Any,
) -> list[Path]:
    """Draw `prompt` with the adapters and save the pictures as PNG.

    Args:
        refs: Adapter refs; none draws with `base` alone.
        prompt: What to draw.
        output: A .png file, or a folder; the current folder if not given.
        num_images: Pictures; the k-th has the seed `seed + k`.
        grid: Write one labelled sheet besides.
        seed: Of the first picture.
        base: As for `load`.
        base_revision: As for `load`.
        device: As for `load`.
        scheduler: Class name of a diffusers scheduler.
        observer: Is told what happens.
        sampling: Fields of `generation.sample.Sampling`; None means the base's own.

    Returns:
        The files written, the sheet last.

    Raises:
        HubloraError: As `load`, and ConfigError for a scheduler that does not fit.
    """
    from hublora.generation.sample import check_plan, sample_many, use_scheduler

    pipe = load(*refs, base=base, base_revision=base_revision, device=device, observer=observer)
    use_scheduler(pipe, scheduler)
    plan = pipe.hublora.base.sampling(prompt, scheduler=scheduler, **sampling)
    check_plan(pipe, pipe.hublora.base.family.size_step(pipe), plan)
    plans = [plan.with_seed(seed + index) for index in range(num_images)]
    paths = output_paths(output, prompt, [p.seed for p in plans])
    images = []
    steps = sample_many(pipe, plans, lambda done, n: observer(Stage("Drawing", done, n)))
    for image, one, path in zip(steps, plans, paths, strict=True):
        save(image, path, pipe.hublora, one)
        observer(Wrote("picture", path))
        images.append(image)
    if grid:
        paths.append(save_grid(images, plans, paths[0]))
        observer(Wrote("sheet", paths[-1]))
    return paths


def save(image: Image.Image, path: Path, composition: Composition, plan: Sampling) -> None:
    """Write a PNG that says how it was made."""
    from hublora.generation.metadata import save_picture

    facts = composition.facts() | {
        "sampling": plan.facts(),
        "size": f"{image.width}x{image.height}",
    }
    save_picture(image, path, facts)


def _find_base(
    adapters: Sequence[Adapter], base: str | None, revision: str | None, observer: Observer
) -> Base:
    if base is not None:
        return open_base(base, revision, observer)
    if not adapters:
        raise AdapterError("Neither an adapter nor a base was given.", "Name the base: --base …")
    stated = {a.facts.base_model: a for a in adapters if a.facts.base_model}
    if not stated:
        which = ", ".join(str(a.facts.source) for a in adapters)
        raise AdapterError(f"{which} does not say which base it was made for.", "Name it: --base …")
    if len(stated) > 1:
        said = "; ".join(f"{a.facts.source} for {name}" for name, a in stated.items())
        raise AdapterError(
            f"These adapters were made for different bases: {said}.", "Choose one with --base."
        )
    name = next(iter(stated))
    commits = {a.facts.base_revision for a in adapters if a.facts.base_revision}
    if len(commits) != 1 or Path(str(name)).exists():
        return open_base(str(name), observer=observer)
    try:
        return open_base(str(name), commits.pop(), observer)
    except NotFoundError:
        observer(Note(f"The commit of {name} that was trained on is gone; using main.", True))
        return open_base(str(name), observer=observer)


def _check_device(name: str) -> str:
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"PyTorch cannot use the device {name!r} here.", "Leave --device out, or name cpu."
        ) from error
    return name


def _default_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
