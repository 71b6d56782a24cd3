"""The fields of a training's settings: their types, ranges, descriptions and fixed defaults."""

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


BaseName = Annotated[str, AfterValidator(_check_base)]
ModelId = Annotated[str, AfterValidator(_check_model_id)]
StartRef = Annotated[AdapterRef, BeforeValidator(_parse_ref), PlainSerializer(str)]
MethodName = Literal["text-to-image", "dreambooth", "textual-inversion", "pivotal"]


class Section(BaseModel):
    """Settings of one concern: unknown keys are refused, and nothing is changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BaseSettings(Section):
    model: BaseName = Field(description="Hub id or folder of the diffusers pipeline to adapt.")
    revision: str | None = Field(None, description="Branch, tag or commit of the base.")


class AdapterSettings(Section):
    rank: int = Field(4, ge=1, le=4096, description="Rank of the update matrices.")
    alpha: float | None = Field(None, gt=0, description="Scale numerator; the rank by default.")
    targets: list[str] | None = Field(
        None, description="Layer names to adapt; the family's attention layers by default."
    )
    method: Literal["lora", "dora", "loha", "lokr"] = Field(
        "lora", description="How a layer's update is made up."
    )
    init: Literal["gaussian", "pissa", "olora"] = Field(
        "gaussian", description="Where the update starts; pissa and olora: in the base's weights."
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
    start_from: StartRef | None = Field(None, description="Adapter to begin with, as a ref.")
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="Use a moving average of the weights; 0.999 is usual."
    )
    trigger_words: list[str] = Field(default=[], description="Words that call the concept.")


class OptimizerSettings(Section):
    name: Literal["adamw", "adamw-8bit", "prodigy", "adafactor", "schedule-free", "muon"] = Field(
        "adamw", description="Which optimizer."
    )
    learning_rate: float = Field(
        1e-4, gt=0, description="Peak learning rate; a factor, 1 by default, for prodigy."
    )
    text_encoder_learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate of the text encoders; the same if not given."
    )
    lora_plus_ratio: float = Field(
        1.0, gt=0, description="How much faster the second matrix learns (LoRA+); 16 is usual."
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the first moment.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Decay of the second moment.")
    weight_decay: float = Field(1e-2, ge=0, description="Decoupled weight decay.")
    epsilon: float = Field(1e-8, gt=0, description="Added to the denominator.")
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
    warmup_steps: int = Field(0, ge=0, description="Steps over which the learning rate rises.")
    max_train_steps: int | None = Field(
        None, ge=1, description="Optimizer steps (default: 1000, unless epochs are given)."
    )
    num_train_epochs: int | None = Field(
        None, ge=1, description="Passes over the data, where the steps are not given."
    )
    num_cycles: int = Field(1, ge=1, description="Restarts of cosine_with_restarts.")
    power: float = Field(1.0, gt=0, description="Exponent of polynomial.")
    step_rules: str | None = Field(
        None, description='Factors of piecewise_constant, as in "1:100,0.1:200,0.01".'
    )


class ObjectiveSettings(Section):
    snr_gamma: float | None = Field(None, gt=0, description="Min-SNR weighting; 5 is usual.")
    debiased: bool = Field(False, description="Weighting of debiased estimation, 1/√SNR.")
    noise_offset: float = Field(0.0, ge=0, description="Per-channel offset of the noise.")
    pyramid_noise: float = Field(
        0.0, ge=0, lt=1, description="Share of coarser noise in the noise; 0.3 is usual."
    )
    input_perturbation: float = Field(
        0.0, ge=0, description="Noise on the noise that is mixed in; 0.1 is usual."
    )
    outside_mask: float = Field(
        0.0, ge=0, le=1, description="Weight of the loss where a mask is black."
    )
    huber: float | None = Field(
        None, gt=0, description="Size of error above which it counts linearly; squares if none."
    )


class ValidationSettings(Section):
    prompts: list[str] = Field(default=[], description="Prompts of the gallery.")
    negative_prompt: str = Field("", description="Negative prompt of the gallery.")
    num_images: int = Field(
        4, ge=1, le=64, description="Images per prompt; without prompts, in all."
    )
    steps: int | None = Field(None, ge=1, description="Draw every so many training steps.")
    epochs: int | None = Field(None, ge=1, description="Draw every so many epochs.")
    num_inference_steps: int | None = Field(None, ge=1, description="Denoising steps an image.")
    guidance_scale: float | None = Field(None, ge=0, description="Classifier-free guidance.")


class HoldoutSettings(Section):
    images: float = Field(
        0, ge=0, description="Images to keep apart for measuring: a number, or a share below 1."
    )
    steps: int | None = Field(
        None, ge=1, description="Measure every so many steps (default: ten times in all)."
    )
    timesteps: int = Field(8, ge=1, le=100, description="Timesteps to measure each image at.")
    keep_best: bool = Field(True, description="The result is the adapter that measured best.")
    patience: int | None = Field(
        None, ge=1, description="Stop after so many measures in a row without a better one."
    )


class CheckpointSettings(Section):
    steps: int = Field(500, ge=1, description="Save a checkpoint every so many steps.")
    total_limit: int | None = Field(3, ge=1, description="Keep at most so many checkpoints.")
    to_hub: bool = Field(
        False, description="Keep the newest one on a side branch of the adapter's repo too."
    )


class HubSettings(Section):
    push: bool = Field(False, description="Push the result to the Hub and verify it.")
    model_id: ModelId | None = Field(None, description="owner/name of the adapter's repo.")
    private: bool = Field(False, description="Create the repo private.")


class DreamBoothSettings(Section):
    """One subject under one prompt, and images of its class that keep the base from forgetting.

    The names are those of diffusers' `train_dreambooth_lora.py`.
    """

    instance_prompt: str | None = Field(
        None, min_length=1, description='Caption of every image, such as "a photo of sks dog".'
    )
    prior_preservation: bool = Field(
        False, description="Show images of the class too, drawn by the base alone."
    )
    class_prompt: str | None = Field(
        None, min_length=1, description='What those show, such as "a photo of a dog".'
    )
    class_folder: Path | None = Field(
        None,
        description="Where those are, and where missing ones are drawn (default: in the cache).",
    )
    num_class_images: int = Field(100, ge=1, description="How many of those.")
    prior_weight: float = Field(1.0, gt=0, description="Weight of their loss.")


class TokenSettings(Section):
    """Words that are learned: textual inversion, https://huggingface.co/papers/2208.01618."""

    placeholders: list[str] = Field(
        default=[], description='New word that stands for what is learned, such as "<my-dog>".'
    )
    initializers: list[str] = Field(
        default=[], description="What it means at first, such as dog; a random meaning unless set."
    )
    num_vectors: int = Field(1, ge=1, le=64, description="Vectors that each new word stands for.")
    property: Literal["object", "style"] = Field(
        "object", description="What images without captions are said to show."
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="Peak learning rate of the new words; with pivotal 5 times the adapter's.",
    )
    first_steps: float = Field(
        0.4,
        ge=0,
        description="Steps with the new words alone, before the adapter joins (pivotal): a "
        "number, or a share below 1.",
    )


class TrainingSettings(Section):
    """All fields of a training's settings; `TrainingConfig` is how they are read and written."""

    preset: Literal["face", "object", "style"] | None = Field(
        None, description="Begin with what suits a kind of subject; other settings go first."
    )
    method: MethodName = Field("text-to-image", description="How it is learned.")
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
    train_batch_size: int = Field(1, ge=1, description="Images per device and forward pass.")
    gradient_accumulation_steps: int = Field(1, ge=1, description="Passes per optimizer step.")
    gradient_checkpointing: bool = Field(False, description="Trade time for memory.")
    mixed_precision: Literal["no", "fp16", "bf16"] | None = Field(
        None, description="Type of the frozen base; by default bf16 or fp16 on a GPU, no on a CPU."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Of everything random.")
    report_to: list[str] = Field(default=[], description="Trackers, e.g. wandb, tensorboard.")
