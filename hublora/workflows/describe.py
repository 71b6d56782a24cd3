"""Puts together what a training's card says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hublora._version import __version__
from hublora.cards.facts import CardFacts, License, Picture, Sampling, Training, Value
from hublora.cards.facts import Source as CardSource
from hublora.hub.layout import WEIGHTS
from hublora.workflows.bases import Base
from hublora.workflows.gallery import Drawn

if TYPE_CHECKING:
    from hublora.data import Source
    from hublora.training.session import Session

BEFORE_AFTER = "images/before-after.png"
LOSS_PLOT = "training/loss.png"
_DTYPES = {"no": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Run:
    """A finished training, as its card needs it.

    Attributes:
        session: What was trained.
        base: On which base.
        source: On which pictures.
        steps: Optimizer steps that were done now.
        seconds: How long they took.
        final_loss: Mean over the last tenth of the steps.
        gallery: Path inside the repo and picture.
        kohya_path: Path inside the repo of the adapter in kohya's layout.
    """

    session: Session
    base: Base
    source: Source
    steps: int
    seconds: float
    final_loss: float
    gallery: Sequence[tuple[str, Drawn]]
    kohya_path: str


def card_facts(run: Run, environment: Mapping[str, Value]) -> CardFacts:
    """Return everything that the card says."""
    session, base, source = run.session, run.base, run.source
    settings = session.config.adapter
    return CardFacts(
        title=title(session),
        base=CardSource(base.hub_id, base.commit, _license(base)),
        family_tags=base.family.card_tags,
        pipeline_class=type(session.pipe).__name__,
        hublora_version=__version__,
        repo_id=session.config.hub.model_id,
        dtype=dtype_name(session),
        dataset=CardSource(
            source.id if source.revision else None, source.revision, License(source.license)
        ),
        trigger_words=tuple(settings.trigger_words),
        weight_name=WEIGHTS,
        kohya_path=run.kohya_path,
        rank=settings.rank,
        alpha=alpha(session),
        components=tuple(session.trained),
        targets=tuple(settings.targets or base.family.default_targets[base.family.denoiser]),
        size=(session.config.run_folder / WEIGHTS).stat().st_size,
        gallery=tuple(
            Picture(path, one.plan.prompt, one.plan.negative_prompt, one.plan.seed)
            for path, one in run.gallery
        ),
        before_after=BEFORE_AFTER,
        sampling=_sampling(run.gallery),
        training=_training(run),
        environment=environment,
    )


def title(session: Session) -> str:
    """Return what the adapter is called: its repo's name, else its folder's."""
    config = session.config
    return config.hub.model_id.split("/")[-1] if config.hub.model_id else config.run_folder.name


def alpha(session: Session) -> float:
    """Return the alpha in effect."""
    settings = session.config.adapter
    return settings.alpha if settings.alpha is not None else settings.rank


def dtype_name(session: Session) -> str:
    """Return torch's name of the frozen weights' type."""
    return _DTYPES[session.accelerator.mixed_precision]


def _training(run: Run) -> Training:
    session = run.session
    whole = run.steps == session.step  # else an earlier process did a part, untimed
    return Training(
        steps=session.step,
        pictures=len(run.source.examples),
        final_loss=run.final_loss,
        seconds=run.seconds if whole else None,
        images_per_second=run.steps * session.images_per_step / run.seconds if whole else None,
        peak_memory=peak_memory(),
        settings=_settings_table(session),
        loss_plot=LOSS_PLOT,
    )


def _settings_table(session: Session) -> dict[str, object]:
    config = session.config
    return {
        "learning rate": config.optimizer.learning_rate,
        "schedule": config.schedule.name,
        "warm-up steps": config.schedule.warmup_steps,
        "optimizer": config.optimizer.name,
        "batch size": session.images_per_step,
        "gradient accumulation": config.gradient_accumulation_steps,
        "resolution": "×".join(str(side) for side in reversed(session.data.size)),
        "shapes": len(session.data.bucket_sizes) if config.data.aspect_buckets else None,
        "precision": dtype_name(session),
        "adapter": config.adapter.method if config.adapter.method != "lora" else None,
        "initialisation": config.adapter.init if config.adapter.init != "gaussian" else None,
        "averaged with decay": config.adapter.ema_decay,
        "held-out pictures": len(session.held_out) or None,
        "held-out loss": session.best_loss,
        "objective": session.diffusion.prediction,
        "min-SNR γ": config.objective.snr_gamma,
        "noise offset": config.objective.noise_offset or None,
        "caption dropout": config.data.caption_dropout or None,
        "random flip": config.data.random_flip,
        "gradient clipping": config.optimizer.max_grad_norm,
        "seed": config.seed,
    }


def _sampling(gallery: Sequence[tuple[str, Drawn]]) -> Sampling:
    plan = gallery[0][1].plan
    return Sampling(
        plan.num_inference_steps, plan.guidance_scale, plan.scheduler, plan.width, plan.height
    )


def _license(base: Base) -> License:
    text = {key: value for key, value in base.card.items() if isinstance(value, str)}
    return License(base.license, text.get("license_name"), text.get("license_link"))


def peak_memory() -> int:
    """Return the peak of the GPU's memory, or of this process's where there is no GPU, in bytes."""
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
