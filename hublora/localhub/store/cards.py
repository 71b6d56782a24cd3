"""What a README's front matter says, and the tags that lists are filtered by.

Tags follow https://huggingface.co/docs/hub/model-cards#model-card-metadata and the tags that the
Hub's own API answers with. A card is hostile text: aliases (the "billion laughs"), deep nesting
and sizes beyond a card's are refused before anything is built.
"""

from __future__ import annotations

import json
import math
import re
from datetime import date
from typing import Any

import yaml

from .errors import Malformed

MAX_README_BYTES = 2 << 20
MAX_FRONT_MATTER_BYTES = 256 << 10
_MAX_DEPTH = 24
_FRONT_MATTER = re.compile(
    r"\A(?:\ufeff|\s)*---[ \t]*\r?\n(.*?)(?:\r?\n)?^---[ \t]*$\r?\n?", re.S | re.M
)
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def split(readme: str) -> tuple[str, str]:
    """Return front matter (YAML text, maybe empty) and body of a README."""
    match = _FRONT_MATTER.match(readme)
    return (match[1], readme[match.end() :]) if match else ("", readme)


def parse(front_matter: str) -> dict[str, Any]:
    """Return the metadata as plain JSON values.

    Raises:
        Malformed: It is not YAML, not a mapping, or too much of something.
    """
    if len(front_matter.encode("utf-8", "replace")) > MAX_FRONT_MATTER_BYTES:
        raise Malformed("The card's metadata is too long.")
    try:
        _check_events(front_matter)
        found = yaml.load(front_matter, Loader=_Loader)
        plain = json.loads(json.dumps(_plain(found), allow_nan=False))
    except Malformed:
        raise
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError, TypeError) as problem:
        reason = str(getattr(problem, "problem", None) or problem).splitlines()[0][:200]
        mark = getattr(problem, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise Malformed(f"The card's metadata is not valid YAML{where}: {reason}") from problem
    if plain is None:
        return {}
    if not isinstance(plain, dict):
        raise Malformed("The card's metadata is not a mapping of names to values.")
    return plain


def read(readme: bytes | None) -> dict[str, Any]:
    """Return a README's metadata; a card that cannot be read has none."""
    if readme is None or len(readme) > MAX_README_BYTES:
        return {}
    try:
        return parse(split(readme.decode("utf-8", "replace"))[0])
    except Malformed:
        return {}


def problems(readme: str, kind: str) -> tuple[list[str], list[str]]:
    """Return what keeps a README from being committed, and what is only worth a warning."""
    front_matter, _ = split(readme)
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


def _check_events(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise Malformed("The card's metadata uses YAML aliases, which are not taken.")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise Malformed("The card's metadata is nested too deeply.")


def _plain(value: object) -> object:
    """Turn YAML's dates, numbers and odd keys into what JSON has."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.isoformat() if isinstance(value, date) else value
