"""Train: dataset ref ─ data ─▶ training ─▶ adapter ─▶ card ─▶ (push) ─▶ user/name@commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hublora.cards.format import format_count
from hublora.errors import ConfigError
from hublora.filesystem import locked
from hublora.progress import Callback, Note, no_callback, report_on_stderr
from hublora.quoting import shell_word
from hublora.resolution.base import Base
from hublora.training.run_folder import keep_from_uploads
from hublora.workflows.push import push
from hublora.workflows.train.artifacts import TrainingResult, TrainingStats, write_results
from hublora.workflows.train.class_images import open_class_images
from hublora.workflows.train.gallery import plan_gallery
from hublora.workflows.train.gallery_prompts import (
    EmbeddedText,
    embed_prompts,
    release_text_encoders,
)
from hublora.workflows.train.generation_base import GenerationPipeline, load_generation_pipeline
from hublora.workflows.train.hub_checkpoint import background_upload, delete_hub_checkpoint
from hublora.workflows.train.other_adapters import attach_assistant, initial_updates
from hublora.workflows.train.prepare import (
    PreparedRun,
    encode,
    prepare_run,
)
from hublora.workflows.train.run_loop import open_history, result_note, train_to_end
from hublora.workflows.train.run_settings import write_run_settings
from hublora.workflows.train.signals import (
    ClosableCallback,
    before_the_steps,
    ends_stop,
    interrupted,
)

SEEN = 0.1  # mean difference in 8-bit levels from which two images can look different

if TYPE_CHECKING:
    from hublora.families import Conditioning
    from hublora.training.config.training_config import TrainingConfig
    from hublora.training.metrics_log import MetricsLog
    from hublora.training.session import Session


def train(
    config: TrainingConfig, *, resume: str | None = None, callback: Callback | None = None
) -> TrainingResult:
    """Train an adapter and write its repo folder; push and verify it if the config says so.

    Progress is printed to stderr, a line about every 15 seconds: encoding, then step, loss and
    learning rate. For another report give a `callback`: a function that is called with each
    `Note`, `Progress`, `StepProgress` and `FileWritten` of `hublora.progress`; that module's
    `no_callback` is silent.

        hublora.train(config, callback=print)

    Args:
        config: Settings of the training.
        resume: "latest", a checkpoint folder, or a repo with an uploaded checkpoint, to resume
            from; None starts a new training.
        callback: Called with each event (`hublora.progress.Event`); prints to stderr by default.

    Raises:
        HubloraError: The training cannot start; raised before any long work.
        Interrupted: Ctrl-C, SIGTERM, SIGHUP or a closed stderr; a checkpoint was saved, unless it
            was before the first step.
    """
    from hublora.training.distributed import join_processes, on_main

    callback = ClosableCallback(callback or report_on_stderr())
    if not join_processes().is_main_process:
        callback = ClosableCallback(no_callback)
    with ends_stop(), ExitStack() as until_done:
        with before_the_steps():
            ready = prepare_run(config, resume, callback)
            on_main(lambda: _claim(ready.config.run_folder, until_done))
            on_main(lambda: _keep_inputs(ready))
            session, history = _start_session(ready, callback)
        return _train(ready, session, history, callback)


def _claim(folder: Path, until: ExitStack) -> None:
    if not until.enter_context(locked(folder)):
        raise ConfigError(
            f"Another training is writing to {folder}.",
            "Let it end, or use another folder: --output-dir …",
        )
    keep_from_uploads(folder)


def _keep_inputs(ready: PreparedRun) -> None:
    """Write settings and images into the run folder, for who resumes the training."""
    from hublora.training.run_images import write_run_images

    write_run_settings(ready.config)
    write_run_images(ready.config.run_folder, ready.inputs.each)


def _start_session(ready: PreparedRun, callback: Callback) -> tuple[Session, MetricsLog]:
    """Encode the images; return the session before its first step, and its metrics log."""
    from hublora.data import join
    from hublora.training.checkpoint import load_checkpoint
    from hublora.training.distributed import main_first
    from hublora.training.setup import start_session
    from hublora.training.target_layers import encodes_prompts

    config, base, source = ready.config, ready.base, ready.source
    device = ready.accelerator.device
    of_class = main_first(
        lambda: open_class_images(config, base, ready.pipe, ready.accelerator, callback)
    )
    trained_on = join(source, of_class) if of_class else source
    data = main_first(lambda: encode(config, base, ready.pipe, trained_on, device, callback))
    initial = main_first(lambda: initial_updates(config, base, ready.pipe, callback))
    generation = _load_generation_pipeline(ready)
    embedded: Mapping[EmbeddedText, Conditioning] = {}
    if not encodes_prompts(config):
        plans = plan_gallery(config, generation.base if generation else base, source, data.size)
        generating = generation.pipe if generation else ready.pipe
        embedded = embed_prompts(base.family, generating, plans, device)
        for pipe in (ready.pipe, generating):
            release_text_encoders(base.family, pipe)
    session = start_session(
        config,
        ready.pipe,
        data,
        ready.inputs,
        ready.accelerator,
        initial,
        class_images=len(trained_on.examples) - len(source.examples),
    )
    main_first(lambda: attach_assistant(session, base, callback))
    session.embedded_prompts, session.generation = embedded, generation
    if ready.checkpoint is not None:
        load_checkpoint(session, ready.checkpoint)
        callback(Note(f"Resuming from {ready.checkpoint}."))
    history = main_first(lambda: open_history(session))
    callback(Note(_summary(session)))
    return session, history


def _load_generation_pipeline(ready: PreparedRun) -> GenerationPipeline | None:
    """Return the pipeline that images are generated with, on the CPU; None where it is that of the
    base, and in processes that generate no images."""
    from hublora.training.accelerator import weight_dtype

    if ready.generation is None or not ready.accelerator.is_main_process:
        return None
    dtype = weight_dtype(ready.accelerator)
    return load_generation_pipeline(ready.generation, ready.pipe, dtype, ready.config.base)


def _train(
    ready: PreparedRun, session: Session, history: MetricsLog, callback: ClosableCallback
) -> TrainingResult:
    """Train, write the results, and push them if the settings say so."""
    from hublora.training.distributed import on_main

    config, base, source = ready.config, ready.base, ready.source
    first = session.step
    with background_upload(session, callback) as uploader:
        seconds = train_to_end(session, base, source, history, callback, uploader)
        session.finalize()
        if note := result_note(session):
            callback(note)
        done = TrainingStats(history, session.step - first, seconds)
        with _stoppable(session):
            result = on_main(lambda: write_results(session, base, source, done, callback))
    shown = ready.generation.base if ready.generation else base
    with _stoppable(session):
        result = on_main(lambda: _finish(result, config, shown, callback))
    if note := unchanged_note(result.change, config):
        callback(note)
    return result


@contextmanager
def _stoppable(session: Session) -> Iterator[None]:
    """Say how to resume if Ctrl-C comes after the last step."""
    try:
        yield
    except KeyboardInterrupt:
        folder = session.config.run_folder / f"checkpoint-{session.step}"
        raise interrupted(folder) from None


def _finish(
    result: TrainingResult, config: TrainingConfig, base: Base, callback: Callback
) -> TrainingResult:
    """Push and verify a result, if the settings say so.

    Args:
        result: The result.
        config: Settings of the training.
        base: Base that the gallery was generated with.
        callback: Called with each event (`hublora.progress.Event`).
    """
    if not config.hub.push:
        return result
    repo_id = str(config.hub.model_id)
    pushed = push(
        result.folder,
        repo_id,
        private=config.hub.private,
        base=str(base.folder) if base.hub_id is None else None,
        callback=callback,
    )
    if config.checkpoint.to_hub:
        delete_hub_checkpoint(repo_id, callback)
    return replace(result, pushed=pushed)


def unchanged_note(change: float, config: TrainingConfig) -> Note | None:
    """Return the warning that a training changed nothing that can be seen; None if it did.

    Args:
        change: `TrainingResult.change`.
        config: Settings of the training.
    """
    if change >= SEEN:
        return None
    words, prompts = config.adapter.trigger_words, config.validation.prompts
    unused = prompts and not any(word in prompt for word in words for prompt in prompts)
    remedy = (
        f"No validation prompt contains {', '.join(map(repr, words))}: put it into one, e.g. "
        f"--validation-prompt {shell_word(words[0])}."
        if words and unused
        else "Train for more steps, or with a higher --learning-rate."
    )
    return Note(
        "The training changed nothing that can be seen: images with and without the adapter differ "
        f"by {change:.2g} of 255 levels on average. {remedy}",
        warning=True,
    )


def _summary(session: Session) -> str:
    from hublora.training.accelerator import device_name

    count = sum(parameter.numel() for parameter in session.parameters)
    steps = format_count(session.total_steps - session.step, "step")
    images = format_count(session.images_per_step, "image")
    distinct = format_count(session.train_images, "image")
    held_out = session.held_out_images
    apart = f" ({held_out:,} held out)" if held_out else ""
    device = device_name(session.accelerator)
    return f"Training {count:,} weights on {distinct}{apart} for {steps} of {images} on {device}"
