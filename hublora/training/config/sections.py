"""The fields of a training's settings: their types, ranges, descriptions and fixed defaults.

Over 300 lines because each setting has its description.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
)

from hublora.data.config import DataConfig
from hublora.memory.offload import parse_blocks
from hublora.memory.quantization import Quantization
from hublora.refs import AdapterRef, BaseRef, parse_repo_id


def _parse_ref(value: Any) -> Any:
    return value if value is None or isinstance(value, AdapterRef) else AdapterRef.parse(value)


def _check_base(name: str) -> str:
    """Return the name of a base if it parses: the repo id or folder is looked up later."""
    BaseRef.parse(name)
    return name


def _check_model_id(name: str) -> str:
    """Return a repo's name, with or without its owner, if it is one."""
    parse_repo_id(name if "/" in name else f"me/{name}", "--hub-model-id")
    return name


def _check_offload(offload: str) -> str:
    """Return a way to offload while training, if it is one."""
    parse_blocks(offload)
    return offload


BlockOffload = Annotated[str, AfterValidator(_check_offload)]
BaseName = Annotated[str, AfterValidator(_check_base)]
ModelId = Annotated[str, AfterValidator(_check_model_id)]
StartRef = Annotated[AdapterRef, BeforeValidator(_parse_ref), PlainSerializer(str)]
Density = Literal["uniform", "logit_normal", "mode"]
MethodName = Literal["text-to-image", "dreambooth", "textual-inversion", "pivotal"]


class Section(BaseModel):
    """Settings of one concern: unknown keys are refused, and nothing is changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BaseSettings(Section):
    model: BaseName = Field(
        description="Hub id or folder of the diffusers pipeline to adapt, or a single .safetensors "
        "file of one."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of the base.")
    components: str | None = Field(
        None,
        description="Pipeline, as owner/name[@revision] or a folder, that has what a single file "
        "lacks (default: the one known to its family).",
    )
    generation: BaseName | None = Field(
        None,
        description="Base with the same layers that images are generated with, such as a distilled "
        "one (default: the one known to the family, else the base itself).",
    )
    generation_revision: str | None = Field(
        None, description="Branch, tag or commit of the generation base."
    )
    quantize: Quantization | None = Field(
        None,
        description="Hold the base's linear layers, of denoiser and text encoders, in 8 or 4 bits; "
        "the adapter is for the plain base all the same.",
    )
    offload: BlockOffload | None = Field(
        None,
        description="blocks or blocks:N: all or N blocks of the denoiser wait in the CPU's memory "
        "until they are computed.",
    )


class AdapterSettings(Section):
    rank: int = Field(4, ge=1, le=4096, description="Rank of the update matrices.")
    alpha: float | None = Field(None, gt=0, description="Scale numerator; the rank by default.")
    targets: list[str] | None = Field(
        None, description="Layer names to adapt; the family's attention layers by default."
    )
    method: Literal["lora", "dora", "loha", "lokr"] = Field(
        "lora", description="Form of a layer's update."
    )
    init: Literal["gaussian", "pissa", "olora"] = Field(
        "gaussian", description="Initial weights; pissa and olora factor the base's own weights."
    )
    rank_stabilized: bool = Field(False, description="Scale by alpha/√rank (rsLoRA).")
    conv_rank: int | None = Field(
        None, ge=1, le=4096, description="Adapt the convolutions of the denoiser too, at this rank."
    )
    blocks: list[str] | None = Field(
        None, description="Adapt only these blocks of the denoiser; mid_block=8 gives one a rank."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input.")
    text_encoder: bool = Field(False, description="Adapt the text encoder too.")
    start_from: StartRef | None = Field(
        None, description="Adapter whose weights are the initial ones, as a ref."
    )
    assistant: StartRef | None = Field(
        None,
        description="Adapter, as a ref, that acts frozen while this one is trained and at no other "
        "time, such as one that undoes the base's distillation.",
    )
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="Use a moving average of the weights; 0.999 is usual."
    )
    trigger_words: list[str] = Field(
        default=[], description="Trigger words, for card and metadata."
    )


class OptimizerSettings(Section):
    name: Literal["adamw", "adamw-8bit", "prodigy", "adafactor", "schedule-free", "muon"] = Field(
        "adamw", description="Optimizer."
    )
    learning_rate: float = Field(
        1e-4,
        gt=0,
        description="Peak learning rate; prodigy: a factor, 1; textual-inversion: 5e-4.",
    )
    text_encoder_learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate of the text encoders (default: the same)."
    )
    lora_plus_ratio: float = Field(
        1.0,
        gt=0,
        description="Learning rate of B over that of A (LoRA+); 16 is usual.",
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the first moment.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Decay of the second moment.")
    weight_decay: float | None = Field(
        None,
        ge=0,
        description="Decoupled weight decay (default: 1e-2; dreambooth on Stable Diffusion XL "
        "1e-4, as in diffusers' script).",
    )
    text_encoder_weight_decay: float | None = Field(
        None,
        ge=0,
        description="Weight decay of the text encoders (default: the same; dreambooth on Stable "
        "Diffusion XL 1e-3).",
    )
    beta3: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of prodigy's estimate of the rate (default: the root of beta2).",
    )
    epsilon: float = Field(1e-8, gt=0, description="Added to the denominator of the update.")
    max_grad_norm: float = Field(1.0, gt=0, description="Norm to which gradients are clipped.")


class ScheduleSettings(Section):
    name: Literal[
        "constant",
        "constant_with_warmup",
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "piecewise_constant",
    ] = Field("cosine", description="Learning rate over time, as diffusers names it.")
    warmup_steps: int = Field(
        0, ge=0, description="Warm-up: steps over which the learning rate rises."
    )
    max_train_steps: int | None = Field(
        None, ge=1, description="Optimizer steps (default: 1000, unless epochs are given)."
    )
    num_train_epochs: int | None = Field(
        None, ge=1, description="Epochs, where --max-train-steps is not given."
    )
    num_cycles: int = Field(1, ge=1, description="Restarts of cosine_with_restarts.")
    power: float = Field(1.0, gt=0, description="Exponent of polynomial.")
    step_rules: str | None = Field(
        None, description='Factors of piecewise_constant, as in "1:100,0.1:200,0.01".'
    )


class ObjectiveSettings(Section):
    snr_gamma: float | None = Field(None, gt=0, description="Min-SNR weighting; 5 is usual.")
    debiased: bool = Field(False, description="Debiased estimation: weight the loss by 1/√SNR.")
    noise_offset: float = Field(0.0, ge=0, description="Per-channel offset of the noise.")
    pyramid_noise: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Discount of coarser and coarser noise laid over the noise, as kohya's "
        "multires_noise_discount; 0.3 is usual.",
    )
    input_perturbation: float = Field(
        0.0, ge=0, description="Noise on the noise that is mixed in; 0.1 is usual."
    )
    outside_mask: float = Field(
        0.0, ge=0, le=1, description="Weight of the loss where a mask is black."
    )
    huber: float | None = Field(
        None, gt=0, description="Threshold of the pseudo-Huber loss; squared error if not given."
    )
    preserve: bool = Field(
        False,
        description="Preserve the base's own predictions for captions without their trigger words; "
        "needs no class images.",
    )
    preserve_class: str | None = Field(
        None,
        min_length=1,
        description='What stands in those captions for the trigger words, such as "dog" (default: '
        "nothing).",
    )
    preserve_weight: float = Field(1.0, gt=0, description="Weight of the loss that preserves.")
    density: Density = Field(
        "uniform", description="Flow matching: how often each noise level is trained."
    )
    logit_mean: float = Field(
        0.0, description="Mean of the logit of 1 - noise; above 0 trains with less noise."
    )
    logit_std: float = Field(1.0, gt=0, description="Its standard deviation.")
    shift: float | Literal["resolution"] = Field(
        1.0,
        description="Flow matching: shift of the noise levels, above 1 to more noise; "
        '"resolution" shifts as the base\'s own sampling does for the size of the images.',
    )
    guidance: float = Field(
        1.0, ge=0, description="Guidance that a guidance-distilled base is trained at."
    )


class ValidationSettings(Section):
    prompts: list[str] = Field(default=[], description="Prompts of the gallery.")
    negative_prompt: str = Field("", description="Negative prompt of the gallery.")
    num_images: int = Field(
        4, ge=1, le=64, description="Images per prompt; without prompts, in all."
    )
    steps: int | None = Field(None, ge=1, description="Generate previews every so many steps.")
    epochs: int | None = Field(None, ge=1, description="Generate previews every so many epochs.")
    num_inference_steps: int | None = Field(None, ge=1, description="Denoising steps of an image.")
    guidance_scale: float | None = Field(None, ge=0, description="Classifier-free guidance.")


class HoldoutSettings(Section):
    images: float = Field(
        0, ge=0, description="Images to hold out for validation: a number, or a share below 1."
    )
    steps: int | None = Field(
        None,
        ge=1,
        description="Measure the held-out loss every so many steps (default: ten times in all).",
    )
    timesteps: int = Field(
        8, ge=1, le=100, description="Timesteps at which each held-out image is measured."
    )
    keep_best: bool = Field(
        True,
        description="The result is the adapter with the lowest held-out loss, if the last one's is "
        "higher by more than the error of the measure.",
    )
    patience: int | None = Field(
        None, ge=1, description="Stop early after so many measures in a row without a lower one."
    )


class CheckpointSettings(Section):
    steps: int = Field(500, ge=1, description="Save a checkpoint every so many steps.")
    total_limit: int | None = Field(3, ge=1, description="Keep at most so many checkpoints.")
    to_hub: bool = Field(
        False,
        description="Upload the newest checkpoint to a side branch of the adapter's repo too.",
    )


class HubSettings(Section):
    push: bool = Field(False, description="Push the result to the Hub and verify it.")
    model_id: ModelId | None = Field(None, description="owner/name of the adapter's repo.")
    private: bool = Field(False, description="Create the repo private.")


class DreamBoothSettings(Section):
    """One subject under one prompt, and prior preservation with images of its class.

    The names are those of diffusers' `train_dreambooth_lora.py`.
    """

    instance_prompt: str | None = Field(
        None, min_length=1, description='Caption of every image, such as "a photo of sks dog".'
    )
    prior_preservation: bool = Field(
        False, description="Train on class images too, generated by the base alone."
    )
    class_prompt: str | None = Field(
        None, min_length=1, description='Prompt of the class images, such as "a photo of a dog".'
    )
    class_folder: Path | None = Field(
        None,
        description="Folder of the class images; missing ones are generated (default: a cache).",
    )
    num_class_images: int = Field(100, ge=1, description="Number of class images.")
    prior_weight: float = Field(1.0, gt=0, description="Weight of the loss on class images.")


class TokenSettings(Section):
    """Token embeddings that are trained (textual inversion,
    https://huggingface.co/papers/2208.01618)."""

    placeholders: list[str] = Field(
        default=[], description='New token whose embedding is trained, such as "<my-dog>".'
    )
    initializers: list[str] = Field(
        default=[],
        description="Word whose embedding is the initial one, such as dog; random unless set.",
    )
    num_vectors: int = Field(1, ge=1, le=64, description="Embedding vectors per new token.")
    property: Literal["object", "style"] = Field(
        "object", description="Wording of the captions of images that have none."
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="Peak learning rate of the embeddings; pivotal: 5 times the adapter's.",
    )
    first_steps: float = Field(
        0.4,
        ge=0,
        description="Steps that train the token embeddings alone, before the adapter is trained "
        "too (pivotal): a number, or a share below 1.",
    )


class TrainingSettings(Section):
    """All fields of a training's settings; `TrainingConfig` is how they are read and written."""

    preset: Literal["face", "object", "style"] | None = Field(
        None, description="Settings that suit a kind of subject; explicit ones win."
    )
    method: MethodName = Field("text-to-image", description="Training method.")
    base: BaseSettings
    data: DataConfig = DataConfig()
    adapter: AdapterSettings = AdapterSettings()
    dreambooth: DreamBoothSettings = DreamBoothSettings()
    # Of sections with a setting of the same name, a misspelt key is taken for the first one's.
    optimizer: OptimizerSettings = OptimizerSettings()
    tokens: TokenSettings = TokenSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    validation: ValidationSettings = ValidationSettings()
    holdout: HoldoutSettings = HoldoutSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    hub: HubSettings = HubSettings()
    output_dir: Path | None = Field(
        None, description="Folder of the run; a new one below ./runs by default."
    )
    train_batch_size: int = Field(1, ge=1, description="Batch size per device.")
    gradient_accumulation_steps: int = Field(1, ge=1, description="Batches per optimizer step.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations to save memory.")
    mixed_precision: Literal["no", "fp16", "bf16"] | None = Field(
        None,
        description="Precision of the frozen base (default: bf16 or fp16 on a GPU, no on a CPU).",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of everything random.")
    report_to: list[str] = Field(default=[], description="Trackers, e.g. wandb, tensorboard.")
