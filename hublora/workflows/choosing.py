"""Finds the base that adapters are drawn with: the one that is named, else their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hublora.errors import AdapterError, NotFoundError
from hublora.workflows.bases import Base, open_base
from hublora.workflows.inspection import refuse_misfits
from hublora.workflows.outlines import check_named
from hublora.workflows.parts import OpenPart
from hublora.workflows.progress import Note, Observer


def choose_base(
    parts: Sequence[OpenPart], base: str | None, revision: str | None, observer: Observer
) -> Base:
    """Bring a base to this machine that fits adapters.

    Args:
        parts: The adapters.
        base: Hub id or folder; the one that they state if not given.
        revision: Branch, tag or commit of `base`.
        observer: Is told what happens.

    Raises:
        NotFoundError: It is not there.
        AdapterError: None is stated, or several are, or an adapter does not fit.
    """
    adapters = [part.adapter for part in parts]
    if base is not None:
        check_named(base)
        return _open_fitting(parts, base, revision, observer)
    if not adapters:
        raise AdapterError("Neither an adapter nor a base was given.", "Name the base: --base …")
    stated = {a.facts.base_model: a for a in adapters if a.facts.base_model}
    if not stated:
        which = ", ".join(str(a.facts.source) for a in adapters)
        raise AdapterError(f"{which} does not say which base it was made for.", "Name it: --base …")
    if len(stated) > 1:
        said = "; ".join(f"{a.facts.source} for {name}" for name, a in stated.items())
        raise AdapterError(
            f"These adapters were made for different bases: {said}.", "Choose one with --base."
        )
    name = next(iter(stated))
    commits = {a.facts.base_revision for a in adapters if a.facts.base_revision}
    if len(commits) != 1 or Path(str(name)).exists():
        return _open_fitting(parts, str(name), None, observer)
    try:
        return _open_fitting(parts, str(name), commits.pop(), observer)
    except NotFoundError:
        observer(Note(f"The commit of {name} that was trained on is gone; using main.", True))
        return _open_fitting(parts, str(name), None, observer)


def _open_fitting(
    parts: Sequence[OpenPart], model: str, revision: str | None, observer: Observer
) -> Base:
    """Bring a base to this machine, unless its headers show that an adapter does not fit it."""
    refuse_misfits([(part.label, part.adapter) for part in parts], model, revision)
    return open_base(model, revision, observer)
