"""Metadata of a generated image, in its PNG text chunks.

`hublora` is JSON; `parameters` is the text that AUTOMATIC1111 and its kin show.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.filesystem import write_atomically

if TYPE_CHECKING:
    from PIL import Image

KEY = "hublora"


def save_image(image: Image.Image, path: Path, facts: Mapping[str, Any]) -> None:
    """Write a PNG that carries `facts` (JSON-able), whole or not at all."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt(KEY, json.dumps(facts, ensure_ascii=False, sort_keys=True))
    info.add_itxt("parameters", _parameters(facts))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    write_atomically(path, buffer.getvalue())


def read_image(path: Path) -> dict[str, Any]:
    """Return the facts in a PNG, empty when it carries none."""
    from PIL import Image

    with Image.open(path) as image:
        text = getattr(image, "text", {}).get(KEY)
    return json.loads(text) if text else {}


def _parameters(facts: Mapping[str, Any]) -> str:
    """Return the text block of AUTOMATIC1111: prompt, negative prompt, then one line of pairs."""
    sampling = facts.get("sampling", {})
    adapters = facts.get("adapters", [])
    hashes = [f"{_tag(one)}: {one['sha256'][:12]}" for one in adapters if one.get("sha256")]
    pairs = [
        ("Steps", sampling.get("num_inference_steps")),
        ("Sampler", str(facts.get("scheduler", "")).removesuffix("Scheduler") or None),
        ("CFG scale", sampling.get("guidance_scale")),
        ("Seed", sampling.get("seed")),
        ("Size", facts.get("size")),
        ("Model", facts.get("base")),
        ("Lora hashes", ", ".join(hashes) or None),
        ("Version", f"hublora {facts.get('hublora', '')}".strip()),
    ]
    tags = [f"<lora:{_tag(one)}:{one['weight']}>" for one in adapters]
    lines = [" ".join([_prompt(facts), *tags])]
    if sampling.get("negative_prompt"):
        lines.append(f"Negative prompt: {sampling['negative_prompt']}")
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in pairs if value is not None))
    return "\n".join(lines)


def _prompt(facts: Mapping[str, Any]) -> str:
    """Return the prompt as other tools may use it: with trigger words, without our own tokens."""
    typed = str(facts.get("sampling", {}).get("prompt", ""))
    expanded = str(facts.get("expanded_prompt", typed))
    return typed if re.search(r"<a\d+-", expanded) else expanded


def _tag(adapter: Mapping[str, Any]) -> str:
    """Return what other tools would call the adapter's file."""
    named = str(adapter.get("ref") or adapter.get("title") or "adapter")
    owner, _, rest = named.partition("/")
    name = re.split(r"[@/]", rest)[0] if rest else owner
    return re.sub(r"[^\w.-]+", "-", name)


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r"[,:\n]", text) else text
