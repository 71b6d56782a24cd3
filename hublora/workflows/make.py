"""Make: dataset ref ─ data ─▶ training ─▶ adapter ─▶ card ─▶ (share) ─▶ user/name@commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.errors import ConfigError
from hublora.filesystem import claimed
from hublora.hub.client import whoami
from hublora.hub.push import check_can_push
from hublora.hub.resolve import resolve_adapter
from hublora.refs import AdapterRef, check_repo_id, is_repo
from hublora.workflows.bases import Base, check_base_name, find_base, open_base
from hublora.workflows.class_pictures import open_class_pictures
from hublora.workflows.keeping import check_unkept, drop_kept, keeping
from hublora.workflows.progress import Note, Observer, Stage, ignore
from hublora.workflows.results import Done, TrainingResult, write_results
from hublora.workflows.shapes import bucket_note, enlarged_note, settle_buckets, shapes
from hublora.workflows.share import push
from hublora.workflows.steps import find_checkpoint, interrupted, open_history, train_to_end

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hublora.adapters.adapter import LowRank
    from hublora.data import Source, TrainingData
    from hublora.training.config import TrainingConfig
    from hublora.training.session import Session


def train(
    config: TrainingConfig, *, resume: str | None = None, observer: Observer = ignore
) -> TrainingResult:
    """Train an adapter and write its repo folder; push and verify it if the config says so.

    Args:
        config: All settings.
        resume: "latest", a checkpoint folder, or a repo that keeps a checkpoint, to go on from;
            None starts anew.
        observer: Is told what happens.

    Raises:
        HubloraError: Whatever keeps it from starting, before any long work.
        Interrupted: A person stopped it; a checkpoint was saved.
    """
    check_names(config)
    from hublora.training.processes import join_processes, on_main

    if not join_processes().is_main_process:
        observer = ignore
    ready = prepare(config, resume, observer)
    with ExitStack() as until_done:
        on_main(lambda: _claim(ready.config.run_folder, until_done))
        return _train(ready, observer)


def check_names(config: TrainingConfig) -> None:
    """Refuse names that can be seen to be wrong, before anything is loaded.

    Raises:
        ConfigError: A name is empty.
        RefError: It has not the form owner/name.
    """
    check_base_name(config.base.model)
    if config.data.dataset == "":
        raise ConfigError("No dataset is named.", "Name one: --dataset owner/name, or --folder.")
    name = config.hub.model_id
    if name is not None:  # a name alone is one's own namespace's
        check_repo_id(name if "/" in name else f"me/{name}", "--hub-model-id")


def _claim(folder: Path, until: ExitStack) -> None:
    if not until.enter_context(claimed(folder)):
        raise ConfigError(
            f"Another training is writing to {folder}.",
            "Let it end, or take another folder: --output-dir …",
        )


def _train(ready: Ready, observer: Observer) -> TrainingResult:
    """Encode, train, write the results, and push them if the settings say so."""
    from hublora.data import join
    from hublora.training.checkpoint import load_checkpoint
    from hublora.training.processes import main_first, on_main
    from hublora.training.starting import start_session

    config, base, source = ready.config, ready.base, ready.source
    device = ready.accelerator.device
    of_class = main_first(
        lambda: open_class_pictures(config, base, ready.pipe, ready.accelerator, observer)
    )
    shown = join(source, of_class) if of_class else source
    data = main_first(lambda: encode(config, base, ready.pipe, shown, device, observer))
    begin = main_first(lambda: beginning(config, base, ready.pipe, observer))
    session = start_session(
        config,
        base.family,
        ready.pipe,
        data,
        source.fingerprint,
        ready.accelerator,
        begin,
        class_pictures=len(shown.examples) - len(source.examples),
    )
    if ready.checkpoint is not None:
        load_checkpoint(session, ready.checkpoint)
        observer(Note(f"Going on from {ready.checkpoint}."))
    history = main_first(lambda: open_history(session))
    observer(Note(_plan(session)))
    first = session.step
    with keeping(session, observer) as keeper:
        seconds = train_to_end(session, base, source, history, observer, keeper)
        session.settle()
        done = Done(history, session.step - first, seconds)
        with _stoppable(session):
            result = on_main(lambda: write_results(session, base, source, done, observer))
    with _stoppable(session):
        return on_main(lambda: _finish(result, config, base, observer))


@contextmanager
def _stoppable(session: Session) -> Iterator[None]:
    """Say how to go on if a person stops what comes after the last step."""
    try:
        yield
    except KeyboardInterrupt:
        folder = session.config.run_folder / f"checkpoint-{session.step}"
        raise interrupted(folder) from None


@dataclass(frozen=True)
class Ready:
    """A training of which everything is found and checked, and nothing is done.

    Attributes:
        config: The settings, nothing left open and everything pinned.
        checkpoint: To go on from; None starts anew.
        accelerator: Device, precision and processes.
        source: The pictures.
        base: The base.
        pipe: Its pipeline, on the CPU.
    """

    config: TrainingConfig
    checkpoint: Path | None
    accelerator: Accelerator
    source: Source
    base: Base
    pipe: Any


def prepare(config: TrainingConfig, resume: str | None, observer: Observer) -> Ready:
    """Find and check everything that a training needs.

    Raises:
        HubloraError: Whatever keeps it from starting.
    """
    import torch

    from hublora.training.checkpoint import check_checkpoint
    from hublora.training.devices import make_accelerator, weight_dtype
    from hublora.training.processes import main_first, on_main
    from hublora.training.starting import check_settings, split_pictures

    config = on_main(lambda: _settle(config, resume))
    if config.hub.push or config.checkpoint.to_hub:
        on_main(lambda: check_can_push(str(config.hub.model_id)))
    checkpoint = on_main(lambda: find_checkpoint(config, resume, observer))
    if config.checkpoint.to_hub and checkpoint is None:
        on_main(lambda: check_unkept(str(config.hub.model_id)))
    accelerator = make_accelerator(config)
    commit = on_main(lambda: find_base(config.base.model, config.base.revision))
    source = main_first(lambda: open_pictures(config, observer))
    split_pictures(config, len(source.examples))
    base = main_first(lambda: open_base(config.base.model, commit, observer))
    observer(Note(f"Base: {base.label}"))
    config = _pin(config, base, source)
    config = settle_buckets(config, checkpoint)
    if checkpoint is not None:
        check_checkpoint(checkpoint, config, source.fingerprint, accelerator)
    # The VAE is only needed for encoding, and half precision shows in the latents of some bases.
    dtype = weight_dtype(accelerator)
    pipe = base.load({"default": dtype, base.family.vae: torch.float32})
    check_settings(config, base.family, pipe)
    shapes(config, base, pipe)
    return Ready(config, checkpoint, accelerator, source, base, pipe)


def _finish(
    result: TrainingResult, config: TrainingConfig, base: Base, observer: Observer
) -> TrainingResult:
    """Push and verify a result, if the settings say so."""
    if not config.hub.push:
        return result
    repo_id = str(config.hub.model_id)
    pushed = push(
        result.folder,
        repo_id,
        private=config.hub.private,
        base=str(base.folder) if base.hub_id is None else None,
        observer=observer,
    )
    if config.checkpoint.to_hub:
        drop_kept(repo_id, observer)
    return replace(result, pushed=pushed)


def open_pictures(config: TrainingConfig, observer: Observer = ignore) -> Source:
    """Return the pictures that the settings name, under the captions of their method.

    Raises:
        DataError: They cannot be used.
    """
    from hublora.data import open_source
    from hublora.training.methods import method_of

    method = method_of(config)
    source = open_source(
        method.data(config),
        lambda done, total: observer(Stage("Looking at pictures", done, total)),
    )
    source = method.show(config, source)
    _tell_source(source, observer)
    return source


def encode(
    config: TrainingConfig,
    base: Base,
    pipe: Any,
    source: Source,
    device: Any,
    observer: Observer = ignore,
) -> TrainingData:
    """Return the pictures' latents and the captions' embeddings, from the cache if they are there.

    Afterwards the encoders are off the device and the VAE has the precision of the others.
    """
    import torch

    from hublora.data import build_cache
    from hublora.data.captions import count_truncated, truncation_note
    from hublora.training.targets import encodes_prompts

    family = base.family
    size, bucket_step = shapes(config, base, pipe)
    captions = [caption for example in source.examples for caption in example.captions]
    longest = family.max_tokens(pipe)
    cut = count_truncated(captions, lambda texts: family.count_tokens(pipe, texts), longest)
    if note := truncation_note(cut, len(captions), longest):
        observer(Note(note + ".", warning=True))

    vae = getattr(pipe, family.vae)
    text_encoders = [getattr(pipe, name) for name in family.text_encoders]
    dtype = text_encoders[0].dtype

    def encode_images(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        vae.to(device)
        with torch.no_grad():
            mean, std = family.encode_images(pipe, pixels)
        return mean.cpu(), std.cpu()

    def encode_prompts(prompts: list[str]) -> dict[str, torch.Tensor]:
        for encoder in text_encoders:
            encoder.to(device)
        with torch.no_grad():
            encoded = family.encode_prompts(pipe, prompts)
        return {name: tensor.cpu() for name, tensor in encoded.items()}

    data = build_cache(
        source,
        config.data,
        size=size,
        bucket_step=bucket_step,
        inpaints=family.inpaints(pipe),
        key_parts={"base": base.name, "commit": base.commit, "family": family.name},
        prompt_key={"dtype": str(dtype), "tokens": longest},
        encode_images=encode_images,
        encode_prompts=None if encodes_prompts(config) else encode_prompts,
        batch_size=4 if device.type == "cuda" else 1,
        progress=lambda done, total: observer(Stage("Encoding", done, total)),
    )
    for encoder in (vae, *text_encoders):
        encoder.to("cpu")
    vae.to(dtype)
    if data.reused:
        observer(Note("Latents and prompts are reused from the cache."))
    if bucket_step is not None:
        observer(Note(bucket_note(data)))
    if note := enlarged_note(data, [example.size for example in source.examples]):
        observer(Note(note, warning=True))
    return data


def beginning(
    config: TrainingConfig, base: Base, pipe: Any, observer: Observer = ignore
) -> Mapping[str, Mapping[str, LowRank]] | None:
    """Return the updates of the adapter to start from under the base's own names, None without."""
    if config.adapter.start_from is None:
        return None
    from hublora.generation.compose import fit_to_base
    from hublora.workflows.adapters import open_adapter

    ref = AdapterRef.parse(config.adapter.start_from)
    adapter = open_adapter(ref, observer)
    label = adapter.facts.source or config.adapter.start_from
    fitted = fit_to_base(pipe, adapter, label, base.name)
    return {
        component: {name: replace(one, up=one.up * ref.weight) for name, one in layers.items()}
        for component, layers in fitted.items()
    }


def _settle(config: TrainingConfig, resume: str | None) -> TrainingConfig:
    """Return the settings with nothing left open: the repo's id, the run's folder, the seeds, the
    trigger words."""
    from hublora.training.methods import method_of

    hub = config.hub
    if (hub.push or config.checkpoint.to_hub) and "/" not in (hub.model_id or ""):
        # Only a name means one's own namespace, as in the diffusers scripts.
        name = config.output_dir.name if config.output_dir else _run_name(config)
        name = hub.model_id or name
        hub = hub.model_copy(update={"model_id": f"{whoami()['name']}/{name}"})
    folder = config.output_dir or default_folder(_run_name(config), resume)
    data = config.data
    if "seed" not in data.model_fields_set:
        data = data.model_copy(update={"seed": config.seed})
    words = config.adapter.trigger_words or method_of(config).trigger_words(config)
    adapter = config.adapter.model_copy(update={"trigger_words": words})
    return config.model_copy(
        update={"hub": hub, "output_dir": folder, "data": data, "adapter": adapter}
    )


def _pin(config: TrainingConfig, base: Base, source: Source) -> TrainingConfig:
    """Return the settings with the commits that are used, so that a resumed run uses the same."""
    return config.model_copy(
        update={
            "base": config.base.model_copy(update={"revision": base.commit}),
            "data": config.data.model_copy(update={"revision": source.revision}),
            "adapter": config.adapter.model_copy(
                update={"start_from": _pinned(config.adapter.start_from)}
            ),
        }
    )


def _pinned(ref: str | None) -> str | None:
    """Return an adapter's ref at its commit; a file or a URL stays as it is."""
    parsed = AdapterRef.parse(ref) if ref is not None else None
    return str(resolve_adapter(parsed).ref) if parsed and parsed.kind == "repo" else ref


def _run_name(config: TrainingConfig) -> str:
    if config.hub.model_id:
        return config.hub.model_id.split("/")[-1]
    data = config.data
    archive = Path((data.archive or "").partition("?")[0]).stem
    return Path(data.dataset or data.folder or archive or "adapter").name + "-lora"


def default_folder(name: str, resume: str | None) -> Path:
    """Return a new folder below ./runs, or the newest one when going on with what is there."""
    first = Path("runs") / name
    taken = [first] if first.exists() else []
    number = 2
    while (candidate := first.with_name(f"{first.name}-{number}")).exists():
        taken.append(candidate)
        number += 1
    if resume is not None and not is_repo(resume) and taken:
        return taken[-1]
    return candidate if taken else first


def _tell_source(source: Source, observer: Observer) -> None:
    at = f"@{source.revision[:8]}" if source.revision else ""
    observer(Note(f"Data: {source.id}{at}, {len(source.examples)} pictures"))
    for said in source.notes:
        observer(Note(said))
    if note := source.skipped_note():
        observer(Note(note, warning=True))


def _plan(session: Session) -> str:
    from hublora.training.devices import device_name

    count = sum(parameter.numel() for parameter in session.parameters)
    return (
        f"Training {count:,} weights for {session.total_steps - session.step} steps of "
        f"{session.images_per_step} pictures on {device_name(session.accelerator)}"
    )
