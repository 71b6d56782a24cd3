"""FLUX.1 Kontext: FLUX.1 with the latents of one reference image beside the noise.

Sources: https://huggingface.co/papers/2506.15742; diffusers' `FluxKontextPipeline` and
`train_dreambooth_lora_flux_kontext.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.families.base import FileShapes, LayerInputs, SamplingDefaults
from hublora.families.flux.family import Flux
from hublora.families.flux.known_bases import KONTEXT_BASES
from hublora.families.pipeline import Pipeline
from hublora.families.references import References, side_of

if TYPE_CHECKING:
    from PIL import Image

_SIDE = 1024  # of the square with as many pixels as the pipeline's preferred sizes have
_STEP = 16  # that the sides of references are multiples of


class FluxKontext(Flux):
    """FLUX.1 Kontext; without a reference it generates from text.

    A reference is resized to the nearest of the pipeline's preferred sizes. For images of fewer
    pixels than those, it gets fewer too, so that positions in both correspond.
    """

    name = "flux-kontext"
    pipeline_classes: tuple[str, ...] = ("FluxKontextPipeline",)
    card_tags: tuple[str, ...] = ("flux", "flux-kontext", "flux-diffusers")
    known_bases = KONTEXT_BASES
    references = References(most=1)
    usual = SamplingDefaults(num_inference_steps=28, guidance_scale=2.5)

    def architecture(self, pipe: Pipeline) -> str:
        return f"{self.known_bases.architecture}/lora"

    def architecture_of_layers(self, inputs: LayerInputs) -> str | None:
        return None  # they are those of FLUX.1 dev

    def base_of_file(self, shapes: FileShapes) -> str | None:
        return None  # its names and shapes are those of FLUX.1 dev

    def is_distilled(self, base: str, folder: Path) -> bool:
        return False

    def reference_size(self, pipe: Pipeline, size: tuple[int, int], side: int) -> tuple[int, int]:
        from diffusers.pipelines.flux import pipeline_flux_kontext

        width, height = size
        sizes = pipeline_flux_kontext.PREFERRED_KONTEXT_RESOLUTIONS
        _, width, height = min((abs(width / height - w / h), w, h) for w, h in sizes)
        scale = min(side, _SIDE) / _SIDE
        return _multiple(width * scale), _multiple(height * scale)

    def image_arguments(
        self,
        pipe: Pipeline,
        references: Sequence[Image.Image],
        width: int | None,
        height: int | None,
    ) -> Mapping[str, Any]:
        """Return the arguments; a side that is not given follows the reference."""
        if not references and width is None and height is None:
            return {}
        usual = self.reference_size(pipe, references[0].size if references else (1, 1), _SIDE)
        if width is None:
            width = _multiple(height * usual[0] / usual[1]) if height else usual[0]
        if height is None:
            height = _multiple(width * usual[1] / usual[0])
        sizes = {"width": width, "height": height, "max_area": width * height}
        if not references:
            return sizes
        fitted = self.fit_reference(pipe, references[0], side_of(width, height))
        return {"image": fitted, "_auto_resize": False, **sizes}


def _multiple(side: float) -> int:
    return max(_STEP, round(side / _STEP) * _STEP)
