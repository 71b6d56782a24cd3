"""Compares what a component's config asks for with what its weights hold, without memory."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from hublora.errors import AdapterError
from hublora.families import Family
from hublora.resolution.model_folder import INDEX, count_elements, read_json

_SLACK = 1.1  # buffers, and tensors that two layers share
_counted: dict[tuple[Any, bytes], int] = {}  # of a class and a config that were counted before


def check_parameter_counts(
    folder: Path, family: Family, label: str, without: Collection[str] = ()
) -> None:
    """Check that the weights of a pipeline hold the parameters that its configs ask for.

    Libraries allocate and initialise what weights lack: a config alone could ask for all memory.

    Args:
        folder: A pipeline's folder that passed `check_pipeline_folder`.
        family: Family of the pipeline.
        label: The base model, in messages.
        without: Components that are not opened.

    Raises:
        AdapterError: A config asks for more, or for what its class cannot be made of.
    """
    index = read_json(folder / INDEX, label)
    for name in (*family.component_classes, *family.optional_component_classes):
        if name in without:
            continue
        if (folder / name / "config.json").is_file() and index.get(name):
            library, kind = index[name]
            check_parameter_count(
                getattr(import_module(library), kind), folder / name, f"{label}/{name}"
            )


def check_parameter_count(kind: Any, folder: Path, label: str) -> None:
    """Check that the weights of a model hold the parameters that its config asks for.

    Args:
        kind: Class of diffusers or transformers.
        folder: The model's folder, which passed `check_model_folder`.
        label: The model, in messages.

    Raises:
        AdapterError: The config asks for more, or for what the class cannot be made of.
    """
    key = kind, (folder / "config.json").read_bytes()
    if key not in _counted:
        _counted[key] = count_parameters(kind, folder, label)
    asked, stored = _counted[key], count_elements(folder)
    if asked > stored * _SLACK:
        raise AdapterError(
            f"The config of {label} asks for {asked:,} parameters; its weights have {stored:,}.",
            "The file is damaged or hostile: take another base model.",
        )


def count_parameters(kind: Any, folder: Path, label: str) -> int:
    """Return the number of parameters that a model's config asks for.

    Args:
        kind: Class of diffusers or transformers.
        folder: The model's folder, which passed `check_model_folder`.
        label: The model, in messages.

    Raises:
        AdapterError: No model of the class can be made of the config.
    """
    model = empty_model(kind, folder, label)
    return sum(parameter.numel() for parameter in model.parameters())


def empty_model(kind: Any, folder: Path, label: str) -> Any:
    """Return the model of a config, without memory for its weights; see `count_parameters`."""
    try:
        with torch.device("meta"):
            if hasattr(kind, "load_config"):
                return kind.from_config(kind.load_config(folder, local_files_only=True))
            return kind(kind.config_class.from_pretrained(folder, local_files_only=True))
    except Exception as error:  # a class fails in any way on values of strangers
        reason = " ".join(str(error).split())[:120]
        raise AdapterError(
            f"No model can be made of the config of {label}: {reason}",
            "The file is damaged or hostile: take another base model.",
        ) from error
