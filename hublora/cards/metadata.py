"""The front matter of a card: the YAML that the Hub reads.

Keys follow https://huggingface.co/docs/hub/model-cards and what galleries of LoRA adapters expect.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import yaml

from hublora.cards.facts import CardFacts, GalleryImage, LicenseFacts
from hublora.hub_licenses import license_entries
from hublora.quoting import one_line

TAGS = ("text-to-image", "diffusers", "diffusers-training")
ADAPTER_TAGS = ("lora", "template:sd-lora")
EMBEDDINGS_TAG = "textual_inversion"
LICENSE_KEYS = ("license", "license_name", "license_link")
# Licence of the images where the adapter's own is only the base's; "unknown" if it is.
IMAGES_LICENSE = "images_license"
GENERATED_KEYS = (
    "base_model",
    "base_model_relation",
    "library_name",
    "pipeline_tag",
    "instance_prompt",
    *LICENSE_KEYS,
    IMAGES_LICENSE,
    "datasets",
    "tags",
    "widget",
)

_BLOCK = re.compile(r"\A\ufeff?\s*---[ \t]*\n(.*?)(?:\n|^)---[ \t]*(?:\n|\Z)", re.S | re.M)


def front_matter(facts: CardFacts) -> dict[str, Any]:
    """Return the entries of the front matter; unknown facts have no key."""
    license = license_of(facts)
    entries = {
        "base_model": _base_models(facts),
        "base_model_relation": "adapter" if _base_models(facts) else None,
        "library_name": "diffusers",
        "pipeline_tag": "image-to-image" if facts.references else "text-to-image",
        "instance_prompt": one_line(", ".join(facts.trigger_words)),
        **license_entries(license.id, license.name, license.link),
        IMAGES_LICENSE: None if facts.license else facts.dataset.license.id or "unknown",
        "datasets": [facts.dataset.id] if facts.dataset.id else None,
        "tags": list(dict.fromkeys([*_kind_tags(facts), *facts.family_tags, "hublora"])),
        "widget": [widget(image) for image in facts.gallery],
    }
    return {key: value for key, value in entries.items() if value}


def _base_models(facts: CardFacts) -> str | list[str] | None:
    """Return the base model's id, or the ids of both: the one that the adapter is used on first,
    since pages that generate images take the first."""
    ids = [base.id for base in (facts.used_base, facts.base) if base.id]
    return list(dict.fromkeys(ids)) if len(set(ids)) > 1 else next(iter(ids), None)


def _kind_tags(facts: CardFacts) -> list[str]:
    adapter = ADAPTER_TAGS if facts.weight_name else ()
    task = ("image-to-image",) if facts.references else ()
    return [*task, *TAGS, *adapter, *((EMBEDDINGS_TAG,) if facts.token_embeddings else ())]


def license_of(facts: CardFacts) -> LicenseFacts:
    """Return the adapter's own licence, or the base's, which it inherits."""
    return facts.license or facts.base.license


def dump(entries: dict[str, Any]) -> str:
    """Return YAML that YAML 1.1 and 1.2 parsers read alike, with each text on one line."""
    return yaml.dump(
        entries, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=sys.maxsize
    )


def split(card: str) -> tuple[str, str]:
    """Return the YAML text, "" without front matter, and the body of a card."""
    card = card.replace("\r\n", "\n")
    match = _BLOCK.match(card)
    return (match[1], card[match.end() :]) if match else ("", card)


def join(yaml_text: str, body: str) -> str:
    """Return the card of a YAML text and a body; the inverse of `split`."""
    return f"---\n{yaml_text.rstrip()}\n---\n\n{body.strip()}\n"


def widget(image: GalleryImage) -> dict[str, Any]:
    """Return an image's entry in the Hub's gallery widget."""
    entry: dict[str, Any] = {"text": one_line(image.prompt) or " "}
    if image.negative_prompt:
        entry["parameters"] = {"negative_prompt": one_line(image.negative_prompt)}
    return entry | {"output": {"url": image.path}}


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        # The Hub refuses a card with YAML aliases, which PyYAML writes for equal values.
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # YAML 1.2, which the Hub reads, parses more plain texts as numbers than PyYAML's 1.1 does.
    plain = text[:1].isalpha() and len(text.splitlines()) == 1
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _represent_text)
