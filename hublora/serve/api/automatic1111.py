"""The text-to-image call of AUTOMATIC1111's web UI
(https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/API), which many programs speak.

Adapters stand in the prompt: `<lora:owner/name@main:0.7>`, or `<lora:name:0.7>` for one that the
server has in memory. `<lora:name:0.5:0.7>`, or `te=0.5` and `unet=0.7`, weight text encoders and
denoiser apart.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from hublora.adapter_weights import Weight
from hublora.errors import ConfigError
from hublora.generation.metadata import parameters_text
from hublora.generation.schedulers import SAMPLERS
from hublora.serve.requests import ServedImage
from hublora.serve.service import MOST_CHARACTERS, Service

PREFIX = "/sdapi/v1"
router = APIRouter(prefix=PREFIX)

_LORA = re.compile(r"<lora:([^<>]+)>")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)\Z")
_SCHEDULES = {"": "", "automatic": "", "karras": " Karras"}

# What would give another image than the one that is generated here, and when it would not.
_UNSUPPORTED: dict[str, Sequence[Any]] = {
    "enable_hr": (False,),
    "restore_faces": (False,),
    "tiling": (False,),
    "subseed_strength": (0,),
    "seed_resize_from_h": (-1, 0),
    "seed_resize_from_w": (-1, 0),
    "styles": ([],),
    "script_name": ("",),
    "alwayson_scripts": ({},),
    "refiner_checkpoint": ("",),
}


class Txt2Img(BaseModel):
    """The body of `/sdapi/v1/txt2img`.

    Features that are not here are refused (`_UNSUPPORTED`); other fields have no effect.
    """

    model_config = ConfigDict(extra="allow")

    prompt: str = Field("", max_length=MOST_CHARACTERS)
    negative_prompt: str | None = Field(None, max_length=MOST_CHARACTERS)
    seed: int | None = -1
    steps: int | None = None
    cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    sampler_name: str | None = None
    sampler_index: str | None = None
    scheduler: str | None = None
    batch_size: int = Field(1, ge=1)
    n_iter: int = Field(1, ge=1)
    send_images: bool = True
    override_settings: dict[str, Any] | None = None


@router.post("/txt2img")
async def text_to_image(body: Txt2Img, client: Request) -> dict[str, Any]:
    """Generate images of a prompt."""
    service: Service = client.app.state.service
    _check_supported(service, body)
    prompt, named = _split_prompt(body.prompt)
    refs = [(_ref_of(service, name), weight) for name, weight in named]
    sampling = {
        "negative_prompt": body.negative_prompt,
        "seed": None if body.seed in (None, -1) else body.seed,
        "num_inference_steps": body.steps,
        "guidance_scale": body.cfg_scale,
        "width": body.width,
        "height": body.height,
        "scheduler": _scheduler(body),
    }
    request = service.request("|".join(ref for ref, _ in refs), prompt, sampling)
    request = request.with_weights([weight for _, weight in refs])
    images = await service.generate(request, body.batch_size * body.n_iter, client)
    encoded = [base64.b64encode(one.png).decode() for one in images] if body.send_images else []
    return {
        "images": encoded,
        "parameters": body.model_dump(mode="json"),
        "info": json.dumps(_info(images)),
    }


@router.get("/samplers")
async def samplers() -> list[dict[str, Any]]:
    """List the samplers; which of them fit depends on the base."""
    return [{"name": name, "aliases": [], "options": {}} for name in SAMPLERS]


@router.get("/sd-models")
async def bases(client: Request) -> list[dict[str, Any]]:
    """List the base."""
    base = client.app.state.service.engine.base
    return [{"title": base, "model_name": base, "hash": None, "sha256": None, "filename": base}]


@router.get("/loras")
async def adapters(client: Request) -> list[dict[str, Any]]:
    """List the adapters in memory; any other of the Hub can be named too."""
    names = client.app.state.service.engine.adapters.cache.names
    return [{"name": name, "alias": name, "path": name, "metadata": {}} for name in names]


@router.get("/options")
async def options(client: Request) -> dict[str, Any]:
    """Show the options that have a meaning here."""
    return {"sd_model_checkpoint": client.app.state.service.engine.base}


@router.get("/scripts")
async def scripts() -> dict[str, list[str]]:
    """List the scripts: none."""
    return {"txt2img": [], "img2img": []}


def error_body(status: int, message: str) -> dict[str, Any]:
    """Return an error in the web UI's form."""
    return {"error": str(status), "detail": message, "errors": message}


def _check_supported(service: Service, body: Txt2Img) -> None:
    extra = body.model_extra or {}
    for name, without in _UNSUPPORTED.items():
        value = extra.get(name)
        if value is not None and value not in without:
            raise ConfigError(f"{name} is not supported, got {value!r:.80}.", "Leave it out.")
    for name, value in (body.override_settings or {}).items():
        if (name, value) != ("sd_model_checkpoint", service.engine.base):
            raise ConfigError(
                f"override_settings[{name!r}] is not supported, got {value!r:.80}.",
                f"This server generates with {service.engine.base}.",
            )


def _split_prompt(text: str) -> tuple[str, list[tuple[str, Weight]]]:
    """Return the prompt without the adapters in it, and their names and weights."""
    named = [_parse_tag(tag) for tag in _LORA.findall(text)]
    return " ".join(_LORA.sub("", text).split()), named


def _parse_tag(tag: str) -> tuple[str, Weight]:
    """Parse `name:te:unet`, numbers by place or as `te=` and `unet=`; the first alone is both."""
    parts = tag.split(":")
    places: list[str] = []
    named: dict[str, str] = {}
    while len(parts) > 1 and (found := _argument(parts[-1])) is not None:
        key, number = found
        parts.pop()
        if key:
            named[key] = number
        else:
            places.insert(0, number)
    texts = named.get("te", places[0] if places else "1")
    others = named.get("unet", places[1] if len(places) > 1 else texts)
    return ":".join(parts), Weight.parse(others if others == texts else f"{others},text:{texts}")


def _argument(text: str) -> tuple[str, str] | None:
    key, _, number = text.rpartition("=")
    return (key, number) if key in ("", "te", "unet") and _NUMBER.match(number) else None


def _ref_of(service: Service, name: str) -> str:
    """Return the ref of an adapter in a prompt: itself, or of those in memory the one so named."""
    if "|" in name or name == service.engine.base:
        raise ConfigError(f"<lora:{name:.80}> is not one adapter.", "Write <lora:owner/name:1>.")
    if "/" in name:
        return name
    cached = [one.loaded for one in service.engine.adapters.cache.adapters]
    named = [one for one in cached if one.title.rpartition("/")[2] == name]
    found = sorted({one.ref.public for one in named if one.ref.kind == "repo"})
    if len(found) != 1:
        which = f"Several adapters are named so: {', '.join(found)}." if found else None
        raise ConfigError(
            which or f"No adapter named {name!r:.80} is in memory.",
            "Write its repo: <lora:owner/name:1>.",
        )
    return found[0]


def _scheduler(body: Txt2Img) -> str | None:
    name = body.sampler_name or body.sampler_index
    schedule = _SCHEDULES.get((body.scheduler or "").casefold())
    if schedule is None:
        raise ConfigError(
            f"The schedule type {body.scheduler!r:.40} is not supported.",
            "Use Automatic or Karras.",
        )
    return name and f"{name}{schedule}"


def _info(images: Sequence[ServedImage]) -> dict[str, Any]:
    first = images[0]
    return {
        "prompt": first.prompt,
        "seed": first.seed,
        "all_seeds": [one.seed for one in images],
        "all_prompts": [one.prompt for one in images],
        "infotexts": [parameters_text(one.facts) for one in images],
    }
