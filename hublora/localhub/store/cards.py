"""What a README's front matter says, and the tags that lists are filtered by.

Tags follow https://huggingface.co/docs/hub/model-cards#model-card-metadata and the tags that the
Hub's own API answers with. A card is hostile text: `hublora.strict_yaml` reads it.
"""

from __future__ import annotations

import math
from typing import Any

from hublora import strict_yaml

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
    wrong = []
    for name in ("license", "license_name", "pipeline_tag", "library_name", "instance_prompt"):
        if not isinstance(card.get(name), str | list | None):
            wrong.append(f'"{name}" must be a string')
    for name in ("tags", "datasets", "language"):
        value = card.get(name)
        items = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(item, str) for item in items):
            wrong.append(f'"{name}" must be a list of strings')
    return wrong, []


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
    return next((tag for tag in _strings(card.get("tags")) if tag in _TASKS.split()), None)


def adapter_of(card: dict[str, Any]) -> list[str]:
    """Return the base models a card names."""
    return _strings(card.get("base_model"))


_TASKS = (
    "text-to-image image-to-image text-to-video image-to-video unconditional-image-generation"
    " text-generation text-classification token-classification question-answering summarization"
    " translation image-classification object-detection image-segmentation feature-extraction"
    " automatic-speech-recognition text-to-speech text-to-audio inpainting"
)


def _model_tags(card: dict[str, Any], files: list[str]) -> list[str]:
    suffixes = {file.rpartition(".")[2] for file in files if "." in file}
    relation = card.get("base_model_relation")
    bases = adapter_of(card)
    found = [library(card, files) or ""]
    found += [name for name in ("tensorboard", "safetensors", "gguf", "onnx") if name in suffixes]
    found += _strings(card.get("tags"))
    found += _strings(card.get("language"))
    found += [f"dataset:{name}" for name in _strings(card.get("datasets"))]
    found += [f"arxiv:{name}" for name in _strings(card.get("arxiv"))]
    found += [f"base_model:{name}" for name in bases]
    if isinstance(relation, str):
        found += [f"base_model:{relation}:{name}" for name in bases]
    found += [f"license:{name}" for name in _strings(card.get("license"))]
    return [*found, pipeline_tag(card) or ""]


_DATASET_FORMATS = {
    "parquet": "parquet",
    "csv": "csv",
    "json": "json",
    "jsonl": "json",
    "arrow": "arrow",
    "txt": "text",
}
_PICTURES = frozenset({"png", "jpg", "jpeg", "webp", "gif", "bmp", "tiff"})


def _dataset_tags(card: dict[str, Any], files: list[str]) -> list[str]:
    suffixes = [file.rpartition(".")[2].lower() for file in files if "." in file]
    found = []
    for name in ("task_categories", "task_ids", "multilinguality", "language", "license"):
        found += [f"{name}:{value}" for value in _strings(card.get(name))]
    for name in ("size_categories", "language_creators", "annotations_creators"):
        found += [f"{name}:{value}" for value in _strings(card.get(name))]
    if _PICTURES & set(suffixes):
        found += ["format:imagefolder", "modality:image"]
    else:
        found += [f"format:{_DATASET_FORMATS[s]}" for s in suffixes if s in _DATASET_FORMATS][:1]
    return [*found, "library:datasets", *_strings(card.get("tags"))]


def _space_tags(card: dict[str, Any], files: list[str]) -> list[str]:
    return [*_strings(card.get("sdk")), *_strings(card.get("tags"))]


def _strings(value: object) -> list[str]:
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
