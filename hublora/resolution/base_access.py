"""Checks of a base by its small files, before anything large is downloaded."""

from __future__ import annotations

import json
from pathlib import Path

from hublora.errors import NotFoundError
from hublora.families import Family
from hublora.families.registry import FAMILIES
from hublora.hub.client import is_offline
from hublora.hub.download import download
from hublora.resolution.base import ResolvedBase
from hublora.resolution.model_folder import INDEX

_TOKENIZER = "tokenizer"
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")


def check_access(base: ResolvedBase) -> None:
    """Check that the files of a base may be read, and that its tokenizer can do what its family
    asks of it.

    Raises:
        AccessError: The repo is gated, and this token has no access; its page is named.
        NotFoundError: The tokenizer has no chat template.
    """
    if is_offline():
        return
    whole = base.components if base.components is not None else base
    family = _family(whole)
    if family is None or not family.chat_template:
        return
    files = (f"{_TOKENIZER}/{name}" for name in _TEMPLATE_FILES)
    if any(file in whole.files for file in files) or _states_template(whole):
        return
    raise NotFoundError(
        f"The tokenizer of {whole.ref.name} has no chat template, with which the text encoder of "
        f"{family.name} reads prompts.",
        f"Add {_TOKENIZER}/{_TEMPLATE_FILES[0]} of the original base model to it.",
    )


def _family(base: ResolvedBase) -> Family | None:
    """Return the family of a pipeline, None if it is of none."""
    try:
        kind = str(json.loads(_local(base, INDEX).read_bytes()).get("_class_name"))
    except (OSError, ValueError, AttributeError, RecursionError):
        return None  # loading says so
    return next((one for one in FAMILIES.values() if kind in one.pipeline_classes), None)


def _states_template(base: ResolvedBase) -> bool:
    config = f"{_TOKENIZER}/tokenizer_config.json"
    if config not in base.files:
        return True  # without a tokenizer, loading says so
    try:
        return bool(json.loads(_local(base, config).read_bytes()).get("chat_template"))
    except (OSError, ValueError, AttributeError, RecursionError):
        return True


def _local(base: ResolvedBase, file: str) -> Path:
    if base.ref.repo_id is not None:
        return download(base.ref.repo_id, str(base.commit), file)
    assert base.ref.folder is not None, "one of both is set"
    return base.ref.folder / file
