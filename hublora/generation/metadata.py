"""Reads and writes the metadata of generated images, in PNG text chunks.

The chunk `hublora` is JSON; `parameters` is text in the format of AUTOMATIC1111's web UI, which
knows one number as an adapter's weight (here of a schedule its mean) and finds adapters by a hash
of their tensors alone, without the header.
"""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.adapter_weights import Weight
from hublora.errors import ConfigError
from hublora.filesystem import write_atomically
from hublora.generation.schedulers import sampler_name

if TYPE_CHECKING:
    from PIL import Image

KEY = "hublora"


def save_image(image: Image.Image, path: Path, facts: Mapping[str, Any]) -> None:
    """Write a PNG with metadata, atomically.

    Args:
        image: Image to write.
        path: Path of the PNG; replaced if it exists.
        facts: JSON values for the chunk `hublora`.
    """
    write_atomically(path, encode_image(image, facts))


def encode_image(image: Image.Image, facts: Mapping[str, Any]) -> bytes:
    """Return a PNG with metadata.

    Args:
        image: Image to encode.
        facts: JSON values for the chunk `hublora`.
    """
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt(KEY, json.dumps(facts, ensure_ascii=False, sort_keys=True))
    info.add_itxt("parameters", parameters_text(facts))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def read_image(path: Path) -> dict[str, Any]:
    """Return the JSON of the chunk `hublora` of a PNG, empty without one; no pixel is decoded.

    Raises:
        ConfigError: The file is no PNG, damaged, or its chunk is no JSON object.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG",)) as image:
                text = image.info.get(KEY)
        facts = json.loads(text) if isinstance(text, str) else {}
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything for hostile bytes
        if isinstance(error, OSError) and error.strerror:
            raise ConfigError(f"{path} cannot be read: {error.strerror.lower()}.") from error
        raise ConfigError(f"{path} is not a PNG image that can be read.") from error
    if not isinstance(facts, dict):
        raise ConfigError(f"{path} does not say how it was made.")
    return facts


def parameters_text(facts: Mapping[str, Any]) -> str:
    """Return the chunk `parameters`: prompt, negative prompt, then one line of key-value pairs."""
    sampling = facts.get("sampling", {})
    adapters = facts.get("adapters", [])
    hashes = [f"{_tag(one)}: {one['data_hash'][:12]}" for one in adapters if one.get("data_hash")]
    sampler, schedule = sampler_name(str(facts.get("scheduler", "")))
    pairs = [
        ("Steps", sampling.get("num_inference_steps")),
        ("Sampler", sampler or None),
        ("Schedule type", schedule),
        ("Timestep spacing", sampling.get("timestep_spacing")),
        ("CFG scale", sampling.get("guidance_scale")),
        ("Seed", sampling.get("seed")),
        ("Size", facts.get("size")),
        ("Model", facts.get("base")),
        ("Lora hashes", ", ".join(hashes) or None),
        ("Version", f"hublora {facts.get('hublora', '')}".strip()),
    ]
    tags = [f"<lora:{_tag(one)}:{Weight.parse(str(one['weight'])).mean:g}>" for one in adapters]
    lines = [" ".join([shown_prompt(facts), *tags])]
    if sampling.get("negative_prompt"):
        lines.append(f"Negative prompt: {sampling['negative_prompt']}")
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in pairs if value is not None))
    return "\n".join(lines)


def shown_prompt(facts: Mapping[str, Any]) -> str:
    """Return an image's prompt for people: with trigger words, without hublora's placeholders."""
    typed = str(facts.get("sampling", {}).get("prompt", ""))
    expanded = str(facts.get("expanded_prompt", typed))
    return typed if re.search(r"<a\d+-", expanded) else expanded


def _tag(adapter: Mapping[str, Any]) -> str:
    """Return the name of the adapter in other tools' prompts, for `<lora:name:weight>`."""
    named = str(adapter.get("ref") or adapter.get("title") or "adapter")
    owner, _, rest = named.partition("/")
    name = re.split(r"[@/]", rest)[0] if rest else owner
    return re.sub(r"[^\w.-]+", "-", name)


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r"[,:\n]", text) else text
