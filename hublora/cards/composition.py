"""Writes the model card of a composition: several adapters that are used as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hublora import quoting
from hublora.adapters.licenses import LicenseSummary
from hublora.cards import licenses, markdown, metadata
from hublora.cards.facts import GalleryImage, SamplingFacts
from hublora.cards.format import format_count, format_image_source, format_sampling
from hublora.cards.user_sections import mark
from hublora.filesystem import write_atomically
from hublora.hub_licenses import license_entries
from hublora.rendering import render

TEMPLATE = "cards/composition.md.jinja"
# The Hub shows diffusers code for what is a file of weights; a composition has none.
_MERGED = ("diffusers", ("text-to-image", "diffusers", *metadata.ADAPTER_TAGS))
_APART = ("hublora", ("text-to-image", "lora", "hublora-composition"))
_INVITATION = """\
<!-- What is it for? Write it here: what stands between these markers is yours, and the next push
keeps it. -->"""
_MODES = {
    "sum": "all of them are active, as the exact weighted sum of their updates",
    "switch": "one of them is active at each step, in turn",
    "composite": "each of them predicts alone, and the guided predictions are averaged",
}


@dataclass(frozen=True)
class PartFacts:
    """One adapter of a composition.

    Attributes:
        name: Repo id, or a title for an adapter that is not on the Hub.
        weight: Weight or schedule as it is written in a ref, e.g. "0.7".
        commit: Pinned commit, 40 hexadecimal digits; None for an adapter that is not on the Hub.
        license: Licence on the adapter's card.
        published: Whether `name` is a repo id.
    """

    name: str
    weight: str
    commit: str | None
    license: str | None
    published: bool = True


@dataclass(frozen=True)
class CompositionFacts:
    """The facts on the card of a composition.

    Attributes:
        title: Heading of the card.
        repo_id: owner/name of the composition's repo; None before it has one.
        base: Hub id of the base model; None for a folder.
        base_commit: Pinned commit of the base model; None for a folder.
        parts: Adapters in the order of the composition.
        mode: How the adapters act together: "sum", "switch" or "composite".
        licenses: Licences of the adapters and the base model.
        family_tags: Hub tags of the base's family.
        trigger_words: Trigger words of all adapters.
        example: Prompt in the card's commands.
        template: Prompt template with `{prompt}`; None uses a prompt unchanged.
        gallery: Images that were generated with the composition.
        sampling: Sampling settings of the gallery.
        merged: Merge method, such as "svd"; None where the adapters stay separate.
        error: Relative error of a merge against the exact weighted sum; None without a merge.
        hublora_version: Version that wrote the card.
    """

    title: str
    repo_id: str | None
    base: str | None
    base_commit: str | None
    parts: tuple[PartFacts, ...]
    mode: str
    licenses: LicenseSummary
    family_tags: tuple[str, ...]
    trigger_words: tuple[str, ...]
    hublora_version: str
    example: str = "your prompt"
    template: str | None = None
    gallery: tuple[GalleryImage, ...] = ()
    sampling: SamplingFacts = field(default_factory=SamplingFacts)
    merged: str | None = None
    error: float | None = None


def write_composition_card(folder: Path, facts: CompositionFacts) -> Path:
    """Write `README.md` into `folder` and return its path."""
    path = folder / "README.md"
    body = render(TEMPLATE, **_view(facts))
    write_atomically(path, metadata.join(metadata.dump(_front_matter(facts)), body))
    return path


def _front_matter(facts: CompositionFacts) -> dict[str, Any]:
    library, tags = _MERGED if facts.merged else _APART
    words = quoting.one_line(", ".join(facts.trigger_words))
    entries = {
        "base_model": facts.base,
        "base_model_relation": "adapter" if facts.base else None,
        "library_name": library,
        "pipeline_tag": "text-to-image",
        "instance_prompt": words,
        **license_entries(facts.licenses.strictest),
        "tags": list(dict.fromkeys([*tags, *facts.family_tags, "hublora"])),
        "widget": [metadata.widget(image) for image in facts.gallery],
    }
    return {key: value for key, value in entries.items() if value}


def _view(facts: CompositionFacts) -> Mapping[str, Any]:
    prompt = facts.example
    summary = facts.licenses
    return {
        "title": markdown.inline(facts.title),
        "base": markdown.repo_link(facts.base) if facts.base else "its base model",
        "base_commit": (facts.base_commit or "")[:8],
        "own_words": mark(_INVITATION),
        "parts": [_part_row(part) for part in facts.parts],
        "number": format_count(len(facts.parts), "LoRA adapter"),
        "mode": _MODES[facts.mode],
        "merged": facts.merged,
        "error": f"{facts.error:.2g}" if facts.error is not None else None,
        "template": markdown.code(facts.template) if facts.template else None,
        "triggers": [markdown.code(word) for word in facts.trigger_words],
        "fence": markdown.fence(prompt),
        "ref": facts.repo_id or ".",
        "shell_prompt": quoting.shell_word(prompt),
        "python_ref": quoting.python_text(facts.repo_id or "."),
        "python_prompt": quoting.python_text(prompt),
        "sampling": format_sampling(facts.sampling),
        "gallery": [format_image_source(image) for image in facts.gallery],
        "license_note": licenses.note(summary.strictest, summary.strictest),
        "licenses": [
            (_name(name), markdown.inline(license or "unknown"))
            for name, license in summary.licenses.items()
        ],
        "commercial": summary.commercial,
        "unknown": [_name(name) for name in summary.unknown],
        "forbidding": [_name(name) for name in summary.forbidding],
        "hublora_version": markdown.inline(facts.hublora_version),
    }


def _part_row(part: PartFacts) -> tuple[str, ...]:
    name = markdown.repo_link(part.name) if part.published else markdown.inline(part.name)
    commit = f"`{part.commit[:8]}`" if part.commit else ""
    return name, markdown.inline(part.weight), commit, markdown.inline(part.license or "unknown")


def _name(name: str) -> str:
    return markdown.inline(name)
