"""The facts that a model card states, as frozen values.

A fact that is None or empty is unknown: the card leaves it out or says so. Nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hublora.hub.repo_layout import WEIGHTS

Value = str | int | float | bool | None


@dataclass(frozen=True)
class LicenseFacts:
    """A licence in the form of cards on the Hub.

    Attributes:
        id: One of the Hub's ids (https://huggingface.co/docs/hub/repositories-licenses), "other",
            or None when it is unknown.
        name: Name of an "other" licence; None for the Hub's own ids.
        link: URL of the text of an "other" licence; None for the Hub's own ids.
    """

    id: str | None = None
    name: str | None = None
    link: str | None = None


@dataclass(frozen=True)
class RepoFacts:
    """The base model or dataset that an adapter was trained with.

    Attributes:
        id: owner/name on the Hub; None for a local folder.
        revision: Commit, 40 hexadecimal digits; None for a local folder.
        license: Licence on the repo's card.
        file: Path of a single file inside the repo, or its name where it is not published; None for
            a pipeline or dataset.
        sha256: Hash of that file, 64 hexadecimal digits.
        components: Pipeline, as owner/name@commit, that has what the file lacks.
    """

    id: str | None = None
    revision: str | None = None
    license: LicenseFacts = LicenseFacts()
    file: str | None = None
    sha256: str | None = None
    components: str | None = None


@dataclass(frozen=True)
class GalleryImage:
    """One image of the gallery.

    Attributes:
        path: Path inside the repo, with forward slashes.
        prompt: Prompt without the trigger words in `in_front`.
        negative_prompt: Negative prompt; "" without one.
        seed: Seed of the initial noise; None if unknown.
        in_front: Trigger words that hublora put before the prompt.
    """

    path: str
    prompt: str
    negative_prompt: str = ""
    seed: int | None = None
    in_front: tuple[str, ...] = ()


@dataclass(frozen=True)
class SamplingFacts:
    """Sampling settings of the gallery, which the card's code uses too.

    Attributes:
        steps: Number of denoising steps.
        guidance: Classifier-free guidance scale.
        scheduler: Class name of the diffusers scheduler.
        width: Width in pixels.
        height: Height in pixels.
    """

    steps: int | None = None
    guidance: float | None = None
    scheduler: str | None = None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True)
class TrainingFacts:
    """Settings and results of a training.

    Attributes:
        steps: Optimizer steps.
        result_step: Step whose weights are the adapter's; None for the last one.
        images: Number of distinct images that were trained on.
        captions_from: Place of their captions, such as "column 'text'"; None where all have one.
        final_loss: Smoothed loss at the end.
        seconds: Duration in seconds, encoding included.
        images_per_second: Throughput after warm-up.
        peak_memory: Bytes of GPU memory, or of RAM without a GPU.
        settings: Setting -> value, in the order of the card's table.
        command: Command line that trains the adapter again; None: one that reads `config_path`.
        config_path: Path of the settings inside the repo.
        loss_plot: Path of the image inside the repo.
        unpublished: Dotted keys of settings whose values are not on the Hub, e.g. "data.folder".
    """

    steps: int | None = None
    result_step: int | None = None
    images: int | None = None
    captions_from: str | None = None
    final_loss: float | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    peak_memory: int | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    command: str | None = None
    config_path: str | None = "training/config.yaml"
    loss_plot: str | None = None
    unpublished: tuple[str, ...] = ()


@dataclass(frozen=True)
class TokenEmbeddingFacts:
    """Token embeddings that were learned, with an adapter or alone.

    Attributes:
        path: Path of the file inside the repo.
        lengths: Placeholder token -> number of its vectors, in the order of the file's rows.
        keys: Keys of the file, one for each text encoder; empty if the tokens are its keys.
        size: Bytes of the file if the repo has an adapter too; None without an adapter.
    """

    path: str
    lengths: Mapping[str, int]
    keys: tuple[str, ...] = ()
    size: int | None = None


@dataclass(frozen=True)
class CardFacts:
    """The facts on the card of an adapter.

    Attributes:
        title: Heading of the card.
        base: Base model that the adapter was trained on.
        generation_base: Base model that its images were generated with, and that its code loads;
            None where it is `base`.
        family_tags: Hub tags of the base's family.
        pipeline_class: Name of the diffusers pipeline class, e.g. "StableDiffusionPipeline".
        denoiser: Component that predicts, and its class, ("unet", "UNet2DConditionModel"); None if
            unknown.
        hublora_version: Version that wrote the card.
        repo_id: owner/name of the adapter's repo; None before it has one.
        dtype: Name of the torch dtype to load the base in, e.g. "float16".
        dataset: Dataset that the adapter was trained on.
        license: Licence of the adapter; None inherits the base's.
        trigger_words: Words that activate the concept in a prompt; empty without any.
        weight_name: File of the adapter; None where only token embeddings were learned.
        token_embeddings: Learned token embeddings; None without any.
        kohya_path: Path inside the repo of the adapter for ComfyUI and AUTOMATIC1111.
        one_file: Whether ComfyUI reads `weight_name` itself.
        references: Largest number of reference images that an image of the training had.
        prompt_first: Whether the prompt is the first parameter of the pipeline's call.
        call: Arguments of the pipeline's call for guidance and negative prompt; None takes those of
            `sampling` and of the first image.
        rank: Rank of the update matrices.
        alpha: Alpha; the updates are scaled by alpha / rank.
        components: Names of the adapted pipeline components, e.g. "unet".
        targets: Names of the adapted layers.
        size: Bytes of the adapter's file.
        gallery: Images that were generated with the adapter.
        before_after: Path inside the repo of a grid of images without and with the adapter.
        sampling: Sampling settings of the gallery.
        training: Settings and results of the training.
        environment: Versions and hardware, from `describe_environment`.
        description: Markdown that a person wrote about the adapter.
    """

    title: str
    base: RepoFacts
    family_tags: tuple[str, ...]
    pipeline_class: str
    hublora_version: str
    generation_base: RepoFacts | None = None
    denoiser: tuple[str, str] | None = None
    repo_id: str | None = None
    dtype: str | None = None
    dataset: RepoFacts = RepoFacts()
    license: LicenseFacts | None = None
    trigger_words: tuple[str, ...] = ()
    weight_name: str | None = WEIGHTS
    token_embeddings: TokenEmbeddingFacts | None = None
    kohya_path: str | None = None
    one_file: bool = False
    references: int = 0
    prompt_first: bool = True
    call: Mapping[str, Value] | None = None
    rank: int | None = None
    alpha: float | None = None
    components: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    size: int | None = None
    gallery: tuple[GalleryImage, ...] = ()
    before_after: str | None = None
    sampling: SamplingFacts = SamplingFacts()
    training: TrainingFacts = field(default_factory=TrainingFacts)
    environment: Mapping[str, Value] = field(default_factory=dict)
    description: str = ""

    @property
    def used_base(self) -> RepoFacts:
        """The base model that the adapter is used on."""
        return self.generation_base or self.base
