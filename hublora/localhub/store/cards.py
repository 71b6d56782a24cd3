"""What a README's front matter says, and the tags that lists are filtered by.

Tags follow https://huggingface.co/docs/hub/model-cards#model-card-metadata and the tags that the
Hub's own API answers with. A card is hostile text: `hublora.strict_yaml` reads it.
"""

from __future__ import annotations

import json
import math
from typing import Any

from hublora import strict_yaml

from . import card_rules
from .errors import Malformed

MAX_README_BYTES = 2 << 20
_LIMITS = strict_yaml.Limits(characters=256 << 10, nodes=40_000)


def parse(front_matter: str) -> dict[str, Any]:
    """Return the metadata as plain JSON values.

    Raises:
        Malformed: It is not YAML, not a mapping, or too much of something.
    """
    try:
        found = strict_yaml.loads(front_matter, _LIMITS)
    except strict_yaml.YamlError as problem:
        raise Malformed(f"The card's metadata is not valid YAML: {problem}.") from problem
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Malformed("The card's metadata is not a mapping of names to values.")
    return {key: _plain(value) for key, value in found.items()}


def read(readme: bytes | None) -> dict[str, Any]:
    """Return a README's metadata; a card that cannot be read has none."""
    if readme is None or len(readme) > MAX_README_BYTES:
        return {}
    try:
        return parse(strict_yaml.split_front_matter(readme.decode("utf-8", "replace"))[0])
    except Malformed:
        return {}


def problems(readme: str, kind: str) -> tuple[list[str], list[str]]:
    """Return what keeps a README from being committed, and what is only worth a warning."""
    front_matter, _ = strict_yaml.split_front_matter(readme)
    if not front_matter.strip():
        return [], [f"empty or missing yaml metadata in {'repo' if kind == 'model' else kind} card"]
    try:
        card = parse(front_matter)
    except Malformed as problem:
        return [problem.message], []
    return card_rules.errors(card), []


def space_readme(name: str, sdk: str) -> bytes:
    """Return the README that a new Space has: what it is called, and what it runs on."""
    title = name.replace("-", " ").replace("_", " ").strip().title()
    return (
        f"---\ntitle: {json.dumps(title)}\nemoji: 🎨\ncolorFrom: yellow\ncolorTo: indigo\n"
        f"sdk: {sdk}\npinned: false\n---\n"
    ).encode()


def tags(kind: str, card: dict[str, Any], files: list[str]) -> list[str]:
    """Return the tags that the Hub would derive from a card and the names of the files."""
    makers = {"model": _model_tags, "dataset": _dataset_tags, "space": _space_tags}
    found = [*makers[kind](card, files), "region:us"]
    return list(dict.fromkeys(tag[:200] for tag in found if tag))


def library(card: dict[str, Any], files: list[str]) -> str | None:
    """Return the library a model is for, from its card or from its files."""
    named = card.get("library_name")
    if isinstance(named, str):
        return named
    for file, name in (("model_index.json", "diffusers"), ("adapter_config.json", "peft")):
        if file in files:
            return name
    return None


def pipeline_tag(card: dict[str, Any]) -> str | None:
    """Return the task a model is for: said outright, or by a tag that names one."""
    said = card.get("pipeline_tag")
    if isinstance(said, str):
        return said
    return next((tag for tag in strings(card.get("tags")) if tag in _TASKS.split()), None)


def adapter_of(card: dict[str, Any]) -> list[str]:
    """Return the base models a card names."""
    return strings(card.get("base_model"))


def relation(card: dict[str, Any], files: list[str]) -> str | None:
    """Return what a model is to its base: said by the card, or told by what the repo holds."""
    bases, said = adapter_of(card), card.get("base_model_relation")
    if not bases:
        return None
    if said in card_rules.RELATIONS:
        return str(said)
    words = {word.lower() for word in strings(card.get("tags"))} | {library(card, files)}
    suffixes = {file.rpartition(".")[2].lower() for file in files}
    if words & _ADAPTERS or "adapter_config.json" in files:
        return "adapter"
    if words & _QUANTIZED or "gguf" in suffixes:
        return "quantized"
    return "merge" if len(bases) > 1 or words & {"merge", "mergekit"} else "finetune"


_ADAPTERS = frozenset(
    ("lora", "lycoris", "loha", "lokr", "dora", "peft", "adapter", "textual_inversion")
)
_QUANTIZED = frozenset(["gguf", "gptq", "awq", "exl2", "exl3", "quantized", "bitsandbytes", "mlx"])


_TASKS = (
    "text-to-image image-to-image text-to-video image-to-video unconditional-image-generation"
    " text-generation text-classification token-classification question-answering summarization"
    " translation image-classification object-detection image-segmentation feature-extraction"
    " automatic-speech-recognition text-to-speech text-to-audio inpainting"
)


def _model_tags(card: dict[str, Any], files: list[str]) -> list[str]:
    suffixes = {file.rpartition(".")[2] for file in files if "." in file}
    bases = adapter_of(card)
    found = [library(card, files) or ""]
    found += [name for name in ("tensorboard", "safetensors", "gguf", "onnx") if name in suffixes]
    found += strings(card.get("tags"))
    found += strings(card.get("language"))
    found += [f"dataset:{name}" for name in strings(card.get("datasets"))]
    found += [f"arxiv:{name}" for name in strings(card.get("arxiv"))]
    found += [f"base_model:{name}" for name in bases]
    found += [f"base_model:{relation(card, files)}:{name}" for name in bases]
    found += [f"license:{name}" for name in strings(card.get("license"))]
    return [*found, pipeline_tag(card) or ""]


_DATASET_FORMATS = {
    "parquet": "parquet",
    "csv": "csv",
    "json": "json",
    "jsonl": "json",
    "arrow": "arrow",
    "txt": "text",
}
_IMAGES = frozenset({"png", "jpg", "jpeg", "webp", "gif", "bmp", "tiff"})


def _dataset_tags(card: dict[str, Any], files: list[str]) -> list[str]:
    suffixes = [file.rpartition(".")[2].lower() for file in files if "." in file]
    found = []
    for name in ("task_categories", "task_ids", "multilinguality", "language", "license"):
        found += [f"{name}:{value}" for value in strings(card.get(name))]
    for name in ("size_categories", "language_creators", "annotations_creators"):
        found += [f"{name}:{value}" for value in strings(card.get(name))]
    if _IMAGES & set(suffixes):
        found += ["format:imagefolder", "modality:image"]
    else:
        found += [f"format:{_DATASET_FORMATS[s]}" for s in suffixes if s in _DATASET_FORMATS][:1]
    return [*found, "library:datasets", *strings(card.get("tags"))]


def _space_tags(card: dict[str, Any], files: list[str]) -> list[str]:
    found = [*strings(card.get("sdk")), *strings(card.get("tags"))]
    found += [f"model:{name}" for name in strings(card.get("models"))]
    return [*found, *(f"dataset:{name}" for name in strings(card.get("datasets")))]


def strings(value: object) -> list[str]:
    """Return a scalar or a list as a list of short strings."""
    items = value if isinstance(value, list) else [value]
    return [item.strip() for item in items if isinstance(item, str) and item.strip()][:200]


def _plain(value: object) -> object:
    """Return a value with the numbers that JSON lacks (infinity, not a number) as text."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
