"""Everything that a model card says, as one frozen value.

Facts are what is known: what is None or empty is left out of the card or said to be unknown, and
nothing here is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hublora.hub.repo_layout import WEIGHTS

Value = str | int | float | bool | None


@dataclass(frozen=True)
class LicenseFacts:
    """Under which terms something may be used, as cards on the Hub write it.

    Attributes:
        id: One of the Hub's ids (https://huggingface.co/docs/hub/repositories-licenses), "other",
            or None when it is unknown.
        name: Name of an "other" licence.
        link: Where the text of an "other" licence is.
    """

    id: str | None = None
    name: str | None = None
    link: str | None = None


@dataclass(frozen=True)
class RepoFacts:
    """A repo that the adapter was made from.

    Attributes:
        id: owner/name on the Hub; None for a folder that nobody else has.
        revision: The commit that was used.
        license: Its licence.
    """

    id: str | None = None
    revision: str | None = None
    license: LicenseFacts = LicenseFacts()


@dataclass(frozen=True)
class GalleryImage:
    """One image of the gallery.

    Attributes:
        path: Inside the repo, with forward slashes.
        prompt: What was asked for.
        negative_prompt: What was asked to stay away.
        seed: Of the noise it started from.
        in_front: Trigger words that hublora put before the prompt.
    """

    path: str
    prompt: str
    negative_prompt: str = ""
    seed: int | None = None
    in_front: tuple[str, ...] = ()


@dataclass(frozen=True)
class SamplingFacts:
    """How the gallery was drawn, and what a person may start from."""

    steps: int | None = None
    guidance: float | None = None
    scheduler: str | None = None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True)
class TrainingFacts:
    """What the training was and how it went.

    Attributes:
        steps: Optimizer steps.
        images: Distinct images it saw.
        final_loss: Smoothed loss at the end.
        seconds: How long it took, encoding included.
        images_per_second: Images per second, once warm.
        peak_memory: Bytes, of the GPU if there was one.
        settings: Name -> value, in the order of the table.
        command: Command line that makes the adapter again; None: from `config_path`.
        config_path: The settings as a file inside the repo.
        loss_plot: Path of the image inside the repo.
        unpublished: Settings that name something which is not on the Hub, under dotted keys.
    """

    steps: int | None = None
    images: int | None = None
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
    """New words that belong to an adapter, or are all that was learned.

    Attributes:
        path: Their file inside the repo.
        lengths: Word -> vectors that it stands for, in the order of the file's rows.
        keys: Keys of the file, one for each text encoder; empty if the words are its keys.
        size: Bytes of the file, where there is an adapter's besides.
    """

    path: str
    lengths: Mapping[str, int]
    keys: tuple[str, ...] = ()
    size: int | None = None


@dataclass(frozen=True)
class CardFacts:
    """What is known of an adapter and of how it was made.

    Attributes:
        title: A name for people.
        base: The base it was trained on.
        family_tags: Tags that the Hub groups adapters of its family by.
        pipeline_class: The diffusers pipeline that runs it, e.g. "StableDiffusionPipeline".
        hublora_version: Version that wrote the card.
        repo_id: owner/name of its repo; None before it has one.
        dtype: Torch type to load the base in, e.g. "float16".
        dataset: What it was trained on.
        license: Its own licence, where it is not the base's.
        trigger_words: Words that call the concept; empty when there are none.
        weight_name: The adapter's file; None where only words were learned.
        token_embeddings: Learned token embeddings; None without any.
        kohya_path: The same adapter for ComfyUI and AUTOMATIC1111.
        rank: Rank of the update matrices.
        alpha: Numerator of their scale.
        components: Parts of the pipeline that it changes.
        targets: Layers that it changes.
        size: Bytes of the adapter's file.
        gallery: Images that were drawn with it.
        before_after: Sheet of images without and with it, inside the repo.
        sampling: How the gallery was drawn.
        training: How it was made.
        environment: As `describe_environment` returns it.
        description: Markdown that a person wrote about it.
    """

    title: str
    base: RepoFacts
    family_tags: tuple[str, ...]
    pipeline_class: str
    hublora_version: str
    repo_id: str | None = None
    dtype: str | None = None
    dataset: RepoFacts = RepoFacts()
    license: LicenseFacts | None = None
    trigger_words: tuple[str, ...] = ()
    weight_name: str | None = WEIGHTS
    token_embeddings: TokenEmbeddingFacts | None = None
    kohya_path: str | None = None
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
