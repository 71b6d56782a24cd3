"""Compositions: adapter refs ─ compose ─▶ lockfile or merged adapter ─ share ─▶ me/mix@commit."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora._version import __version__
from hublora.adapters.adapter import Adapter, AdapterFacts
from hublora.adapters.licenses import Meet
from hublora.cards.composition import CompositionFacts, PartFacts, write_composition_card
from hublora.cards.facts import Picture
from hublora.errors import ConfigError, HubloraError
from hublora.filesystem import write_atomically
from hublora.generation.mixing import Way
from hublora.hub.layout import LOCK, WEIGHTS
from hublora.hub.push import Pushed, check_can_push
from hublora.hub.resolve import inspect_repo
from hublora.workflows.composition import Composition, license_of
from hublora.workflows.drawing import draw, save
from hublora.workflows.loading import load
from hublora.workflows.lock import Lock, LockedBase, LockedPart
from hublora.workflows.parts import OpenPart, open_parts, settle
from hublora.workflows.progress import Note, Observer, Wrote, ignore
from hublora.workflows.share import push

if TYPE_CHECKING:
    from hublora.generation.sample import Sampling

_GALLERY = 4  # pictures


@dataclass(frozen=True)
class Composed:
    """What composing left behind.

    Attributes:
        folder: The repo folder; gone where it was only pushed.
        error: Of a merged adapter, against the exact weighted sum; None where nothing was merged.
        pushed: Where it went.
    """

    folder: Path | None
    error: float | None = None
    pushed: Pushed | None = None


def compose(
    refs: Sequence[str],
    *,
    output: Path | None = None,
    push_to: str | None = None,
    private: bool = False,
    way: Way | None = None,
    weights: Mapping[str, str | float] | None = None,
    template: str | None = None,
    prompts: Sequence[str] = (),
    seed: int = 0,
    base: str | None = None,
    base_revision: str | None = None,
    device: str | None = None,
    observer: Observer = ignore,
    **sampling: Any,
) -> Composed:
    """Write, and push if `push_to` is given, a composition that is used as if it were one adapter.

    Args:
        refs: Adapters on the Hub.
        output: Folder to keep; at least one of `output` and `push_to` is needed.
        push_to: owner/name of the repo.
        private: Create it private.
        way: How the adapters act together; "sum" if not given.
        weights: As for `load`.
        template: Of prompts: `{prompt}` stands for what a person types.
        prompts: Of the gallery; from the adapters' own cards if not given.
        seed: Of the gallery's first picture.
        base: As for `load`.
        base_revision: As for `load`.
        device: As for `load`.
        observer: Is told what happens.
        sampling: As for `run`.

    Raises:
        HubloraError: As `load` and `push`; ConfigError where a part is not on the Hub.
    """
    _need_a_place(output, push_to)
    if template is not None and "{prompt}" not in template:
        raise ConfigError(f"The template {template!r} has no {{prompt}}.", "Put it in.")
    if push_to:
        check_can_push(push_to)
    pipe = load(
        *refs,
        base=base,
        base_revision=base_revision,
        compose=way,
        weights=weights,
        device=device,
        observer=observer,
    )
    lock = make_lock(pipe.hublora, template)
    typed = list(prompts) or usual_prompts(pipe.hublora.parts)
    plans = [
        pipe.hublora.base.sampling(lock.fill(text), seed=seed + index, **sampling)
        for index, text in enumerate(typed)
    ]
    with tempfile.TemporaryDirectory(prefix="hublora-") as temporary:
        folder = output or Path(temporary)
        write_atomically(folder / LOCK, lock.render())
        _draw_gallery(pipe, plans, folder, observer)
        write_composition_card(folder, _card(pipe.hublora, lock, push_to, folder, plans, typed[0]))
        if output:
            observer(Wrote("composition", output))
        pushed = push(folder, push_to, private=private, observer=observer) if push_to else None
    return Composed(output, None, pushed)


def merge(
    refs: Sequence[str],
    output: Path | None = None,
    *,
    method: str = "cat",
    rank: int | None = None,
    density: float = 0.5,
    seed: int = 0,
    push_to: str | None = None,
    private: bool = False,
    base: str | None = None,
    observer: Observer = ignore,
) -> Composed:
    """Write, and push if `push_to` is given, one adapter that is made of several.

    Args:
        refs: Adapters and their weights.
        output: Folder of the new adapter; at least one of `output` and `push_to` is needed.
        method: One of `hublora.adapters.merging.METHODS`.
        rank: The largest rank; that of the largest adapter unless given.
        density: Share of the values that ties, dare and magnitude_prune keep.
        seed: Of what dare drops.
        push_to: owner/name of a repo.
        private: Create it private.
        base: Hub id of the base; the one that the adapters name if not given.
        observer: Is told what happens.

    Raises:
        HubloraError: A ref cannot be opened, or the adapters cannot be merged that way.
    """
    from hublora.adapters.files import save_tensors
    from hublora.adapters.formats import to_diffusers
    from hublora.adapters.merging import merge as merge_adapters
    from hublora.adapters.merging import share_facts

    _need_a_place(output, push_to)
    if push_to:
        check_can_push(push_to)
    parts = open_parts(settle(refs), observer).parts
    for part in parts:
        if part.tokens:
            raise ConfigError(
                f"{part.title} brings learned tokens, which a merged adapter cannot hold.",
                "Leave --merge out: a composition keeps them.",
            )
    merged = merge_adapters(
        [(part.adapter, _plain(part)) for part in parts],
        method,
        rank=rank,
        density=density,
        seed=seed,
    )
    facts = AdapterFacts(**share_facts([part.adapter for part in parts]))
    name = base or facts.base_model
    with tempfile.TemporaryDirectory(prefix="hublora-") as temporary:
        folder = output or Path(temporary)
        title = (push_to or folder.resolve().name).split("/")[-1]
        tensors, metadata = to_diffusers(Adapter(merged.adapter.layers))
        metadata |= _metadata(facts, name, title, method, parts)
        save_tensors(tensors, folder / WEIGHTS, metadata)
        write_composition_card(
            folder, _merged_card(parts, facts, name, title, push_to, method, merged.error)
        )
        observer(Note(f"Relative error against the exact weighted sum: {merged.error:.2g}"))
        pushed = (
            push(folder, push_to, private=private, base=base, observer=observer)
            if push_to
            else None
        )
    return Composed(output, merged.error, pushed)


def make_lock(composition: Composition, template: str | None) -> Lock:
    """Return the lockfile of what a pipeline was put together from.

    Raises:
        ConfigError: A part or the base is not on the Hub.
    """
    base = composition.base
    if base.commit is None:
        raise ConfigError(
            f"The base {base.name} is a folder, which nobody else has.", "Name one on the Hub."
        )
    parts = tuple(_lock_part(part) for part in composition.parts)
    if not parts:
        raise ConfigError("A composition needs at least one adapter.")
    return Lock(
        base=LockedBase(repo=base.name, commit=base.commit, license=license_of(base.card)),
        compose=composition.way,
        prompt=template or (composition.lock.prompt if composition.lock else None),
        parts=parts,
    )


def _lock_part(part: OpenPart) -> LockedPart:
    ref, facts = part.ref, part.adapter.facts
    if ref.kind != "repo" or ref.revision is None or ref.path is None or facts.sha256 is None:
        raise ConfigError(
            f"{part.title} is not on the Hub, so nobody else could use the composition.",
            "Push it first, or make one adapter with --merge cat.",
        )
    followed = part.asked.revision if part.asked.revision != ref.revision else None
    return LockedPart(
        repo=ref.location,
        revision=followed,
        commit=ref.revision,
        file=ref.path,
        sha256=facts.sha256,
        weight=str(part.weight),
        license=facts.license,
    )


def _draw_gallery(pipe: Any, plans: Sequence[Sampling], folder: Path, observer: Observer) -> None:
    for index, image in enumerate(draw(pipe, plans, "auto", observer)):
        save(image, folder / "images" / f"{index}.png", pipe.hublora, plans[index], "auto")


def _card(
    composition: Composition,
    lock: Lock,
    repo_id: str | None,
    folder: Path,
    plans: Sequence[Sampling],
    example: str,
) -> CompositionFacts:
    words = (word for part in composition.parts for word in part.adapter.facts.trigger_words)
    return CompositionFacts(
        title=(repo_id or folder.resolve().name).split("/")[-1],
        repo_id=repo_id,
        base=lock.base.repo,
        base_commit=lock.base.commit,
        parts=tuple(
            PartFacts(part.repo, part.weight, part.commit, part.license) for part in lock.parts
        ),
        way=lock.compose,
        meet=composition.licenses,
        family_tags=composition.base.family.card_tags,
        trigger_words=tuple(dict.fromkeys(words)),
        hublora_version=__version__,
        example=example,
        template=lock.prompt,
        gallery=tuple(
            Picture(f"images/{index}.png", plan.prompt, plan.negative_prompt, plan.seed)
            for index, plan in enumerate(plans)
        ),
    )


def _merged_card(
    parts: Sequence[OpenPart],
    facts: AdapterFacts,
    base: str | None,
    title: str,
    repo_id: str | None,
    method: str,
    error: float,
) -> CompositionFacts:
    licenses = {base: _base_license(base)} if base and not Path(base).exists() else {}
    licenses |= {part.title: part.adapter.facts.license for part in parts}
    return CompositionFacts(
        title=title,
        repo_id=repo_id,
        base=base if base and not Path(base).exists() else None,
        base_commit=facts.base_revision,
        parts=tuple(
            PartFacts(
                part.title,
                str(part.weight),
                part.ref.revision,
                part.adapter.facts.license,
                part.ref.kind == "repo",
            )
            for part in parts
        ),
        way="sum",
        meet=Meet(licenses),
        family_tags=(),
        trigger_words=facts.trigger_words,
        hublora_version=__version__,
        merged=method,
        error=error,
    )


def _base_license(repo_id: str) -> str | None:
    """Return the licence of a base that need not be downloaded for this."""
    try:
        return license_of(inspect_repo(repo_id).card)
    except HubloraError:
        return None  # away or gone: unknown


def _metadata(
    facts: AdapterFacts, base: str | None, title: str, method: str, parts: Sequence[OpenPart]
) -> dict[str, str]:
    made_of = "|".join(f"{part.title}:{part.weight}" for part in parts)
    found = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": title,
        "modelspec.trigger_phrase": ", ".join(facts.trigger_words),
        "hublora.version": __version__,
        "hublora.base_model": base if base and not Path(base).exists() else "",
        "hublora.base_revision": facts.base_revision or "",
        "hublora.family": facts.family or "",
        "hublora.trigger_words": ", ".join(facts.trigger_words),
        "hublora.merged": f"{method} {made_of}",
    }
    return {key: value for key, value in found.items() if value}


def _plain(part: OpenPart) -> float:
    if part.weight.number is None:
        raise ConfigError(
            f"The weight {part.weight} of {part.title} moves or differs by block.",
            "Leave --merge out: a composition keeps it.",
        )
    return part.weight.number


def _need_a_place(output: Path | None, push_to: str | None) -> None:
    if output is None and push_to is None:
        raise ConfigError(
            "Nowhere to put the composition.", "Add -o FOLDER, --push-to-hub owner/name or both."
        )


def usual_prompts(parts: Sequence[OpenPart]) -> list[str]:
    """Return the prompts that the adapters' own galleries show, the first of each first."""
    shown = [_widget_prompts(part.card) for part in parts]
    longest = max(map(len, shown), default=0)
    mixed = [texts[i] for i in range(longest) for texts in shown if i < len(texts)]
    return list(dict.fromkeys(mixed))[:_GALLERY] or ["a landscape"]


def _widget_prompts(card: Mapping[str, Any]) -> list[str]:
    widget = card.get("widget")
    entries = widget if isinstance(widget, list) else []
    texts = [entry.get("text") for entry in entries if isinstance(entry, dict)]
    return [text for text in texts if isinstance(text, str) and text.strip()]
