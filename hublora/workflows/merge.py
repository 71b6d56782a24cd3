"""Merges adapters: refs ─ merge ─▶ one adapter ─ generate ─▶ card, gallery ─ push ─▶ me/merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from hublora._version import __version__
from hublora.adapters.adapter import Adapter, AdapterFacts
from hublora.adapters.licenses import LicenseSummary
from hublora.adapters.metadata import MODELSPEC_VERSION, metadata_of_facts
from hublora.cards.composition import CompositionFacts, PartFacts, write_composition_card
from hublora.errors import ConfigError, HubloraError
from hublora.families import FAMILIES
from hublora.filesystem import temporary_folder
from hublora.generation.options import LoadOptions, MergeOptions, check_options, pick_sampling
from hublora.generation.outputs import check_destination
from hublora.hub.push import check_can_push
from hublora.hub.repo_layout import WEIGHTS
from hublora.hub.resolve import inspect_repo, license_of
from hublora.progress import Callback, Note, default_callback
from hublora.refs import parse_repo_id
from hublora.resolution.composition_parts import LoadedAdapter, load_adapters, parse_weighted_refs
from hublora.workflows.compose import (
    Composed,
    check_gallery,
    default_prompts,
    gallery_plans,
    generate_gallery,
)
from hublora.workflows.load import load_pipeline
from hublora.workflows.push import push


def merge(
    refs: Sequence[str],
    output: Path | str | None = None,
    *,
    method: str = "cat",
    rank: int | None = None,
    density: float = 0.5,
    push_to: str | None = None,
    callback: Callback = default_callback,
    **options: Unpack[MergeOptions],
) -> Composed:
    """Write, and push if `push_to` is given, one adapter merged from several.

    Args:
        refs: Adapter refs with their weights.
        output: Folder of the merged adapter; at least one of `output` and `push_to` is needed.
        method: One of `hublora.adapters.merging.METHODS`.
        rank: Largest rank of a layer, at least 1; that of the largest adapter by default.
        density: Share of the values that ties, dare and magnitude_prune retain, in (0, 1].
        push_to: owner/name of a repo.
        callback: Called with each event (`hublora.progress.Event`).
        options: Sampling keywords of `run` for the gallery, and the following.
        seed: Seed of the values that dare drops, and of the gallery's first image; 0 by default.
        private: Create the repo private.
        base: Repo id of the base; the one that the adapters name by default.
        device: As for `load`.
        prompts: Prompts of the gallery; those of the adapters' cards by default.
        gallery: Generate images for the card, if the base is known; True by default.

    Raises:
        HubloraError: A ref cannot be loaded, or `method` cannot merge the adapters.
    """
    from hublora.adapters.merging import common_facts
    from hublora.adapters.merging import merge as merge_adapters

    check_options(options, MergeOptions, merge)
    output = None if output is None else Path(output)
    check_destination(output, push_to)
    check_gallery(options, seed_matters=True)
    if push_to:
        push_to = check_can_push(push_to)
    parts = _open_plain(refs, callback)
    seed, base = pick_sampling(options).get("seed", 0), options.get("base")
    weighted = [(part.adapter, _plain(part)) for part in parts]
    merged = merge_adapters(weighted, method, rank=rank, density=density, seed=seed)
    facts = _of_one_base(AdapterFacts(**common_facts([part.adapter for part in parts])))
    name = base or facts.base_model
    with temporary_folder("merge") as temporary:
        folder = output or temporary
        title = (push_to or folder.resolve().name).split("/")[-1]
        _save(merged.adapter, folder, _metadata(facts, name, title, method, parts))
        card = _merged_card(parts, facts, name, title, push_to, method, merged.error)
        write_composition_card(folder, card)
        if options.get("gallery", True) and name:
            loading: LoadOptions = {"base": name, "device": options.get("device")}
            pipe = load_pipeline([str(folder.resolve())], loading, callback)
            plans = gallery_plans(pipe, options.get("prompts") or default_prompts(parts), options)
            images = generate_gallery(pipe, plans, folder, callback)
            tags = pipe.hublora.base.family.card_tags
            del pipe
            card = replace(
                card,
                gallery=images.images,
                sampling=images.sampling,
                example=images.images[0].prompt,
                family_tags=tags,
            )
            write_composition_card(folder, card)
        callback(Note(f"Relative error against the exact weighted sum: {merged.error:.2g}"))
        pushed = None
        if push_to:
            private = options.get("private", False)
            pushed = push(folder, push_to, private=private, base=base, callback=callback)
    return Composed(output, merged.error, pushed)


def _of_one_base(facts: AdapterFacts) -> AdapterFacts:
    """Return the facts for the base that the adapters are used on, which alone the card names."""
    if facts.generation_base is None:
        return facts
    return replace(
        facts,
        base_model=facts.generation_base,
        base_revision=facts.generation_revision,
        generation_base=None,
        generation_revision=None,
    )


def _open_plain(refs: Sequence[str], callback: Callback) -> tuple[LoadedAdapter, ...]:
    """Load adapters that have no token embeddings.

    Raises:
        ConfigError: An adapter has token embeddings.
    """
    parts = load_adapters(parse_weighted_refs(refs), callback).adapters
    for part in parts:
        if part.tokens:
            raise ConfigError(
                f"{part.title} has token embeddings, which cannot be merged.",
                "Leave --merge out: a composition loads them.",
            )
    return parts


def _save(adapter: Adapter, folder: Path, metadata: Mapping[str, str]) -> None:
    from hublora.adapters.files import save_tensors
    from hublora.adapters.layouts import to_diffusers

    tensors, own = to_diffusers(Adapter(adapter.layers))
    save_tensors(tensors, folder / WEIGHTS, own | dict(metadata))


def _merged_card(
    parts: Sequence[LoadedAdapter],
    facts: AdapterFacts,
    base: str | None,
    title: str,
    repo_id: str | None,
    method: str,
    error: float,
) -> CompositionFacts:
    of_base = _base_license(base) if base and not Path(base).exists() else None
    licenses = {base: of_base} if base and not Path(base).exists() else {}
    for part in parts:
        licenses |= part.licenses(of_base)
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
        mode="sum",
        licenses=LicenseSummary(licenses),
        family_tags=FAMILIES[facts.family].card_tags if facts.family in FAMILIES else (),
        trigger_words=facts.trigger_words,
        hublora_version=__version__,
        merged=method,
        error=error,
    )


def _base_license(repo_id: str) -> str | None:
    """Return the licence of a base, from its card on the Hub; None if unknown."""
    try:
        return license_of(inspect_repo(parse_repo_id(repo_id)).card)
    except HubloraError:
        return None  # the Hub cannot be reached, or the base was deleted


def _metadata(
    facts: AdapterFacts, base: str | None, title: str, method: str, parts: Sequence[LoadedAdapter]
) -> dict[str, str]:
    made_of = "|".join(f"{part.title}:{part.weight}" for part in parts)
    on_hub = base if base and not Path(base).exists() else None
    return metadata_of_facts(
        replace(facts, base_model=on_hub, title=title),
        {
            "modelspec.sai_model_spec": MODELSPEC_VERSION,
            "hublora.version": __version__,
            "hublora.merged": f"{method} {made_of}",
        },
    )


def _plain(part: LoadedAdapter) -> float:
    if part.weight.number is None:
        raise ConfigError(
            f"The weight of {part.title} must be one number to be merged, got {part.weight}.",
            "Leave --merge out: a composition keeps weights by step or block.",
        )
    return part.weight.number
