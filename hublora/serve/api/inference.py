"""The text-to-image call of Hugging Face's Inference API and Endpoints
(https://huggingface.co/docs/inference-providers/tasks/text-to-image), as `InferenceClient` makes
it: to /models/REF, where REF may be several joined by "|", or to / for the base."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from hublora.adapter_weights import CompositionMode
from hublora.generation.prompt_placeholders import TriggerMode
from hublora.serve.service import MOST_CHARACTERS, Service

PREFIX = "/models"
router = APIRouter()


class Parameters(BaseModel):
    """The parameters of `InferenceClient.text_to_image`, and its `extra_body`."""

    model_config = ConfigDict(extra="forbid")

    negative_prompt: str | None = Field(None, max_length=MOST_CHARACTERS)
    height: int | None = None
    width: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None
    seed: int | None = Field(None, ge=0)
    timestep_spacing: str | None = None
    shift: float | None = None
    compose: CompositionMode | None = None
    trigger: TriggerMode = "auto"


class InferenceCall(BaseModel):
    """The body of `InferenceClient.text_to_image`."""

    model_config = ConfigDict(extra="forbid")

    inputs: str = Field(max_length=MOST_CHARACTERS)
    parameters: Parameters = Field(default_factory=Parameters)


@router.post("/")
@router.post("/models/{ref:path}")
async def text_to_image(body: InferenceCall, client: Request, ref: str = "") -> Response:
    """Generate an image of a prompt; the answer is the PNG."""
    service: Service = client.app.state.service
    sampling = body.parameters.model_dump(exclude={"compose", "trigger"})
    parameters = body.parameters
    request = service.request(
        unquote(ref),
        body.inputs,
        sampling,
        compose=parameters.compose,
        trigger=parameters.trigger,
    )
    (image,) = await service.generate(request, 1, client)
    return Response(image.png, media_type="image/png", headers={"X-Seed": str(image.seed)})


def error_body(status: int, message: str) -> dict[str, Any]:
    """Return an error in the Inference API's form."""
    return {"error": message}
