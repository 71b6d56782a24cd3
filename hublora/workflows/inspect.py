"""Inspects adapters without downloading their weights: headers, cards, and conflicts.

Over 300 lines because half of it are the facts that are returned, attribute by attribute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublora.adapters.adapter import AdapterFacts
from hublora.adapters.convert import diffusers_names, with_layer_names
from hublora.adapters.embeddings import has_learned_tokens
from hublora.adapters.facts import (
    architecture,
    facts_from_header,
    facts_of_tokens,
    stated_architecture,
)
from hublora.adapters.files import PEFT_CONFIG, parse_peft_config, read_peft_config
from hublora.adapters.header import (
    Header,
    ReadRange,
    check_size,
    file_reader,
    read_file_header,
    read_header,
    read_number,
)
from hublora.adapters.layer_specs import LayerSpec, find_load_problems, read_layer_specs
from hublora.adapters.match import LayerMatch, match_layers
from hublora.adapters.stacked_layers import split_stacked
from hublora.adapters.tensor_names import uses_peft_config
from hublora.errors import ConfigError
from hublora.families.registry import architecture_of_base, family_of_architecture
from hublora.hub.client import is_offline
from hublora.hub.download import download, range_reader
from hublora.hub.repo_layout import LOCK
from hublora.hub.resolve import ResolvedAdapter, resolve_adapter
from hublora.progress import Callback, default_callback
from hublora.refs import AdapterRef, BaseRef, parse_refs
from hublora.resolution.adapter import (
    adapter_label,
    download_adapter,
    facts_from_card,
    open_adapter,
)
from hublora.resolution.base import resolve_base
from hublora.resolution.base_layers import BaseLayers, read_base_layers
from hublora.resolution.choose_base import bases_of, common_bases

if TYPE_CHECKING:
    from hublora.adapters.similarity import Overlap

_SPAN = 1 << 16  # bytes of a file that are read at once for the alphas in them
_CONFIG_BYTES = 100_000  # more than any adapter_config.json has


@dataclass(frozen=True)
class InspectedAdapter:
    """The header and card of one adapter.

    Attributes:
        facts: Facts from its header and card.
        name: Ref as typed, or as a composition names it.
        fit: Match of its layers to the base; None without a base.
        problems: Sentences about contradictions and broken tensors.
        weight: Weight or schedule that a composition gives it, e.g. "0.7"; None outside of one.
    """

    facts: AdapterFacts
    name: str
    fit: LayerMatch | None = None
    problems: tuple[str, ...] = ()
    weight: str | None = None


@dataclass(frozen=True)
class Preflight:
    """Inspected adapters and the conflicts between them.

    Attributes:
        adapters: One for each adapter, in the order of the refs.
        base: Layers of the base that they are checked against; None without one.
        conflicts: Sentences about what prevents using them together.
    """

    adapters: tuple[InspectedAdapter, ...]
    base: BaseLayers | None = None
    conflicts: tuple[str, ...] = ()


def inspect(*refs: str) -> list[AdapterFacts]:
    """Return the facts of adapters from their headers and cards, without their weights.

    Raises:
        HubloraError: As `load`.
    """
    return [one.facts for one in _read_all(refs)]


def preflight(
    *refs: str,
    base: str | None = None,
    base_revision: str | None = None,
    components: str | None = None,
) -> Preflight:
    """Check adapters, together and against a base, without downloading weights of any.

    Args:
        refs: Adapter refs.
        base: Hub id or folder of a base to match the layers with, or a single file of one.
        base_revision: Branch, tag or commit of `base`.
        components: Pipeline that has what a single file lacks, as for `load`.

    Raises:
        HubloraError: As `load`, except that an adapter that does not fit is reported as a problem.
    """
    headers = _read_all(refs)
    base_layers = None
    if base is not None:
        names = {component for one in headers for component in one.layers}
        ref = BaseRef.parse(base, base_revision, components)
        base_layers = read_base_layers(resolve_base(ref), names)
    checked = tuple(_check(one, base_layers) for one in headers)
    return Preflight(checked, base_layers, tuple(_conflicts(checked)))


def measure_overlap(
    *refs: str,
    base: str | None = None,
    base_revision: str | None = None,
    callback: Callback = default_callback,
) -> Overlap:
    """Compare adapters' updates, block by block, and suggest how to use them together.

    Args:
        refs: Two or more adapter refs; their weights are ignored.
        base: Hub id or folder of a base; only needed where flattened layer names are ambiguous.
        base_revision: Branch, tag or commit of `base`.
        callback: Called with each event (`hublora.progress.Event`).

    Raises:
        ConfigError: Fewer than two adapters are given.
        HubloraError: As `load`.
    """
    from hublora.adapters.similarity import overlap

    headers = _read_all(refs)
    if len(headers) < 2:
        raise ConfigError(
            f"Overlap needs two or more adapters, got {len(headers)}.", "Name another one."
        )
    adapters = [open_adapter(one.ref, callback) for one in headers]
    names = None
    if base is not None:
        components = {component for adapter in adapters for component in adapter.layers}
        names = read_base_layers(resolve_base(BaseRef.parse(base, base_revision)), components).names
    return overlap(
        [with_layer_names(adapter, diffusers_names(adapter, names)) for adapter in adapters]
    )


@dataclass(frozen=True)
class _AdapterHeader:
    """The header and card of an adapter.

    Attributes:
        asked: The ref as it was given.
        ref: The ref at its commit and file.
        facts: Facts from header and card.
        header: The safetensors header.
        layers: Component -> layer -> its tensors; empty for token embeddings.
        card: Front matter of the card.
        weight: Weight that a composition gives it; None outside of one.
    """

    asked: AdapterRef
    ref: AdapterRef
    facts: AdapterFacts
    header: Header
    layers: Mapping[str, Mapping[str, LayerSpec]]
    card: Mapping[str, Any]
    weight: str | None = None


def _read_all(refs: Sequence[str]) -> list[_AdapterHeader]:
    """Read headers and cards; of a composition those of its parts."""
    return [one for ref in parse_refs(refs) for one in _read(ref)]


def _read(ref: AdapterRef) -> list[_AdapterHeader]:
    if ref.kind == "repo" and not is_offline():
        resolved = resolve_adapter(ref)
        if resolved.ref.path != LOCK:
            return [_read_remote(ref, resolved)]
        path = download(ref.location, str(resolved.ref.revision), LOCK)
    else:
        resolved, path = download_adapter(ref)
    if path.name == LOCK:
        from hublora.resolution.lockfile import read_lockfile

        parts = read_lockfile(path, ref.location).parts
        return [
            replace(one, asked=part.followed, weight=part.weight)
            for part in parts
            for one in _read(part.ref)
        ]
    header = read_file_header(path)
    config = read_peft_config(path) if uses_peft_config(header.shapes) else None
    return [_adapter_header(ref, resolved, header, config, file_reader(path), path.stat().st_size)]


def _read_remote(ref: AdapterRef, resolved: ResolvedAdapter) -> _AdapterHeader:
    """Read a header, and the config of a PEFT folder, by range: two or three requests."""
    repo_id, commit = resolved.ref.location, str(resolved.ref.revision)
    file = str(resolved.ref.path)
    name = Path(file).name
    read = range_reader(repo_id, commit, file)
    header = read_header(read, name)
    size = resolved.files[file] or header.header_bytes + header.data_bytes
    check_size(header, size, name)
    beside = file.removesuffix(name) + PEFT_CONFIG
    config = None
    if beside in resolved.files and uses_peft_config(header.shapes):
        text = range_reader(repo_id, commit, beside)(0, _CONFIG_BYTES)
        config = parse_peft_config(text, name)
    return _adapter_header(ref, resolved, header, config, read, size)


def _adapter_header(
    asked: AdapterRef,
    resolved: ResolvedAdapter,
    header: Header,
    config: Mapping[str, Any] | None,
    read: ReadRange,
    size: int,
) -> _AdapterHeader:
    if has_learned_tokens(header):
        facts = facts_of_tokens(header, **facts_from_card(resolved), size=size)
        return _AdapterHeader(asked, resolved.ref, facts, header, {}, resolved.card)
    facts = facts_from_header(header, config, **facts_from_card(resolved), size=size)
    alphas = facts.alphas or _read_alphas(read, header, None if resolved.ref.kind != "repo" else 16)
    facts = replace(facts, alphas=alphas, family=_family(facts))
    return _AdapterHeader(
        asked, resolved.ref, facts, header, read_layer_specs(header.shapes), resolved.card
    )


def _read_alphas(read: ReadRange, header: Header, most: int | None) -> tuple[float, ...]:
    """Return the distinct values of a file's alpha tensors, sorted.

    Args:
        read: As for `read_header`.
        header: Header of the same file.
        most: Ranges that may be read, which are then spread over the file; None for all of them.
    """
    spans: list[list[str]] = []
    for name in sorted(header.shapes, key=lambda name: header.offsets[name]):
        if name.endswith(".alpha"):
            if spans and header.offsets[name] - header.offsets[spans[-1][0]] < _SPAN:
                spans[-1].append(name)
            else:
                spans.append([name])
    if most is not None and len(spans) > most:
        spans = [spans[index * len(spans) // most] for index in range(most)]
    found = set()
    for span in spans:
        start = header.offsets[span[0]]
        data = read(start, header.offsets[span[-1]] - start + 8)

        def part(offset: int, length: int, data: bytes = data, start: int = start) -> bytes:
            return data[offset - start : offset - start + length]

        found |= {read_number(part, header, name) for name in span}
    return tuple(sorted(number for number in found if number is not None))


def _family(facts: AdapterFacts) -> str | None:
    if facts.family:
        return facts.family
    family = family_of_architecture(facts.architecture or "")
    return family.name if family else None


def _check(one: _AdapterHeader, base: BaseLayers | None) -> InspectedAdapter:
    name = adapter_label(one.asked)
    if has_learned_tokens(one.header):  # their widths are checked when they are added
        return InspectedAdapter(one.facts, name, None, tuple(_contradictions(one)), one.weight)
    problems = [*find_load_problems(one.header.shapes), *_contradictions(one)]
    fit = None
    if base is not None:
        flattened = one.facts.layout == "kohya"
        layers = split_stacked(one.layers, base.shapes, flattened)
        fit = match_layers(layers, base.shapes, base.names, flattened)
        problems += _misfits(one, fit, base)
    return InspectedAdapter(one.facts, name, fit, tuple(problems), one.weight)


def _contradictions(one: _AdapterHeader) -> list[str]:
    """Return the contradictions between card, metadata and tensors about the base."""
    problems = []
    found = architecture(one.layers)
    stated = one.facts.base_model
    for said, who in (
        (architecture_of_base(stated or ""), f"its card names the base {stated}"),
        (stated_architecture(one.header.metadata), "its metadata names the architecture"),
    ):
        if found and said and not said.startswith(found):
            problems.append(f"Its tensors are those of {found}, but {who} ({said}).")
    in_file, on_card = one.header.metadata.get("hublora.base_model"), one.card.get("base_model")
    if in_file and isinstance(on_card, str) and on_card not in (in_file, _repo_of(in_file)):
        problems.append(f"Its card names the base {on_card}, its file {in_file}.")
    if isinstance(on_card, list) and len(on_card) > 1 and not _states_all(one, on_card):
        some = [base for base in on_card[:5] if isinstance(base, str)]
        problems.append(f"Its card names {len(on_card)} bases: {', '.join(some) or 'no names'}.")
    return problems


def _repo_of(base: str) -> str:
    """Return owner/name of a base, which may be a single file in a repo."""
    return "/".join(base.split("/")[:2])


def _states_all(one: _AdapterHeader, on_card: Sequence[Any]) -> bool:
    return set(map(str, on_card)) == set(bases_of(one.facts))


def _misfits(one: _AdapterHeader, fit: LayerMatch, base: BaseLayers) -> list[str]:
    problems = []
    stated = one.facts.base_model
    if stated and base.commit and base.name not in bases_of(one.facts):  # a folder may be a copy
        problems.append(f"It was trained on {stated}, not on {base.name}.")
    if fit.missing or fit.wrong_shape:
        component, module = (fit.missing or fit.wrong_shape)[0]
        problems.append(
            f"It does not fit {base.name}: of its {fit.total} layers {len(fit.missing)} are not in "
            f"the base and {len(fit.wrong_shape)} have another shape there, such as {module!r} of "
            f"the {component}."
        )
    return problems


# (fact that adapters must share, its plural, how to resolve a conflict)
_SHARED = (
    ("base_model", "bases", "choose one with --base"),
    ("architecture", "architectures", "no base takes all of them"),
    ("family", "families", "no base takes all of them"),
)


def _conflicts(adapters: Sequence[InspectedAdapter]) -> list[str]:
    """Return the conflicts that prevent using adapters on one base."""
    conflicts = []
    for field, noun, mend in _SHARED:
        said: dict[str, list[str]] = {}
        for one in adapters:
            if value := getattr(one.facts, field):
                said.setdefault(value, []).append(one.name)
        if field == "base_model":
            stating = [one.facts for one in adapters if bases_of(one.facts)]
            if stating and common_bases(stating):
                continue
        if len(said) > 1:
            listed = "; ".join(f"{', '.join(who)}: {value}" for value, who in said.items())
            conflicts.append(f"They have different {noun} ({listed}): {mend}.")
    return conflicts
