"""Chooses the base for adapters: the named one, else the one that they were trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hublora.adapters.adapter import Adapter, AdapterFacts
from hublora.adapters.match import check_match, match_layers
from hublora.adapters.stacked_layers import split_stacked
from hublora.errors import AdapterError, NotFoundError
from hublora.families import Family
from hublora.families.registry import FAMILIES
from hublora.hub.client import is_offline
from hublora.hub.download import cache_folder
from hublora.progress import Callback, Note
from hublora.refs import BaseRef
from hublora.resolution.base import Base, ResolvedBase, download_base, read_family, resolve_base
from hublora.resolution.base_access import check_access
from hublora.resolution.base_layers import read_base_layers
from hublora.resolution.composition_parts import LoadedAdapter

# Called with the family and the name of a base before it is downloaded; raises to refuse it.
CheckInputs = Callable[[Family, str], object]


def choose_base(
    parts: Sequence[LoadedAdapter],
    base: BaseRef | None,
    callback: Callback,
    components: str | None = None,
    check_inputs: CheckInputs | None = None,
) -> Base:
    """Download a base that fits adapters.

    Args:
        parts: The adapters.
        base: The base; None for the one that the adapters state.
        callback: Called with each event (`hublora.progress.Event`).
        components: Pipeline with what a single file lacks; None for the one that the adapters
            state, else the one known to its family.
        check_inputs: Called before the download; None takes every family.

    Raises:
        NotFoundError: The base does not exist.
        AdapterError: The adapters state no base or several, or one does not fit.
    """
    adapters = [part.adapter for part in parts]
    if base is not None:
        return _download_fitting(parts, base, callback, check_inputs)
    if not adapters:
        raise AdapterError("Neither an adapter nor a base was given.", "Name the base with --base.")
    stated = [a for a in adapters if bases_of(a.facts)]
    if not stated:
        which = ", ".join(str(a.facts.source) for a in adapters)
        raise AdapterError(
            f"{which} does not state the base that it was trained on.", "Name it with --base."
        )
    common = common_bases([a.facts for a in stated])
    if not common:
        said = "; ".join({str(a.facts.base_model): _said(a) for a in stated}.values())
        raise AdapterError(
            f"These adapters were trained on different bases: {said}.", "Choose one with --base."
        )
    name = common[0]
    stating = (a.facts.base_components for a in stated if a.facts.base_model == name)
    components = components or next((one for one in stating if one), None)
    commits = {commit for a in stated if (commit := bases_of(a.facts)[name])}
    newest = BaseRef.parse(name, None, components)
    if len(commits) != 1 or newest.folder is not None:
        return _download_fitting(parts, newest, callback, check_inputs)
    try:
        pinned = BaseRef.parse(name, commits.pop(), components)
        return _download_fitting(parts, pinned, callback, check_inputs)
    except NotFoundError:
        callback(
            Note(
                f"The commit of {name} that was trained on no longer exists; using main.",
                True,
            )
        )
        return _download_fitting(parts, newest, callback, check_inputs)


def check_family(adapter: Adapter, label: str, family: Family | None, base: str) -> None:
    """Refuse an adapter that says that it is for another family, whose layers may have the same
    names and shapes.

    Args:
        adapter: The adapter.
        label: Name of the adapter in messages.
        family: Family of the base; None if it is not known.
        base: Name of the base in messages.

    Raises:
        AdapterError: It names both families.
    """
    own = FAMILIES.get(adapter.facts.family or "")
    if own is not None and family is not None and own.names is not family.names:
        raise AdapterError(
            f"{label} is for a base of the family {own.name}, and {base} is of {family.name}.",
            "Name the base it was made for with --base, or adapters of one family.",
        )


def bases_of(facts: AdapterFacts) -> dict[str, str | None]:
    """Return Hub id -> commit of the bases that an adapter states, the one that it is used on
    first."""
    stated = (
        (facts.generation_base, facts.generation_revision),
        (facts.base_model, facts.base_revision),
    )
    return {name: commit for name, commit in stated if name}


def common_bases(adapters: Sequence[AdapterFacts]) -> list[str]:
    """Return the bases that all of some adapters state, in the order of the first one."""
    first, *others = map(bases_of, adapters)
    return [name for name in first if all(name in other for other in others)]


def _said(adapter: Adapter) -> str:
    return f"{adapter.facts.source} for {' or '.join(bases_of(adapter.facts))}"


def _download_fitting(
    parts: Sequence[LoadedAdapter],
    ref: BaseRef,
    callback: Callback,
    check_inputs: CheckInputs | None,
) -> Base:
    """Download a base after checking by its headers that the adapters fit."""
    base = resolve_base(ref)
    check_adapters_fit([(part.label, part.adapter) for part in parts], base)
    check_access(base)
    if check_inputs is not None:
        check_inputs(read_family(base), ref.name)
    downloaded = download_base(base, callback)
    for part in parts:
        trained_on = part.adapter.facts.base_sha256
        if downloaded.sha256 and trained_on not in (None, downloaded.sha256):
            told = f"{part.label} was trained on another file (sha256 {str(trained_on)[:12]}…)"
            callback(Note(f"{told} than {downloaded.label} ({downloaded.sha256[:12]}…).", True))
    return downloaded


def check_adapters_fit(adapters: Sequence[tuple[str, Adapter]], base: ResolvedBase) -> None:
    """Check that adapters fit a base before gigabytes of it are downloaded.

    A base of which weights are cached is not checked here: every load checks it.

    Args:
        adapters: (label in messages, adapter) of each.
        base: The base, not downloaded.

    Raises:
        AdapterError: An adapter does not fit.
    """
    if base.ref.repo_id is None or is_offline() or not adapters:
        return
    snapshot = cache_folder(base.ref.repo_id) / "snapshots" / str(base.commit)
    if any(snapshot.glob("**/*.safetensors")):
        return
    adapters = [(label, adapter) for label, adapter in adapters if adapter.layers]
    components = {component for _, adapter in adapters for component in adapter.layers}
    layers = read_base_layers(base, components)
    for label, adapter in adapters:
        check_family(adapter, label, FAMILIES.get(layers.family or ""), base.ref.name)
        flattened = adapter.facts.layout == "kohya"
        updates = split_stacked(adapter.layers, layers.shapes, flattened)
        fit = match_layers(updates, layers.shapes, layers.names, flattened)
        check_match(fit, adapter.facts, label, base.ref.name)
