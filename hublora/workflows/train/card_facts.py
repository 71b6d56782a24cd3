"""Collects the facts of a training for its card.

Over 300 lines because every row of the card is collected here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

from hublora._version import __version__
from hublora.adapters.embeddings import KEYS
from hublora.cards.facts import (
    CardFacts,
    GalleryImage,
    LicenseFacts,
    RepoFacts,
    SamplingFacts,
    TokenEmbeddingFacts,
    TrainingFacts,
    Value,
)
from hublora.hub.repo_layout import LEARNED_EMBEDDINGS, WEIGHTS
from hublora.resolution.base import Base
from hublora.training.config.training_config import flatten
from hublora.workflows.train.gallery import GeneratedImage
from hublora.workflows.train.recipe import unpublished

if TYPE_CHECKING:
    from hublora.data import Source
    from hublora.training.config.training_config import TrainingConfig
    from hublora.training.session import Session

BEFORE_AFTER = "images/before-after.png"
LOSS_PLOT = "training/loss.png"
# Arguments of a call that are not stated with prompts and guidance, or not public.
_STATED_SEPARATELY = ("image", "width", "height", "_auto_resize")
_DTYPES = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class FinishedTraining:
    """A finished training, as the input of `card_facts`.

    Attributes:
        session: Finished training session.
        base: Base model of the run.
        source: Images and captions of the run.
        steps: Optimizer steps done by this process.
        seconds: Wall time of `steps`.
        final_loss: Mean loss over the last tenth of the steps.
        gallery: Path inside the repo and image, in order.
        kohya_path: Path inside the repo of the adapter in kohya's layout; None without adapter.
        embeddings_path: Path inside the repo of the token embeddings; None without any.
    """

    session: Session
    base: Base
    source: Source
    steps: int
    seconds: float
    final_loss: float
    gallery: Sequence[tuple[str, GeneratedImage]]
    kohya_path: str | None
    embeddings_path: str | None = None


def card_facts(run: FinishedTraining, environment: Mapping[str, Value]) -> CardFacts:
    """Return the facts of the card.

    Args:
        run: Finished training, its files written.
        environment: Versions and hardware by name (`describe_environment`).
    """
    session, base, source = run.session, run.base, run.source
    settings = session.config.adapter
    return CardFacts(
        title=title(session),
        base=_base_facts(base),
        generation_base=_generation_base(session),
        denoiser=_denoiser(session),
        family_tags=base.family.card_tags,
        pipeline_class=type(_generating_pipe(session)).__name__,
        hublora_version=__version__,
        repo_id=session.config.hub.model_id,
        dtype=dtype_name(session),
        dataset=RepoFacts(
            source.id if source.revision else None, source.revision, LicenseFacts(source.license)
        ),
        trigger_words=tuple(settings.trigger_words),
        weight_name=WEIGHTS if session.adapted else None,
        token_embeddings=_token_embeddings(run),
        kohya_path=run.kohya_path,
        one_file=base.family.one_file,
        references=max((len(one.references) for one in source.examples), default=0),
        prompt_first=_prompt_first(session),
        call=_call(run),
        rank=settings.rank if session.adapted else None,
        alpha=settings.alpha,
        components=tuple(session.adapted),
        targets=_targets(session),
        size=(session.config.run_folder / main_file(session)).stat().st_size,
        gallery=tuple(
            GalleryImage(path, one.plan.prompt, one.plan.negative_prompt, one.plan.seed)
            for path, one in run.gallery
        ),
        before_after=BEFORE_AFTER,
        sampling=_sampling(run.gallery),
        training=_training(run),
        environment=environment,
    )


def _call(run: FinishedTraining) -> dict[str, Value]:
    """Return the arguments of the pipeline's call for guidance and negative prompt."""
    plan = run.gallery[0][1].plan
    call = run.base.family.call_arguments(
        _generating_pipe(run.session), plan.prompt, plan.negative_prompt, plan.guidance_scale
    )
    one = run.gallery[0][1]
    sizes = run.base.family.image_arguments(
        _generating_pipe(run.session), one.references, plan.width, plan.height
    )
    more = {name: value for name, value in sizes.items() if name not in _STATED_SEPARATELY}
    return {name: value for name, value in {**call, **more}.items() if name != "prompt"}


def _prompt_first(session: Session) -> bool:
    call = signature(_generating_pipe(session).__call__)
    return next(iter(call.parameters)) == "prompt"


def _generating_pipe(session: Session) -> Any:
    return session.pipe if session.generation is None else session.generation.pipe


def _generation_base(session: Session) -> RepoFacts | None:
    """Return the base that images are generated with; None where it is the one that is trained
    on."""
    if session.generation is None:
        return None
    return _base_facts(session.generation.base)


def _denoiser(session: Session) -> tuple[str, str]:
    name = session.family.denoiser
    return name, type(getattr(_generating_pipe(session), name)).__name__


def _base_facts(base: Base) -> RepoFacts:
    file = None
    if base.sha256 is not None:
        file = base.name.removeprefix(f"{base.repo_id}/")
    published = base.published_components
    return RepoFacts(base.repo_id, base.commit, _license(base), file, base.sha256, published)


def title(session: Session) -> str:
    """Return the title of the adapter: the name of its repo, else of its run folder."""
    config = session.config
    return config.hub.model_id.split("/")[-1] if config.hub.model_id else config.run_folder.name


def main_file(session: Session) -> str:
    """Return the name of the safetensors file at the root of the repo."""
    return WEIGHTS if session.adapted else LEARNED_EMBEDDINGS


def _targets(session: Session) -> tuple[str, ...]:
    family, settings = session.family, session.config.adapter
    if not session.adapted:
        return ()
    return tuple(settings.targets or family.default_targets[family.denoiser])


def _token_embeddings(run: FinishedTraining) -> TokenEmbeddingFacts | None:
    tokens = run.session.tokens
    if tokens is None or run.embeddings_path is None:
        return None
    adapted = run.session.adapted
    keys = () if not adapted and len(tokens.rows) == 1 else KEYS[: len(tokens.rows)]
    file = run.session.config.run_folder / run.embeddings_path
    size = file.stat().st_size if adapted else None
    return TokenEmbeddingFacts(run.embeddings_path, tokens.lengths, keys, size)


def result_step(session: Session) -> int:
    """Return the step whose weights are the result of a finished session."""
    return session.step if session.result_step is None else session.result_step


def dtype_name(session: Session) -> str:
    """Return the dtype of the frozen weights, e.g. "bfloat16"."""
    return _DTYPES[session.accelerator.mixed_precision]


def _training(run: FinishedTraining) -> TrainingFacts:
    session = run.session
    whole = run.steps == session.step  # else earlier steps were not timed
    return TrainingFacts(
        steps=session.step,
        result_step=result_step(session),
        images=len(run.source.examples) - session.held_out_images,
        captions_from=run.source.captions_from,
        final_loss=run.final_loss,
        seconds=run.seconds if whole else None,
        images_per_second=run.steps * session.images_per_step / run.seconds if whole else None,
        peak_memory=peak_memory(),
        settings=_settings_table(session),
        loss_plot=LOSS_PLOT,
        unpublished=unpublished(flatten(session.config.shareable())),
    )


def _settings_table(session: Session) -> dict[str, object]:
    """Return label -> value of the card's table; rows without a value are left out later.

    Settings without a label of their own have their key, where they differ from their default.
    """
    others = {
        key: value
        for key, value in session.config.differing().items()
        if key not in _ROWS and not key.startswith(_ELSEWHERE)
    }
    return {**_named_settings(session), **others}


# Settings that the card states in a row of their own or elsewhere, or that change no weight.
_ROWS = frozenset(
    (
        *("method", "preset", "train_batch_size", "gradient_accumulation_steps"),
        *("mixed_precision", "seed", "output_dir", "report_to"),
        *("data.dataset", "data.revision", "data.folder", "data.archive", "data.caption_column"),
        *("data.cache_dir", "data.num_workers", "data.seed", "data.resolution"),
        *("data.aspect_buckets", "data.masks", "data.caption_dropout", "data.random_flip"),
        *("data.shuffle_tags", "data.tag_dropout"),
        *("adapter.rank", "adapter.alpha", "adapter.targets", "adapter.trigger_words"),
        *("adapter.method", "adapter.init", "adapter.ema_decay", "adapter.assistant"),
        *("optimizer.name", "optimizer.learning_rate", "optimizer.max_grad_norm"),
        *("optimizer.weight_decay", "optimizer.text_encoder_weight_decay"),
        *("schedule.name", "schedule.warmup_steps", "schedule.max_train_steps"),
        *("objective.snr_gamma", "objective.noise_offset", "objective.outside_mask"),
        *("objective.preserve", "objective.preserve_class"),
        *("tokens.placeholders", "tokens.num_vectors", "tokens.learning_rate"),
        *("holdout.images", "dreambooth.class_folder"),
    )
)
_ELSEWHERE = ("base.", "hub.", "checkpoint.", "validation.")


def _named_settings(session: Session) -> dict[str, object]:
    config, tokens = session.config, session.tokens
    losses = dict(session.measures)
    return {
        "method": config.method,
        "preset": config.preset,
        "class images": _class_images(session),
        "preserved": _preserved(session),
        "learned words": ", ".join(tokens.lengths) if tokens else None,
        "vectors a word": config.tokens.num_vectors if tokens else None,
        "learning rate": config.optimizer.learning_rate,
        "learning rate of the words": config.token_embedding_lr if tokens else None,
        "schedule": config.schedule.name,
        "warm-up steps": config.schedule.warmup_steps,
        "optimizer": config.optimizer.name,
        "weight decay": config.optimizer.weight_decay,
        "weight decay of the text encoders": config.optimizer.text_encoder_weight_decay
        if config.optimizer.text_encoder_weight_decay != config.optimizer.weight_decay
        else None,
        "batch size": session.images_per_step,
        "gradient accumulation": config.gradient_accumulation_steps,
        "resolution": ", ".join(f"{width}×{height}" for height, width in session.data.sizes),
        "aspect buckets": len(session.data.bucket_sizes) if config.data.aspect_buckets else None,
        "masks": config.data.masks,
        "weight outside masks": config.objective.outside_mask or None,
        "precision": dtype_name(session),
        "assistant while training": shareable_assistant(config),
        "quantised base": config.base.quantize,
        "adapter": config.adapter.method if config.adapter.method != "lora" else None,
        "initialisation": config.adapter.init if config.adapter.init != "gaussian" else None,
        "averaged with decay": config.adapter.ema_decay,
        "held-out images": session.held_out_images or None,
        "held-out loss": losses.get(result_step(session)),
        "held-out loss of the last step": losses.get(session.step)
        if result_step(session) != session.step
        else None,
        "objective": session.parameterization.name,
        **_levels_table(session),
        "min-SNR γ": config.objective.snr_gamma,
        "noise offset": config.objective.noise_offset or None,
        "caption dropout": config.data.caption_dropout or None,
        "random flip": config.data.random_flip,
        "shuffled tags": config.data.shuffle_tags,
        "tag dropout": config.data.tag_dropout or None,
        "gradient clipping": config.optimizer.max_grad_norm,
        "seed": config.seed,
    }


def _class_images(session: Session) -> int | None:
    """Return the number of class images; None without prior preservation."""
    items = next((one.images for one in session.streams[1:] if not one.preserves), ())
    return len({session.data.image_of[index] for index in items}) or None


def _preserved(session: Session) -> str | None:
    """Return what the base's own predictions are preserved for; None without
    `objective.preserve`."""
    objective = session.config.objective
    if not objective.preserve:
        return None
    words = session.config.adapter.trigger_words
    instead = objective.preserve_class
    if not words:
        return f"the base's predictions for {instead!r}"
    named = ", ".join(map(repr, words))
    how = f"with {instead!r} for {named}" if instead else f"without {named}"
    return f"the base's predictions for the captions {how}"


def shareable_assistant(config: TrainingConfig) -> str | None:
    """Return the ref of the adapter that acted while this one was trained, without a path of this
    machine; None without one."""
    named = config.shareable()["adapter"]["assistant"]
    return None if named is None else str(named)


def _levels_table(session: Session) -> dict[str, object]:
    """Return label -> value of how the noise levels of flow matching were chosen."""
    if not session.family.flow_matching:
        return {}
    objective = session.config.objective
    density: str = objective.density
    if density == "logit_normal":
        density = f"{density} ({objective.logit_mean:g}, {objective.logit_std:g})"
    return {
        "density of noise levels": density,
        "shift of noise levels": objective.shift if objective.shift != 1 else None,
        "guidance in training": objective.guidance if objective.guidance != 1 else None,
    }


def _sampling(gallery: Sequence[tuple[str, GeneratedImage]]) -> SamplingFacts:
    plan = gallery[0][1].plan
    return SamplingFacts(
        plan.num_inference_steps, plan.guidance_scale, plan.scheduler, plan.width, plan.height
    )


def _license(base: Base) -> LicenseFacts:
    text = {key: value for key, value in base.card.items() if isinstance(value, str)}
    return LicenseFacts(base.license, text.get("license_name"), text.get("license_link"))


def peak_memory() -> int:
    """Return the peak memory in bytes, of the GPU, or of this process without a GPU."""
    import sys

    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
