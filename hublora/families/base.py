"""What training, generation and adapter files ask of a model family.

Over 300 lines because all of it is one Protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from hublora.families.blocks import Blocks
from hublora.families.known_bases import KnownBases
from hublora.families.lora_names import LoraNames
from hublora.families.parameterization import Parameterization
from hublora.families.pipeline import Pipeline
from hublora.families.references import References

if TYPE_CHECKING:
    import torch
    from PIL import Image

# Name -> tensor [B, …] that the denoiser is conditioned on: prompt embeddings, pooled embeddings,
# attention masks.
Conditioning = Mapping[str, "torch.Tensor"]

# Name of a tensor of the denoiser in an original single file -> its shape.
FileShapes = Mapping[str, tuple[int, ...]]

# Component -> layer -> (in,) or (in, kh, kw): the inputs of the layers that an adapter changes.
LayerInputs = Mapping[str, Mapping[str, tuple[int, ...]]]


@dataclass(frozen=True)
class DenoiserInputs:
    """One batch for a denoiser.

    Attributes:
        noisy: Noisy latents, [B, c, h, w]; for an inpainting base model [B, 2c + 1, h, w], with
            the mask (1 where it generates) and the latents of the masked image.
        levels: Noise levels, [B], as the base model's parameterization returns them.
        conditioning: As `Family.encode_prompts` returns it.
        size_conditioning: [B, 6], in pixels: height and width of the image, top and left of the
            crop in the resized image, height and width of the crop.
        guidance: Guidance scale, [B], float32, that guidance-distilled base models are given; they
            require it.
        references: Latents of each reference image, [B, c, h', w'], in order; their sides may
            differ from those of `noisy`.
    """

    noisy: torch.Tensor
    levels: torch.Tensor
    conditioning: Conditioning
    size_conditioning: torch.Tensor
    guidance: torch.Tensor | None = None
    references: Sequence[torch.Tensor] = ()


@dataclass(frozen=True)
class SamplingDefaults:
    """The usual sampling settings of a family.

    Attributes:
        num_inference_steps: Denoising steps.
        guidance_scale: Classifier-free guidance.
    """

    num_inference_steps: int
    guidance_scale: float


def text_encoders_of(family: Family, pipe: Pipeline) -> tuple[str, ...]:
    """Return the names of the text encoders that the pipeline has."""
    return tuple(name for name in family.text_encoders if getattr(pipe, name) is not None)


class Family(Protocol):
    """One architecture: which pipeline runs it and how its components are called.

    Attributes:
        name: Key in the registry.
        pipeline_classes: Values of `_class_name` in `model_index.json` that belong to it.
        denoiser: Component that predicts.
        vae: Component that encodes images into latents.
        text_encoders: Components that encode prompts; a pipeline may lack some of them.
        flat_text_encoders: Text encoders that are a `CLIPTextModel`, whose layers transformers has
            without the level `text_model` since 5.6.
        adaptable: Components that an adapter may change, the denoiser first.
        default_targets: Component -> ends of the names of the layers that an adapter targets by
            default.
        convolutions: Component -> ends of the names of its convolutions.
        card_tags: Tags by which the Hub groups the family's adapters.
        component_classes: Component of the pipeline -> (library, class) that it may have.
        optional_component_classes: Component that a pipeline may lack -> (library, class) that it
            may have.
        unloaded_components: Components of `model_index.json` that are never opened.
        half_dtype: Half precision that does not overflow.
        weight_decays: Method of training -> weight decay of the denoiser and of text encoders, each
            in [0, ∞), where diffusers' script has another than 0.01.
        flow_matching: Whether its base models are trained by flow matching.
        gradient_checkpointing: Whether its denoiser computes the same with gradient checkpointing.
        takes_controlnets: Whether ControlNets and IP-Adapters are used with it.
        whole_files: Whether an original single file holds all components, not the denoiser alone.
        one_file: Whether ComfyUI reads diffusers' layout, so that an adapter is a single file.
        autocast: Whether training runs the denoiser under autocast.
        chat_template: Whether its tokenizer must have a chat template.
        references: Number of reference images that its base models take.
        names: Names of its layers in adapter files.
        blocks: Blocks of its denoiser.
        known_bases: Repo ids of the family's published base models.
    """

    name: str
    pipeline_classes: tuple[str, ...]
    denoiser: str
    vae: str
    text_encoders: tuple[str, ...]
    flat_text_encoders: tuple[str, ...]
    convolutions: Mapping[str, tuple[str, ...]]
    card_tags: tuple[str, ...]
    component_classes: Mapping[str, tuple[tuple[str, str], ...]]
    optional_component_classes: Mapping[str, tuple[tuple[str, str], ...]]
    unloaded_components: tuple[str, ...]
    half_dtype: Literal["float16", "bfloat16"]
    weight_decays: Mapping[str, tuple[float, float]]
    flow_matching: bool
    gradient_checkpointing: bool
    takes_controlnets: bool
    whole_files: bool
    one_file: bool
    autocast: bool
    chat_template: bool
    references: References
    names: LoraNames
    blocks: Blocks
    known_bases: KnownBases

    @property
    def adaptable(self) -> tuple[str, ...]: ...

    @property
    def default_targets(self) -> Mapping[str, tuple[str, ...]]: ...

    def load(
        self, folder: Path, dtype: torch.dtype | dict[str, torch.dtype], **components: Any
    ) -> Pipeline:
        """Return the pipeline in `folder` on the CPU, from safetensors only.

        Args:
            folder: A pipeline's folder, with `model_index.json`.
            dtype: Dtype of all weights, or component -> dtype, with "default" for the others.
            components: Components that stand for those in the folder, which may be missing there.
        """
        ...

    def architecture(self, pipe: Pipeline) -> str:
        """Return the modelspec name (https://github.com/Stability-AI/ModelSpec) of an adapter of
        this base model, e.g. "stable-diffusion-v1/lora"."""
        ...

    def architecture_of_layers(self, inputs: LayerInputs) -> str | None:
        """Return the modelspec name of the base models that an adapter's layers fit, None if they
        fit none of the family or do not determine it."""
        ...

    def resolution(self, pipe: Pipeline) -> int:
        """Return the side of the images that the base model was trained on, in pixels."""
        ...

    def size_step(self, pipe: Pipeline) -> int:
        """Return what widths and heights must be a multiple of, in pixels."""
        ...

    def inpaints(self, pipe: Pipeline) -> bool:
        """Tell whether the denoiser takes a mask and the latents of a masked image too."""
        ...

    def is_distilled(self, base: str, folder: Path) -> bool:
        """Tell whether a base model was distilled to a few steps.

        Args:
            base: Hub id, or the folder's name.
            folder: The pipeline's folder.
        """
        ...

    def sampling(self, base: str, folder: Path) -> SamplingDefaults:
        """Return the usual sampling settings of a base model.

        Args:
            base: Hub id, or the folder's name.
            folder: The pipeline's folder.
        """
        ...

    def call_arguments(
        self, pipe: Pipeline, prompt: str, negative_prompt: str, guidance_scale: float
    ) -> dict[str, Any]:
        """Return the arguments of the pipeline's call that state prompts and guidance.

        Args:
            pipe: The pipeline, or a kin of it that starts from images.
            prompt: Text of the image.
            negative_prompt: Text that the image avoids; may be empty.
            guidance_scale: Guidance, as the family's pipeline counts it.

        Raises:
            ConfigError: The pipeline takes no negative prompt.
        """
        ...

    def texts_of_call(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the texts that a call of the pipeline with these arguments encodes."""
        ...

    def with_embeddings(
        self, pipe: Pipeline, arguments: Mapping[str, Any], embedded: Mapping[str, Conditioning]
    ) -> dict[str, Any]:
        """Return the arguments of a call with embeddings in place of its texts.

        Args:
            pipe: The pipeline, of which the text encoders may be missing.
            arguments: As `call_arguments` returns them.
            embedded: Text -> its conditioning, each [1, …] on any device, for all of
                `texts_of_call`.
        """
        ...

    def base_of_file(self, shapes: FileShapes) -> str | None:
        """Return the Hub id of the published base model that an original single file is a version
        of, "" if it has other sizes, None if the file is of another family.

        Args:
            shapes: Tensors of the denoiser.
        """
        ...

    def parameterization(self, pipe: Pipeline) -> Parameterization:
        """Return the noise and the prediction that the base model was trained for.

        Raises:
            AdapterError: It is one that cannot be trained.
        """
        ...

    def scheduler_timestep(self, timestep: float) -> float:
        """Return the scheduler's timestep for the one that the denoiser is called with."""
        ...

    def encode_images(
        self, pipe: Pipeline, pixels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return mean and standard deviation of the scaled latents, each [B, c, h, w].

        A family that trains on the mode of the posterior returns no standard deviation.

        Args:
            pipe: The pipeline.
            pixels: [B, 3, H, W] in [-1, 1].
        """
        ...

    def encode_prompts(
        self, pipe: Pipeline, prompts: Sequence[str], length: int | None = None
    ) -> Conditioning:
        """Return the conditioning of the denoiser for each prompt; longer ones are truncated.

        Args:
            pipe: The pipeline.
            prompts: B prompts.
            length: Tokens that are read, markers included; None is the family's own.
        """
        ...

    def padded_length(self, pipe: Pipeline, prompts: Sequence[str]) -> int | None:
        """Return the fewest tokens to which these prompts may be padded without another prediction;
        None where the denoiser attends to padding, so that only the family's own length will do."""
        ...

    def encode_instruction(
        self,
        pipe: Pipeline,
        prompt: str,
        references: Sequence[Image.Image],
        length: int | None = None,
    ) -> Conditioning:
        """Return the conditioning for a prompt and the references that the text encoder sees beside
        it, each [1, …]; where it sees none, that of the prompt alone.

        Args:
            pipe: The pipeline.
            prompt: The prompt.
            references: Reference images in RGB, in any size.
            length: Tokens that the result is padded to; None is the family's own.
        """
        ...

    def count_instruction_tokens(
        self, pipe: Pipeline, prompts: Sequence[str], references: Sequence[tuple[int, int]]
    ) -> list[int]:
        """Return the number of tokens that each prompt has beside references of these sizes (width
        and height in pixels), as `encode_instruction` returns them."""
        ...

    def reference_size(self, pipe: Pipeline, size: tuple[int, int], side: int) -> tuple[int, int]:
        """Return the width and height in pixels that a reference is resized to.

        Args:
            pipe: The pipeline.
            size: Width and height of the reference.
            side: Side of the square with as many pixels as the generated image has.

        Raises:
            ConfigError: The base takes no reference of this size.
        """
        ...

    def fit_reference(self, pipe: Pipeline, image: Image.Image, side: int) -> Image.Image:
        """Return a reference in its `reference_size`, as the pipeline resizes it."""
        ...

    def image_arguments(
        self,
        pipe: Pipeline,
        references: Sequence[Image.Image],
        width: int | None,
        height: int | None,
    ) -> Mapping[str, Any]:
        """Return the arguments of the pipeline's call for reference images and size.

        Args:
            pipe: The pipeline.
            references: Reference images in RGB, at most `references.most`.
            width: Width of the generated image in pixels; None leaves it to the pipeline.
            height: Height of it, likewise.
        """
        ...

    def count_tokens(self, pipe: Pipeline, prompts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each prompt, markers included, before truncation."""
        ...

    def max_tokens(self, pipe: Pipeline) -> int:
        """Return how many tokens of a prompt are read, markers included."""
        ...

    def predict(
        self, pipe: Pipeline, denoiser: torch.nn.Module, inputs: DenoiserInputs
    ) -> torch.Tensor:
        """Return the denoiser's prediction, [B, c, h, w].

        Args:
            pipe: The pipeline, for its helpers and configuration.
            denoiser: The pipeline's denoiser, possibly wrapped for several devices.
            inputs: One batch.
        """
        ...
