"""The image routes of OpenAI's API (https://platform.openai.com/docs/api-reference/images).

`model` is an adapter ref, several joined by "|", or the base. Fields beyond OpenAI's are those of
`hublora run`; a client gives them as `extra_body`.
"""

from __future__ import annotations

import base64
import re
import time
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from hublora.adapter_weights import CompositionMode
from hublora.errors import ConfigError
from hublora.generation.prompt_placeholders import TriggerMode
from hublora.serve.service import MOST_CHARACTERS, Service

PREFIX = "/v1"
router = APIRouter(prefix=PREFIX)

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})\Z")
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
_TYPES |= {429: "rate_limit_error"}


class ImageGeneration(BaseModel):
    """The body of `images.generate`.

    `background`, `moderation`, `output_compression`, `quality`, `style` and `user` are accepted
    and have no effect: they are of OpenAI's own models.
    """

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(max_length=MOST_CHARACTERS)
    model: str = Field("", max_length=MOST_CHARACTERS)
    n: int | None = 1
    size: str | None = None
    response_format: Literal["b64_json"] | None = None
    output_format: Literal["png"] | None = None
    stream: Literal[False] | None = None

    negative_prompt: str | None = Field(None, max_length=MOST_CHARACTERS)
    seed: int | None = Field(None, ge=0)
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None
    timestep_spacing: str | None = None
    shift: float | None = None
    compose: CompositionMode | None = None
    trigger: TriggerMode = "auto"

    background: Any = None
    moderation: Any = None
    output_compression: Any = None
    quality: Any = None
    style: Any = None
    user: Any = None


@router.post("/images/generations")
async def generate(body: ImageGeneration, client: Request) -> dict[str, Any]:
    """Generate images of a prompt."""
    service: Service = client.app.state.service
    width, height = _size(body.size)
    sampling = {
        name: getattr(body, name)
        for name in (
            "negative_prompt", "seed", "num_inference_steps", "guidance_scale", "scheduler",
            "timestep_spacing", "shift",
        )
    }  # fmt: skip
    request = service.request(
        body.model,
        body.prompt,
        {**sampling, "width": width, "height": height},
        compose=body.compose,
        trigger=body.trigger,
    )
    images = await service.generate(request, body.n or 1, client)
    return {
        "created": int(time.time()),
        "output_format": "png",
        "data": [
            {
                "b64_json": base64.b64encode(one.png).decode(),
                "revised_prompt": one.prompt,
                "seed": one.seed,
            }
            for one in images
        ],
    }


@router.get("/models")
async def list_models(client: Request) -> dict[str, Any]:
    """List the base and the adapters in memory; any other of the Hub can be named too."""
    service: Service = client.app.state.service
    names = [service.engine.base, *service.engine.adapters.cache.names]
    return {"object": "list", "data": [_model(name) for name in names]}


@router.get("/models/{name:path}")
async def show_model(name: str, client: Request) -> dict[str, Any]:
    """Show a model; an adapter's ref is checked for its form only."""
    service: Service = client.app.state.service
    service.request(name, "", {})
    return _model(name)


def error_body(status: int, message: str) -> dict[str, Any]:
    """Return an error in OpenAI's form."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _model(name: str) -> dict[str, Any]:
    owner = name.partition("/")[0]
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


def _size(text: str | None) -> tuple[int | None, int | None]:
    if text in (None, "auto"):
        return None, None
    found = _SIZE.match(text)
    if found is None:
        raise ConfigError(f"The size {text!r:.40} is not like 1024x1024, or auto.")
    return int(found[1]), int(found[2])
