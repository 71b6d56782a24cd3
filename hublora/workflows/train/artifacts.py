"""Writes the results of a training into the run folder, in the layout of an adapter repo.

Over 300 lines because every file of the layout is written here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hublora._version import __version__
from hublora.adapter_weights import Weight
from hublora.adapters.adapter import Adapter, AdapterFacts
from hublora.adapters.convert import with_scale_in_weights
from hublora.adapters.embeddings import tokens_by_encoder, tokens_by_name
from hublora.adapters.files import save_tensors
from hublora.adapters.layouts import to_diffusers, to_kohya
from hublora.adapters.metadata import MODELSPEC_VERSION, metadata_of_facts
from hublora.cards.environment import describe_environment
from hublora.cards.plots import loss_plot
from hublora.filesystem import sha256_of, write_atomically
from hublora.generation.composition import Composition
from hublora.generation.generate import save
from hublora.generation.sample import image_difference
from hublora.hub.repo_layout import CARD, ENVIRONMENT, LEARNED_EMBEDDINGS, SETTINGS, WEIGHTS
from hublora.notebook import NotebookResult
from hublora.progress import Callback, FileWritten, Note
from hublora.refs import AdapterRef
from hublora.resolution.base import Base
from hublora.resolution.composition_parts import LoadedAdapter
from hublora.training.result_files import ResultFiles
from hublora.workflows.push import save_card
from hublora.workflows.train.card_facts import (
    BEFORE_AFTER,
    LOSS_PLOT,
    FinishedTraining,
    card_facts,
    dtype_name,
    main_file,
    result_step,
    shareable_assistant,
    title,
)
from hublora.workflows.train.gallery import (
    BEFORE,
    GeneratedImage,
    generate_images,
    generating_base,
    plan_gallery,
)
from hublora.workflows.train.gallery_files import (
    before_after_sheet,
    gallery_sheet,
    write_references,
)
from hublora.workflows.train.recipe import recorded_settings

if TYPE_CHECKING:
    from hublora.data import Source
    from hublora.hub.push import PushResult
    from hublora.training.metrics_log import MetricsLog
    from hublora.training.session import Session


@dataclass(frozen=True)
class TrainingStats:
    """Steps, duration and metrics of a training in this process.

    Attributes:
        history: Metrics of the run's steps.
        steps: Optimizer steps done by this process; before a resume, others did the rest.
        seconds: Wall time of `steps`.
    """

    history: MetricsLog
    steps: int
    seconds: float


@dataclass(frozen=True)
class TrainingResult(NotebookResult):
    """Result of a training.

    Attributes:
        folder: Run folder, with the files of the adapter repo.
        steps: Optimizer steps done by this process; before a resume, others did the rest.
        seconds: Wall time of `steps`, previews excluded.
        final_loss: Mean loss over the last tenth of the steps.
        result_step: Step whose weights are the result: the last one, or that of the lowest
            held-out loss.
        change: Mean difference in 8-bit levels, 0 to 255, between the images with and without the
            trained weights, of the prompt and seed where it is largest.
        pushed: Repo and commit on the Hub; None without a push.
    """

    folder: Path
    steps: int
    seconds: float
    final_loss: float
    result_step: int
    change: float
    pushed: PushResult | None = None

    @property
    def shown_image(self) -> Path | None:
        """Path of the image that a notebook shows."""
        return self.folder / BEFORE_AFTER


def write_results(
    session: Session,
    base: Base,
    source: Source,
    done: TrainingStats,
    callback: Callback,
) -> TrainingResult:
    """Write adapter, token embeddings, images, loss plot, settings and card to the run folder.

    Args:
        session: Session of the finished training.
        base: Base model of the run.
        source: Images and captions of the run.
        done: Steps, duration and metrics of the run.
        callback: Called with each event (`hublora.progress.Event`).
    """
    folder = session.config.run_folder
    files = ResultFiles(folder, lambda text: callback(Note(text, warning=True)))
    kohya = _write_adapter(files, session, base, source) if session.adapted else None
    embeddings = _write_embeddings(files, session, base, source) if session.tokens else None
    callback(FileWritten("adapter", folder / main_file(session)))
    gallery, change = _write_images(files, session, base, source, callback)
    environment = describe_environment(session.accelerator.device.type)
    write_atomically(folder / ENVIRONMENT, json.dumps(environment, indent=2) + "\n")
    settings = yaml.safe_dump(_reproducible(session), sort_keys=False)
    write_atomically(folder / SETTINGS, settings)
    rows = done.history.rows
    loss_plot(rows, folder / LOSS_PLOT, title=title(session), result_step=result_step(session))
    callback(FileWritten("loss plot", folder / LOSS_PLOT))
    losses = [row["loss"] for row in rows[-max(1, len(rows) // 10) :]]
    final_loss = sum(losses) / len(losses)
    paths = (one.relative_to(folder).as_posix() if one else None for one in (kohya, embeddings))
    run = FinishedTraining(
        session, base, source, done.steps, done.seconds, final_loss, gallery, *paths
    )
    save_card(folder, card_facts(run, environment))
    callback(FileWritten("card", folder / CARD))
    return TrainingResult(
        folder, done.steps, done.seconds, final_loss, result_step(session), change
    )


def _facts(session: Session, base: Base) -> AdapterFacts:
    generation = session.generation.base if session.generation else None
    return AdapterFacts(
        base_model=base.hub_id,
        base_revision=base.commit,
        base_sha256=base.sha256,
        base_components=base.published_components,
        generation_base=generation.hub_id if generation else None,
        generation_revision=generation.commit if generation else None,
        family=base.family.name,
        trigger_words=tuple(session.config.adapter.trigger_words),
        title=title(session),
    )


def _write_adapter(files: ResultFiles, session: Session, base: Base, source: Source) -> Path | None:
    """Write the adapter in diffusers' layout, and in kohya's where ComfyUI does not read that one;
    return the path of the latter."""
    adapter = session.adapter(_facts(session, base))
    if base.family.one_file:
        adapter = with_scale_in_weights(adapter)
    tensors, metadata = to_diffusers(adapter)
    metadata |= _metadata(session, base, source)
    folder = session.config.run_folder
    save_tensors(tensors, files.make_way(folder / WEIGHTS), metadata)
    files.add(folder / WEIGHTS)
    files.clear("comfyui")
    if base.family.one_file:
        return None
    kohya = files.make_way(folder / "comfyui" / f"{title(session)}.safetensors")
    flat = {key: value for key, value in metadata.items() if key != "lora_adapter_metadata"}
    usual = Counter((one.rank, one.alpha) for m in adapter.layers.values() for one in m.values())
    ((rank, alpha), _), *_ = usual.most_common(1)
    flat["ss_network_dim"], flat["ss_network_alpha"] = str(rank), str(alpha)
    flat["ss_network_module"] = "networks.lora"
    save_tensors(to_kohya(adapter, base.family.names.kohya_prefixes), kohya, flat)
    files.add(kohya)
    return kohya


def _write_embeddings(files: ResultFiles, session: Session, base: Base, source: Source) -> Path:
    """Write the token embeddings, beside the adapter or in its place; return the path of the file.

    Without an adapter, and for a base with one text encoder, it is the file that diffusers'
    `load_textual_inversion` reads.
    """
    tokens = session.learned_tokens()
    folder = session.config.run_folder
    files.clear("embeddings")
    name = f"embeddings/{title(session)}.safetensors" if session.adapted else LEARNED_EMBEDDINGS
    path = files.make_way(folder / name)
    metadata = _metadata(session, base, source)
    if session.adapted or len(tokens[0].vectors) > 1:
        tensors, names = tokens_by_encoder(tokens)
        metadata |= names
    else:
        tensors = tokens_by_name(tokens)
    save_tensors(tensors, path, metadata)
    files.add(path)
    return path


def _metadata(session: Session, base: Base, source: Source) -> dict[str, str]:
    """Return the safetensors metadata, without time and host, so that equal trainings are equal.

    Keys: https://github.com/Stability-AI/ModelSpec, and hublora's own.
    """
    found: dict[str, str | None] = {
        "modelspec.sai_model_spec": MODELSPEC_VERSION,
        "modelspec.architecture": _architecture(session, base),
        "modelspec.implementation": "diffusers",
        "modelspec.resolution": "x".join(str(side) for side in reversed(session.data.size)),
        "modelspec.prediction_type": session.parameterization.modelspec,
        "hublora.version": __version__,
        "hublora.dataset": source.id if source.revision else "",
        "hublora.dataset_revision": source.revision or "",
        "hublora.assistant": shareable_assistant(session.config),
        "hublora.steps": str(result_step(session)),
        "hublora.last_step": str(session.step),
        "hublora.seed": str(session.config.seed),
        "hublora.quantize": session.config.base.quantize,
    }
    return metadata_of_facts(replace(_facts(session, base), license=base.license), found)


def _architecture(session: Session, base: Base) -> str:
    """Return the modelspec architecture of the run's main file."""
    name = base.family.architecture(session.pipe)
    return name if session.adapted else f"{name.partition('/')[0]}/textual-inversion"


def _write_images(
    files: ResultFiles, session: Session, base: Base, source: Source, callback: Callback
) -> tuple[list[tuple[str, GeneratedImage]], float]:
    """Generate gallery and before/after sheet; return path inside the repo and image, in order, and
    the largest mean difference to the base alone."""
    base = generating_base(session, base)
    plans = plan_gallery(session.config, base, source, session.data.size)
    after = generate_images(session, plans, callback, "Generating the gallery")
    few = _one_per_prompt(after)
    before = generate_images(
        session, [one.planned for one in few], callback, "Generating with the base", adapter=False
    )
    folder = session.config.run_folder
    files.clear("images")
    repo_id = session.config.hub.model_id
    ref = AdapterRef("repo", repo_id) if repo_id else AdapterRef("local", title(session))
    trained = Adapter({}, AdapterFacts(sha256=sha256_of(folder / main_file(session))))
    composition = Composition(
        base,
        (LoadedAdapter(ref, ref, Weight.of(1.0), trained),),
        (),
        dtype_name(session),
        quantize=session.config.base.quantize,
    )
    gallery = []
    for index, one in enumerate(after):
        path = f"images/{index}.png"
        conditions = write_references(files, folder, one)
        place = files.make_way(folder / path)
        save(one.image, place, composition, one.plan, conditions=conditions)
        files.add(folder / path)
        gallery.append((path, one))
    validation = files.make_way(folder / "images" / "validation.png")
    gallery_sheet(after).save(validation)
    files.add(validation)
    learned = "adapter" if session.adapted else "word"
    before_after_sheet(before, few, learned).save(files.make_way(folder / BEFORE_AFTER))
    files.add(folder / BEFORE_AFTER)
    callback(FileWritten("validation sheet", validation))
    callback(FileWritten("before and after", folder / BEFORE_AFTER))
    pairs = zip(before, few, strict=True)
    return gallery, max(image_difference(one.image, other.image) for one, other in pairs)


def _one_per_prompt(images: Sequence[GeneratedImage], least: int = BEFORE) -> list[GeneratedImage]:
    """Return the first image of each prompt, and further ones up to a number of `least`."""
    first = list({one.plan.prompt: one for one in reversed(images)}.values())[::-1]
    rest = [one for one in images if one not in first]
    return first + rest[: max(0, least - len(first))]


def _reproducible(session: Session) -> dict[str, Any]:
    """Return the settings that reproduce the training without a push, as nested sections."""
    tree = recorded_settings(session)
    tree["hub"] = {"push": False, "model_id": None, "private": False}
    tree["checkpoint"]["to_hub"] = False
    return tree
