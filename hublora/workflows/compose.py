"""Composes adapters: adapter refs ─ compose ─▶ lockfile and card ─ push ─▶ me/mix@commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from hublora._version import __version__
from hublora.cards.composition import CompositionFacts, PartFacts, write_composition_card
from hublora.cards.facts import GalleryImage, SamplingFacts
from hublora.errors import ConfigError
from hublora.filesystem import temporary_folder, write_atomically
from hublora.generation.composition import Composition
from hublora.generation.generate import generate, save
from hublora.generation.options import (
    ComposeOptions,
    GalleryOptions,
    LoadOptions,
    check_options,
    pick,
    pick_sampling,
)
from hublora.generation.outputs import check_destination
from hublora.generation.sample import sampling_with, use_scheduler_of
from hublora.hub.push import PushResult, check_can_push
from hublora.hub.repo_layout import LOCK
from hublora.hub.resolve import license_of
from hublora.notebook import NotebookResult
from hublora.progress import Callback, FileWritten, Note, default_callback
from hublora.refs import parse_repo_id
from hublora.resolution.composition_parts import LoadedAdapter
from hublora.resolution.lockfile import LockedBase, LockedPart, Lockfile
from hublora.workflows.load import load_pipeline
from hublora.workflows.push import push


@dataclass(frozen=True)
class Composed(NotebookResult):
    """A composition, or a merged adapter, that was written.

    Attributes:
        folder: Folder of the repo; None if it was only pushed.
        error: Relative error of a merged adapter against the exact weighted sum; else None.
        pushed: Repo and commit; None without a push.
    """

    folder: Path | None
    error: float | None = None
    pushed: PushResult | None = None


def compose(
    refs: Sequence[str],
    *,
    output: Path | str | None = None,
    push_to: str | None = None,
    private: bool = False,
    template: str | None = None,
    callback: Callback = default_callback,
    **options: Unpack[ComposeOptions],
) -> Composed:
    """Write, and push if `push_to` is given, a composition that loads like one adapter.

    Args:
        refs: Refs of adapters on the Hub, with their weights.
        output: Folder to write; at least one of `output` and `push_to` is needed.
        push_to: owner/name of the repo.
        private: Create the repo private.
        template: Prompt template; `{prompt}` stands for the prompt that is typed.
        callback: Called with each event (`hublora.progress.Event`).
        options: Keywords of `load`, sampling keywords of `run`, and the following.
        prompts: Prompts of the gallery; those of the adapters' cards by default.
        gallery: Generate images for the card; True by default.

    Raises:
        HubloraError: As `load` and `push`; ConfigError if an adapter is not on the Hub.
    """
    check_options(options, ComposeOptions, compose)
    output = None if output is None else Path(output)
    check_destination(output, push_to)
    check_gallery(options)
    if template is not None and "{prompt}" not in template:
        raise ConfigError(f"The template must contain {{prompt}}, got {template!r}.", "Add it.")
    if push_to:
        push_to = check_can_push(push_to)
    pipe = load_pipeline(refs, pick(options, LoadOptions), callback)
    lock = make_lock(pipe.hublora, template)
    typed = list(options.get("prompts", ())) or default_prompts(pipe.hublora.adapters)
    plans = gallery_plans(pipe, [lock.fill(text) for text in typed], options)
    with temporary_folder("compose") as temporary:
        folder = output or temporary
        write_atomically(folder / LOCK, lock.render())
        gallery = (
            generate_gallery(pipe, plans, folder, callback)
            if options.get("gallery", True)
            else Gallery()
        )
        card = _card(pipe.hublora, lock, push_to, folder, gallery, typed[0])
        write_composition_card(folder, card)
        if output:
            callback(FileWritten("composition", output))
        pushed = push(folder, push_to, private=private, callback=callback) if push_to else None
    return Composed(output, None, pushed)


def check_gallery(options: Mapping[str, Any], seed_matters: bool = False) -> None:
    """Refuse settings of images where none are generated.

    Args:
        options: Keywords of `compose` or `merge`.
        seed_matters: Whether the seed has an effect besides the images.

    Raises:
        ConfigError: There are some.
    """
    given = {**pick_sampling(options), "prompts": options.get("prompts")}
    ignored = [
        name for name, value in given.items() if value and not (seed_matters and name == "seed")
    ]
    if not options.get("gallery", True) and ignored:
        raise ConfigError(
            f"Without images for the card, {', '.join(ignored)} would have no effect.",
            "Leave them out, or generate the images.",
        )


def make_lock(composition: Composition, template: str | None) -> Lockfile:
    """Return the lockfile of a pipeline's base and adapters.

    Raises:
        ConfigError: An adapter or the base is not on the Hub.
    """
    base = composition.base
    if base.commit is None:
        raise ConfigError(
            f"The base {base.name} is a local folder and cannot be pinned.",
            "Name a base on the Hub.",
        )
    if base.sha256 is not None:
        raise ConfigError(
            f"A composition needs a pipeline on the Hub as base, and {base.name} is a single file.",
            f"Compose on a pipeline, such as --base {str(base.components).partition('@')[0]}.",
        )
    parts = tuple(_lock_part(part) for part in composition.adapters)
    if not parts:
        raise ConfigError("A composition needs at least one adapter.")
    return Lockfile(
        base=LockedBase(
            repo=parse_repo_id(base.name), commit=base.commit, license=license_of(base.card)
        ),
        compose=composition.mode,
        prompt=template or (composition.lock.prompt if composition.lock else None),
        parts=parts,
    )


def _lock_part(part: LoadedAdapter) -> LockedPart:
    ref, facts = part.ref, part.adapter.facts
    if ref.kind != "repo" or ref.revision is None or ref.path is None or facts.sha256 is None:
        raise ConfigError(
            f"{part.title} is not on the Hub and cannot be pinned.",
            "Push it first, or merge the adapters with --merge cat.",
        )
    followed = part.asked.revision if part.asked.revision != ref.revision else None
    return LockedPart(
        repo=ref.repo_id,
        revision=followed,
        commit=ref.revision,
        file=ref.path,
        sha256=facts.sha256,
        weight=str(part.weight),
        license=facts.license,
    )


def _card(
    composition: Composition,
    lock: Lockfile,
    repo_id: str | None,
    folder: Path,
    gallery: Gallery,
    example: str,
) -> CompositionFacts:
    triggers = (word for part in composition.adapters for word in part.adapter.facts.trigger_words)
    return CompositionFacts(
        title=(repo_id or folder.resolve().name).split("/")[-1],
        repo_id=repo_id,
        base=lock.base.repo,
        base_commit=lock.base.commit,
        parts=tuple(
            PartFacts(part.repo, part.weight, part.commit, part.license) for part in lock.parts
        ),
        mode=lock.compose,
        licenses=composition.licenses,
        family_tags=composition.base.family.card_tags,
        trigger_words=tuple(dict.fromkeys(triggers)),
        hublora_version=__version__,
        example=example,
        template=lock.prompt,
        gallery=gallery.images,
        sampling=gallery.sampling,
    )


if TYPE_CHECKING:
    from hublora.generation.sample import Sampling

_GALLERY = 4  # most prompts of a gallery


@dataclass(frozen=True)
class Gallery:
    """Gallery of a card.

    Attributes:
        images: Path, prompt and seed of each image, in order; empty without a gallery.
        sampling: Sampling settings that all images share.
    """

    images: tuple[GalleryImage, ...] = ()
    sampling: SamplingFacts = field(default_factory=SamplingFacts)


def generate_gallery(
    pipe: Any, plans: Sequence[Sampling], folder: Path, callback: Callback
) -> Gallery:
    """Generate the images of a gallery into the folder of a repo.

    Args:
        pipe: Pipeline that `load` returned.
        plans: Sampling settings of each image, which differ in prompt and seed.
        folder: Folder of the repo; the images are written to images/ inside.
        callback: Called with each event (`hublora.progress.Event`).
    """

    images, sampling = [], SamplingFacts()
    base = pipe.hublora.base
    if plans and base.family.references.required:
        callback(Note(f"There is no gallery: {base.name} needs a reference image for each image."))
        plans = ()
    if plans:
        use_scheduler_of(pipe, plans[0])
    for index, image in enumerate(generate(pipe, plans, "auto", callback)):
        name, plan = f"images/{index}.png", plans[index]
        save(image, folder / name, pipe.hublora, plan, "auto")
        added = pipe.hublora.expand(plan.prompt).added
        images.append(GalleryImage(name, plan.prompt, plan.negative_prompt, plan.seed, added))
        sampling = SamplingFacts(
            plan.num_inference_steps,
            plan.guidance_scale,
            plan.scheduler or pipe.hublora.scheduler,
            *image.size,
        )
    return Gallery(tuple(images), sampling)


def gallery_plans(
    pipe: Any, prompts: Sequence[str], options: GalleryOptions | ComposeOptions
) -> list[Sampling]:
    """Return the sampling settings of a gallery's prompts, with consecutive seeds."""
    sampling = pick_sampling(options)
    seed = sampling.pop("seed", 0)
    return [
        sampling_with(pipe.hublora, text, seed=seed + index, **sampling)
        for index, text in enumerate(prompts)
    ]


def default_prompts(parts: Sequence[LoadedAdapter]) -> list[str]:
    """Return up to 4 prompts of the adapters' card galleries, the first of each adapter first."""
    prompts = [_widget_prompts(part.card) for part in parts]
    longest = max(map(len, prompts), default=0)
    mixed = [texts[i] for i in range(longest) for texts in prompts if i < len(texts)]
    return list(dict.fromkeys(mixed))[:_GALLERY] or ["a landscape"]


def _widget_prompts(card: Mapping[str, Any]) -> list[str]:
    widget = card.get("widget")
    entries = widget if isinstance(widget, list) else []
    texts = [entry.get("text") for entry in entries if isinstance(entry, dict)]
    return [text for text in texts if isinstance(text, str) and text.strip()]
