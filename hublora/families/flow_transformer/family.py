"""The base class of families with a transformer that predicts the velocity of flow matching.

Sources: https://huggingface.co/papers/2403.03206; diffusers' pipelines and its scripts under
`examples/dreambooth`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hublora.errors import ConfigError
from hublora.families.base import FileShapes, LayerInputs, SamplingDefaults
from hublora.families.blocks import Blocks
from hublora.families.embedded_call import TextCall
from hublora.families.flow_matching import Flow
from hublora.families.flow_transformer.components import Classes
from hublora.families.known_bases import KnownBases
from hublora.families.lora_names import LoraNames
from hublora.families.parameterization import Parameterization
from hublora.families.pipeline import Pipeline
from hublora.families.references import ReferenceCall
from hublora.families.vae import latent_scale

if TYPE_CHECKING:
    import torch

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
CLIP_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
JOINT_ATTENTION = (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")

TIMESTEPS = 1000  # what schedulers count noise levels in
_RESOLUTION = 1024  # pixels: what all published base models were trained on
_PATCH = 2  # latents on a side of what the transformer sees as one token


class FlowTransformer(TextCall, ReferenceCall):
    """A family whose denoiser is one of diffusers' image transformers.

    Attributes:
        usual: Sampling settings of its base models.
        usual_distilled: Sampling settings of base models that were distilled to a few steps.
        targets: Ends of the names of the denoiser's layers that an adapter targets by default.
        adaptable_text_encoders: Text encoders that an adapter may change.
        text_length: Tokens of a prompt that are read.
        conditioning_sizes: Name in the conditioning -> sizes after the batch's: entries of the
            transformer's config, or numbers.
        latent_pixels: Pixels on a side of one latent.
        packed_latents: Latents that the transformer sees as one channel vector.
        file_markers: Names of tensors that all original files of its denoiser have, and no others.
        file_width: Name of the tensor that reads prompt embeddings.
    """

    name: str
    pipeline_classes: tuple[str, ...]
    card_tags: tuple[str, ...]
    text_encoders: tuple[str, ...]
    component_classes: Mapping[str, Classes]
    names: LoraNames
    known_bases: KnownBases
    blocks: Blocks
    usual: ClassVar[SamplingDefaults]
    usual_distilled: ClassVar[SamplingDefaults]
    text_length: ClassVar[int]
    conditioning_sizes: ClassVar[Mapping[str, tuple[str | int, ...]]]
    latent_pixels: ClassVar[int] = 8
    packed_latents: ClassVar[int] = _PATCH**2
    file_markers: ClassVar[tuple[str, ...]]
    file_width: ClassVar[str]
    targets: ClassVar[tuple[str, ...]] = ATTENTION
    adaptable_text_encoders: ClassVar[tuple[str, ...]] = ()

    flat_text_encoders: tuple[str, ...] = ()
    denoiser = "transformer"
    vae = "vae"
    convolutions: Mapping[str, tuple[str, ...]] = {}
    optional_component_classes: Mapping[str, Classes] = {}
    unloaded_components: tuple[str, ...] = ()
    half_dtype: Literal["float16", "bfloat16"] = "bfloat16"
    weight_decays: Mapping[str, tuple[float, float]] = {}
    flow_matching = True
    gradient_checkpointing = True
    takes_controlnets = False
    whole_files = False
    one_file = True
    autocast = True
    chat_template = False

    @property
    def adaptable(self) -> tuple[str, ...]:
        """The denoiser, and the text encoders that diffusers loads adapters onto."""
        return (self.denoiser, *self.adaptable_text_encoders)

    @property
    def default_targets(self) -> Mapping[str, tuple[str, ...]]:
        """The attention layers."""
        text = dict.fromkeys(self.adaptable_text_encoders, CLIP_ATTENTION)
        return {self.denoiser: self.targets, **text}

    def load(
        self, folder: Path, dtype: torch.dtype | dict[str, torch.dtype], **components: Any
    ) -> Pipeline:
        """Return the pipeline in `folder` on the CPU, from safetensors only; `components` stand for
        those in the folder."""
        import diffusers

        index = json.loads((folder / "model_index.json").read_bytes())
        missing = [
            name for name in self.optional_component_classes if not _names_class(index, name)
        ]
        components = dict.fromkeys(missing) | components  # diffusers wants to be told
        pipe: Pipeline = getattr(diffusers, str(index["_class_name"])).from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, **components
        )
        return pipe

    def architecture(self, pipe: Pipeline) -> str:
        return f"{self.known_bases.architecture}/lora"

    def base_of_file(self, shapes: FileShapes) -> str | None:
        """Return the base model by the tensors that all files of the family have."""
        if not all(name in shapes for name in self.file_markers):
            return None
        widths = shapes.get(self.file_width, (0, 0))
        return self.known_bases.file_bases.get(widths[-1], "")

    def architecture_of_layers(self, inputs: LayerInputs) -> str | None:
        """Return the modelspec name if the family has such layers."""
        if self.denoiser not in inputs or not set(inputs) <= set(self.adaptable):
            return None
        names = self.names
        if all(names.knows(one) or names.knows_flat(one) for one in inputs[self.denoiser]):
            return self.known_bases.architecture
        return None

    def resolution(self, pipe: Pipeline) -> int:
        return _RESOLUTION

    def size_step(self, pipe: Pipeline) -> int:
        return int(pipe.vae_scale_factor) * _PATCH

    def inpaints(self, pipe: Pipeline) -> bool:
        return False

    def is_distilled(self, base: str, folder: Path) -> bool:
        """Tell whether a base model was distilled to a few steps."""
        return False

    def sampling(self, base: str, folder: Path) -> SamplingDefaults:
        return self.usual_distilled if self.is_distilled(base, folder) else self.usual

    def parameterization(self, pipe: Pipeline) -> Parameterization:
        return Flow.of_scheduler(pipe.scheduler)

    def scheduler_timestep(self, timestep: float) -> float:
        """Return 1000·s for the noise level s."""
        return timestep * TIMESTEPS

    def encode_images(
        self, pipe: Pipeline, pixels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return mean and standard deviation of (z − shift) · scale, each [B, c, h, w]."""
        vae = pipe.vae
        latents = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
        scale, shift = latent_scale(vae), vae.config.shift_factor or 0.0
        return (latents.mean - shift) * scale, latents.std * scale

    def padded_length(self, pipe: Pipeline, prompts: Sequence[str]) -> int | None:
        return None

    def conditioning_shapes(self, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return name -> shape, without the batch's, of the conditioning of the longest prompt.

        Args:
            config: Config of the transformer.
        """
        return {
            name: tuple(one if isinstance(one, int) else int(config[one]) for one in sizes)
            for name, sizes in self.conditioning_sizes.items()
        }

    def latent_shape(
        self, config: Mapping[str, Any], size: tuple[int, int]
    ) -> tuple[int, int, int]:
        """Return the shape of an image's latents, (c, h, w).

        Args:
            config: Config of the transformer.
            size: (h, w) of the image in pixels.
        """
        channels = int(config["in_channels"]) // self.packed_latents
        height, width = (side // self.latent_pixels for side in size)
        return (channels, height, width)

    def count_tokens(self, pipe: Pipeline, prompts: Sequence[str]) -> list[int]:
        tokens = pipe.tokenizer(list(prompts), truncation=False, verbose=False)
        return [len(ids) for ids in tokens.input_ids]

    def max_tokens(self, pipe: Pipeline) -> int:
        return self.text_length


def _names_class(index: Mapping[str, Any], component: str) -> bool:
    stated = index.get(component)
    return isinstance(stated, list) and None not in stated


def no_negative_prompt(name: str, negative_prompt: str) -> None:
    """Refuse a negative prompt.

    Raises:
        ConfigError: It is not empty.
    """
    if negative_prompt:
        raise ConfigError(
            f"The pipeline of {name} takes no negative prompt, got {negative_prompt!r}.",
            "Leave the negative prompt out.",
        )


def pipeline_config(folder: Path) -> dict[str, Any]:
    """Return the `model_index.json` of a pipeline's folder, empty without one."""
    return component_config(folder, "", "model_index.json")


def count_chat_tokens(pipe: Pipeline, prompts: Sequence[str], **options: Any) -> list[int]:
    """Return the number of tokens of each prompt as a message of a chat.

    Args:
        pipe: A pipeline whose tokenizer has a chat template.
        prompts: The prompts.
        options: Variables of the template.
    """
    messages = ([{"role": "user", "content": prompt}] for prompt in prompts)
    encode = pipe.tokenizer.apply_chat_template
    encoded = (
        encode(one, add_generation_prompt=True, return_dict=True, **options) for one in messages
    )
    return [len(one["input_ids"]) for one in encoded]


def component_config(folder: Path, component: str, file: str = "config.json") -> dict[str, Any]:
    """Return the config of a component in a pipeline's folder, empty without one."""
    try:
        config = json.loads((folder / component / file).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}
