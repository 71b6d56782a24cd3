"""Settings with nothing left open: names, folders and commits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hublora.errors import ConfigError
from hublora.hub.client import whoami
from hublora.hub.resolve import resolve_adapter
from hublora.refs import AdapterRef, check_repo_id, is_repo
from hublora.resolution.base import Base, check_base_name
from hublora.training.run_folder import is_unused

if TYPE_CHECKING:
    from hublora.data import Source
    from hublora.training.config.training_config import TrainingConfig


def check_names(config: TrainingConfig) -> None:
    """Refuse names that can be seen to be wrong, before anything is loaded.

    Raises:
        ConfigError: A name is empty.
        RefError: It has not the form owner/name.
        DataError: A folder or archive of images is not there.
    """
    from hublora.data.source import check_there

    check_base_name(config.base.model)
    if config.data.dataset == "":
        raise ConfigError("No dataset is named.", "Name one: --dataset owner/name, or --folder.")
    check_there(config.data)
    name = config.hub.model_id
    if name is not None:  # a name alone is one's own namespace's
        check_repo_id(name if "/" in name else f"me/{name}", "--hub-model-id")


def resolve_destination(config: TrainingConfig, resume: str | None) -> TrainingConfig:
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


def pin_revisions(config: TrainingConfig, base: Base, source: Source) -> TrainingConfig:
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
    """Return a new folder below ./runs, or the newest one when going on with what is there.

    A folder in which no training has come to its first step is as good as a new one.
    """
    first = candidate = Path("runs") / name
    taken: list[Path] = []
    free: list[Path] = []
    while candidate.exists():
        (free if is_unused(candidate) else taken).append(candidate)
        candidate = first.with_name(f"{first.name}-{len(taken) + len(free) + 1}")
    if resume is not None and not is_repo(resume) and taken:
        return taken[-1]
    return [*free, candidate][0]
