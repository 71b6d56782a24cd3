"""Writes and loads checkpoints, atomically; a training resumes from one with the same bytes.

    checkpoint-N/
      pytorch_lora_weights.safetensors   the adapter; `hublora run` loads it
      embeddings/tokens.safetensors      the token embeddings, if any are trained
      optimizer.safetensors              the trained weights themselves, their moving average and
                                         the tensors of the optimizer's state
      state.json                         written last: step, schedule, settings, and the SHA-256 of
                                         the others and of itself

Safetensors and JSON only: loading a checkpoint runs no code. Random numbers need no state
(`hublora.training.rng`), except for dropout inside the adapter, whose generator states are saved.

Over 300 lines because writing, checking and loading mirror each other.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file

from hublora.adapters.adapter import AdapterFacts
from hublora.adapters.embeddings import tokens_by_encoder
from hublora.adapters.files import save_tensors
from hublora.adapters.layouts import to_diffusers
from hublora.adapters.metadata import metadata_of_facts
from hublora.errors import ConfigError
from hublora.filesystem import sha256_of, sync_folder, write_atomically
from hublora.hub.repo_layout import WEIGHTS
from hublora.training.config.training_config import TrainingConfig, flatten
from hublora.training.failures import Diverged
from hublora.training.run_folder import CHECKPOINT, STATE, list_checkpoints
from hublora.training.run_images import changed_images
from hublora.training.session import InputHashes, Session

EMBEDDINGS = "embeddings/tokens.safetensors"
OPTIMIZER = "optimizer.safetensors"
_BEST_LOSSES, _LAST_LOSSES = "held_out.best", "held_out.last"

# Settings that may change when a training is resumed.
_FREE = (
    "output_dir",
    "report_to",
    "hub",
    "validation",
    "checkpoint",
    "base.generation",
    "base.generation_revision",
    "gradient_checkpointing",
    "data.num_workers",
    "data.cache_dir",
    "data.folder",
    "data.archive",
    "dreambooth.class_folder",
)

# Settings of how long a training is.
_LENGTH = frozenset({"schedule.max_train_steps", "schedule.num_train_epochs"})
_BASE_FILES = "base files"  # setting with the hash of a local base
_IMAGES = "images"  # setting with the hash of the images and captions

# Exceptions while loading a state that this module did not write.
_UNFIT = (
    *(AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError),
    SafetensorError,
)


def save_checkpoint(session: Session) -> Path:
    """Write `checkpoint-<step>` into the run folder; remove the oldest beyond the limit.

    Returns:
        The checkpoint's folder, synced to disk.

    Raises:
        Diverged: The weights are not finite; nothing is written.
    """
    if not all(parameter.isfinite().all() for parameter in session.parameters):
        raise Diverged(session.step, "weights")
    run = session.config.run_folder
    run.mkdir(parents=True, exist_ok=True)
    final = run / f"{CHECKPOINT}{session.step}"
    for rest in run.glob(f".{CHECKPOINT}*"):  # left by a process that was killed
        shutil.rmtree(rest, ignore_errors=True)
    temporary = _hidden(final)
    try:
        _write(session, temporary)
        temporary.chmod(0o755)
        make_way(final)
        os.rename(temporary, final)
        sync_folder(run)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    limit = session.config.checkpoint.total_limit
    if limit is not None:
        for old in list_checkpoints(run)[:-limit]:
            make_way(old)
    return final


def _hidden(folder: Path) -> Path:
    """Create an empty hidden folder beside `folder` and return it."""
    return Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))


def make_way(folder: Path) -> None:
    """Delete a checkpoint; a folder with anything that is not of one is renamed to a name with
    " (1)", " (2)", … instead.

    It is renamed first in any case, so that its name never stands for a part of a checkpoint.
    """
    if not os.path.lexists(folder):
        return
    if _is_own(folder):
        hidden = _hidden(folder)
        os.rename(folder, hidden / folder.name)
        shutil.rmtree(hidden)
        return
    names = (folder.with_name(f"{folder.name} ({number})") for number in itertools.count(1))
    os.rename(folder, next(name for name in names if not os.path.lexists(name)))


def _is_own(folder: Path) -> bool:
    """Tell whether a folder is a checkpoint, or a part of one, and nothing else."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    files = {one.relative_to(folder).as_posix() for one in folder.rglob("*") if not one.is_dir()}
    return files <= {STATE, OPTIMIZER, WEIGHTS, EMBEDDINGS}


def check_checkpoint(
    folder: Path,
    config: TrainingConfig,
    inputs: InputHashes,
    accelerator: Accelerator,
    label: str = "",
) -> None:
    """Check that a training with these settings can resume from a checkpoint.

    Args:
        folder: Folder of the checkpoint.
        config: Settings of the training.
        inputs: Hashes of base, images and captions.
        accelerator: Device, precision and processes.
        label: Name of the checkpoint in messages (default: its folder).

    Raises:
        ConfigError: The checkpoint is damaged, or was written with other settings.
    """
    state = check_files(folder)
    label, then = label or str(folder), state["settings"]
    _check_images(inputs, then.get(_IMAGES), folder.parent, label)
    _check_settings(_settings(config, inputs, accelerator), then, label)


def check_files(
    folder: Path, damaged: Callable[[str], ConfigError] | None = None
) -> dict[str, Any]:
    """Check a checkpoint against its hashes; return its state.

    Args:
        folder: Folder of the checkpoint.
        damaged: Returns the error for the name of a damaged file.

    Raises:
        ConfigError: A file is damaged.
    """
    damaged = damaged or (lambda name: _damaged(folder, name))
    try:
        state = _read_state(folder)
    except ConfigError as error:
        raise damaged(STATE) from error
    for name, digest in state["sha256"].items():
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            raise damaged(name)
    return state


def setting_of(folder: Path, key: str) -> Any:
    """Return a setting of the training that wrote a checkpoint; None if it is not recorded.

    Raises:
        ConfigError: The checkpoint is damaged.
    """
    return _read_state(folder)["settings"].get(key)


def load_checkpoint(session: Session, folder: Path) -> None:
    """Load a checkpoint's state into a new session, after `check_checkpoint`.

    Raises:
        ConfigError: The checkpoint is damaged, or its tensors do not fit this training.
    """
    state = _read_state(folder)
    try:
        _load(session, state, folder)
    except torch.OutOfMemoryError:
        raise
    except _UNFIT as error:
        raise ConfigError(
            f"The checkpoint {folder} does not fit this training: its tensors have other names or "
            "shapes.",
            f"Delete {folder} to resume from an earlier one, or to start anew.",
        ) from error


def _load(session: Session, state: Mapping[str, Any], folder: Path) -> None:
    tensors = load_file(folder / OPTIMIZER)
    for part_name, part in session.trainables.items():
        part.load_state(_below(tensors, f"{part_name}."))
    if session.average is not None:
        session.average.load_state_dict(unflatten_state(state["average"], tensors))
        session.average.to(session.accelerator.device)
    session.optimizer.load_state_dict(unflatten_state(state["optimizer"], tensors))
    session.schedule.load_state_dict(state["schedule"])
    if session.accelerator.scaler is not None and state["scaler"]:
        session.accelerator.scaler.load_state_dict(state["scaler"])
    torch.set_rng_state(tensors["rng.cpu"])
    if torch.cuda.is_available() and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    session.measures = [(step, loss) for step, loss in state["measures"]]
    session.best = {
        name: best for name in session.trainables if (best := _below(tensors, f"best.{name}."))
    }
    session.best_losses = tensors.get(_BEST_LOSSES)
    session.last_losses = tensors.get(_LAST_LOSSES)
    session.step, session.is_over = state["step"], state["is_over"]


def _write(session: Session, folder: Path) -> None:
    usable = _write_usable(session, folder)
    tensors: dict[str, torch.Tensor] = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    for part_name, part in session.trainables.items():
        tensors |= {f"{part_name}.{name}": value for name, value in part.state().items()}
    skeleton = flatten_state(session.optimizer.state_dict(), "optimizer", tensors)
    for part_name, best in session.best.items():
        tensors |= {f"best.{part_name}.{name}": value for name, value in best.items()}
    measured = {_BEST_LOSSES: session.best_losses, _LAST_LOSSES: session.last_losses}
    tensors |= {name: one.clone() for name, one in measured.items() if one is not None}
    average = session.average.state_dict() if session.average is not None else None
    averages = flatten_state(average, "average", tensors)
    save_tensors(tensors, folder / OPTIMIZER)
    scaler = session.accelerator.scaler
    state: dict[str, Any] = {
        "step": session.step,
        "is_over": session.is_over,
        "measures": session.measures,
        "optimizer": skeleton,
        "average": averages,
        "schedule": json_part(session.schedule.state_dict()),
        "scaler": scaler.state_dict() if scaler is not None else None,
        "settings": _settings(session.config, session.inputs, session.accelerator),
        "sha256": {name: sha256_of(folder / name) for name in (*usable, OPTIMIZER)},
    }
    write_atomically(folder / STATE, json.dumps({**state, "state": _digest(state)}))


def _write_usable(session: Session, folder: Path) -> list[str]:
    """Write adapter and token embeddings, which `hublora run` loads; return the files' names."""
    written = []
    if session.adapted:
        weights, metadata = to_diffusers(session.adapter())
        save_tensors(weights, folder / WEIGHTS, {**metadata, **_about(session)})
        written.append(WEIGHTS)
    if tokens := session.learned_tokens():
        rows, metadata = tokens_by_encoder(tokens)
        save_tensors(rows, folder / EMBEDDINGS, metadata)
        written.append(EMBEDDINGS)
    return written


def _about(session: Session) -> dict[str, str]:
    """Return the adapter file's metadata: base, family and trigger words."""
    config = session.config
    on_hub = config.base.revision is not None  # a local folder has no revision
    generates_elsewhere = config.base.generation_revision is not None
    return metadata_of_facts(
        AdapterFacts(
            base_model=config.base.model if on_hub else None,
            base_revision=config.base.revision,
            generation_base=config.base.generation if generates_elsewhere else None,
            generation_revision=config.base.generation_revision,
            family=session.family.name,
            trigger_words=tuple(config.adapter.trigger_words),
        )
    )


def _below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _read_state(folder: Path) -> dict[str, Any]:
    try:
        state = json.loads((folder / STATE).read_bytes())
        digest = state.pop("state")
        whole = digest == _digest(state) and _is_state(state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(folder, STATE) from error
    if not whole:
        raise _damaged(folder, STATE)
    return state


def _is_state(state: Mapping[str, Any]) -> bool:
    """Tell whether a state has the fields and file names of a checkpoint."""
    step, files = state["step"], state["sha256"].keys()
    known = {WEIGHTS, EMBEDDINGS, OPTIMIZER}
    return (
        type(step) is int
        and step >= 0
        and OPTIMIZER in files
        and files <= known
        and isinstance(state["settings"], dict)
    )


def _digest(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def _damaged(folder: Path, name: str) -> ConfigError:
    return ConfigError(
        f"The checkpoint {folder} is damaged: {name} is not what was written.",
        f"Delete {folder} to go on from an earlier one.",
    )


def _settings(
    config: TrainingConfig, inputs: InputHashes, accelerator: Accelerator
) -> dict[str, Any]:
    """Return the settings that must not change in a resumed training, under dotted keys.

    Paths are reduced to names, since they differ between machines; the hashes identify base
    and images. Batch size, gradient accumulation steps and processes may change as long as their
    product, the images of an optimizer step, is the same.
    """
    fixed = {key: value for key, value in flatten(config.shareable()).items() if not _is_free(key)}
    split = ("train_batch_size", "gradient_accumulation_steps")
    images = accelerator.num_processes
    for key in split:
        images *= fixed.pop(key)
    return fixed | {
        "mixed_precision": accelerator.mixed_precision,
        "images a step": images,
        _IMAGES: inputs.images,
        **({_BASE_FILES: inputs.base} if inputs.base is not None else {}),
    }


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(free + ".") for free in _FREE)


def _check_images(inputs: InputHashes, then: object, run: Path, label: str) -> None:
    if then in (None, inputs.images):
        return
    which = changed_images(run, inputs.each)
    raise ConfigError(
        f"The checkpoint {label} was made with other images or captions"
        + (f" ({which})." if which else "."),
        "Resume with the same ones, or start anew in another --output-dir.",
    )


def _check_settings(now: Mapping[str, Any], then: Mapping[str, Any], label: str) -> None:
    changed = [key for key in now if key in then and now[key] != then[key]]
    if _BASE_FILES in changed:
        raise ConfigError(
            f"The checkpoint {label} was made with another base: the folder named "
            f"{now['base.model']!r} had other files.",
            "Resume with that base, or start anew in another --output-dir.",
        )
    if changed:
        listed = ", ".join(f"{key} (was {then[key]}, is {now[key]})" for key in changed[:4])
        anew = "start anew in another --output-dir"
        if set(changed) <= _LENGTH:  # a longer schedule is another one from its first step on
            anew += ", from this result: --set adapter.start_from=RUN_FOLDER"
        raise ConfigError(
            f"The checkpoint {label} was made with other settings: {listed}.",
            f"Resume with the same ones, or {anew}.",
        )


def flatten_state(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Move the tensors in nested state into `tensors`; return JSON that names them."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {"__tensor__": name}
    if isinstance(value, Mapping):
        return {
            "__items__": [
                [key, flatten_state(v, f"{name}.{key}", tensors)] for key, v in value.items()
            ]
        }
    if isinstance(value, list | tuple):
        return [flatten_state(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]
    return value


def unflatten_state(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Return the state that `flatten_state` took apart."""
    if isinstance(value, list):
        return [unflatten_state(item, tensors) for item in value]
    if isinstance(value, dict):
        if "__tensor__" in value:
            return tensors[value["__tensor__"]]
        return {key: unflatten_state(item, tensors) for key, item in value["__items__"]}
    return value


def json_part(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON values of a state; the object's constructor recreates the others."""
    return {key: value for key, value in state.items() if _is_json(value)}


def _is_json(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_json(item) for item in value)
    return value is None or isinstance(value, int | float | str | bool)
