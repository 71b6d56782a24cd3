"""Load: adapter refs ─ resolve ─▶ adapters ─ compose ─▶ the base's pipeline with them active."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Unpack

from hublora.adapter_weights import CompositionMode, Weight
from hublora.errors import ConfigError
from hublora.families.registry import DENOISERS
from hublora.generation.composition import Composition, check_licenses
from hublora.generation.lora.cache import DEFAULT_LIMIT, AdapterCache
from hublora.generation.offload import check_offload, place
from hublora.generation.options import LoadOptions, UseOptions, check_options
from hublora.generation.speed import use_speed
from hublora.memory.quantization import check_quantization
from hublora.progress import Callback, Note, default_callback, no_callback
from hublora.refs import BaseRef
from hublora.resolution.choose_base import CheckInputs, choose_base
from hublora.resolution.composition_parts import (
    ResolvedRefs,
    WeightedRef,
    join_refs,
    load_adapters,
    parse_weighted_refs,
)
from hublora.resolution.device import check_device, default_device, parse_dtype


def load(*refs: str, callback: Callback = default_callback, **options: Unpack[LoadOptions]) -> Any:
    """Return the diffusers pipeline of the base with the adapters active.

    Args:
        refs: Adapter refs such as "user/name", "user/name@main:0.7" or a file; none for the base.
        base: Hub id or folder of the base, or a single .safetensors file of one; found from the
            adapters' own facts if not given.
        base_revision: Branch, tag or commit of `base`.
        components: Pipeline, as owner/name[@revision] or a folder, that has what a single file
            lacks; the one known to its family if not given.
        compose: How several adapters act together: "sum", "switch" or "composite"; as a
            composition says, else "sum".
        weights: Place from 1, or ref -> weight, such as "0.2..0.9" over the steps or "1,mid:0" by
            block (`hublora.adapter_weights`).
        commercial: Refuse adapters and bases whose licence forbids commercial use.
        device: A torch device; a GPU if there is one.
        dtype: Type of the weights, or its name; float16 on a GPU, float32 elsewhere.
        quantize: Hold the linear layers of denoiser and text encoders in "int8", "fp8" or "nf4".
        offload: "model", "blocks", "blocks:8" or "sequential" keeps only what is needed on the GPU:
            a component, a block of the denoiser (or all but eight blocks), or a layer.
        tiled_vae: Decode in tiles, which large images need less memory for.
        cache_bytes: Memory that adapters may take which `use` changes between.
        max_rank: Rank of every layer's buffers, at least, so that a compiled pipeline is not
            compiled again when `use` activates others; 0 for the rank of the active adapters.
        callback: Called with each event (`hublora.progress.Event`); by default they are logged
            under `hublora`, and a notebook shows progress bars.

    Raises:
        RefError: A ref does not parse.
        NotFoundError: A repo, revision or file is not cached.
        AdapterError: A file is broken, or does not fit the base.
        ConfigError: An option is unknown, or does not work here.
    """
    check_options(options, LoadOptions, load)
    return load_pipeline(refs, options, callback)


def load_pipeline(
    refs: Sequence[str],
    options: LoadOptions,
    callback: Callback = no_callback,
    prepare: Callable[[Any], object] = lambda pipe: None,
    check_inputs: CheckInputs | None = None,
) -> Any:
    """Return what `load` returns.

    Args:
        refs: Adapter refs.
        options: Keywords of `load`.
        callback: As for `load`.
        prepare: Called with the pipeline before it is moved or offloaded, for an IP-Adapter.
        check_inputs: Called with family and name of the base before it is downloaded.
    """
    wanted = parse_weighted_refs(refs, options.get("weights"))
    device, offload = options.get("device"), options.get("offload")
    device = default_device() if device is None else check_device(device)
    check_offload(device, offload)
    quantize = options.get("quantize")
    check_quantization(quantize, device)
    base, base_revision = options.get("base"), options.get("base_revision")
    opened_refs = [load_adapters([one], callback) for one in wanted]
    found = join_refs(opened_refs)
    _report_lost_mode(opened_refs, options.get("compose"), callback)
    if found.lock and base is None:
        base, base_revision = found.lock.base.repo, found.lock.base.commit
    opened = choose_base(
        found.adapters,
        None if base is None else BaseRef.parse(base, base_revision, options.get("components")),
        callback,
        options.get("components"),
        check_inputs,
    )
    check_licenses(opened, found.adapters, options.get("commercial", False), callback)
    dtype = parse_dtype(options.get("dtype"), device, opened.family.half_dtype)
    pipe = opened.load(dtype, quantize)
    limit, max_rank = options.get("cache_bytes", DEFAULT_LIMIT), options.get("max_rank", 0)
    adapter_cache = AdapterCache(pipe, opened, limit, max_rank)
    empty = Composition(
        base=opened,
        adapters=(),
        triggers=(),
        dtype=str(dtype)[6:],
        adapter_cache=adapter_cache,
        device=device,
        scheduler=type(pipe.scheduler).__name__,
        base_scheduler=pipe.scheduler,
        quantize=quantize,
    )
    pipe.hublora = _activate(empty, found, options.get("compose"))
    use_speed(pipe, None, callback)
    _remember(adapter_cache, wanted, opened_refs)
    prepare(pipe)
    place(pipe, device, offload, options.get("tiled_vae", False))
    return pipe


def use(
    pipe: Any,
    *refs: str,
    compose: CompositionMode | None = None,
    weights: Mapping[str, str | float] | None = None,
    commercial: bool = False,
    callback: Callback = default_callback,
) -> None:
    """Activate other adapters, or the same with other weights, on a pipeline that `load` returned,
    or that diffusers' `from_pipe` made of one.

    An adapter that the pipeline has in memory is activated at once, at the commit that it had.

    Args:
        pipe: The pipeline.
        refs: Adapter refs; none for the base alone.
        compose: As for `load`.
        weights: As for `load`.
        commercial: As for `load`.
        callback: Called with each event (`hublora.progress.Event`).

    Raises:
        HubloraError: As `load`; the pipeline is unchanged then.
    """
    wanted = parse_weighted_refs(refs, weights)
    adapter_cache = _composition_of(pipe).adapter_cache
    assert adapter_cache is not None, "it was loaded"
    with adapter_cache.lock:
        composition = _composition_of(pipe)
        opened = [_load_or_find(adapter_cache, one, callback) for one in wanted]
        found = join_refs(opened)
        _report_lost_mode(opened, compose, callback)
        check_licenses(composition.base, found.adapters, commercial, callback)
        before = composition.speed
        _owner_of(pipe).hublora = pipe.hublora = _activate(composition, found, compose)
        use_speed(pipe, before, callback)
        _remember(adapter_cache, wanted, opened)


@contextmanager
def using(pipe: Any, *refs: str, **options: Unpack[UseOptions]) -> Iterator[Any]:
    """Activate adapters for the calls in a `with` block, during which other threads wait.

        with hublora.using(pipe, "me/pokemon-lora") as pipe:
            image = pipe("Totoro").images[0]

    Adapters stay active after the block, until the next `use` or `using`.

    Args:
        pipe: A pipeline that `load` returned.
        refs: Adapter refs; none for the base alone.
        options: Keywords of `use`.

    Yields:
        The pipeline.

    Raises:
        HubloraError: As `use`.
    """
    check_options(options, UseOptions, using)
    adapter_cache = _composition_of(pipe).adapter_cache
    assert adapter_cache is not None, "it was loaded"
    with adapter_cache.lock:
        use(pipe, *refs, **options)
        yield pipe


def set_weights(pipe: Any, weights: Sequence[Weight]) -> None:
    """Give the adapters of a pipeline that `load` returned other weights; loads nothing.

    Raises:
        ConfigError: A weight names a block that its adapter has no layers in.
    """
    composition = _composition_of(pipe)
    if [adapter.weight for adapter in composition.adapters] == list(weights):
        return
    assert composition.adapter_schedule is not None, "there are adapters"
    composition.adapter_schedule.set_weights(weights)
    pairs = list(zip(composition.adapters, composition.triggers, weights, strict=True))
    pipe.hublora = replace(
        composition,
        adapters=tuple(replace(adapter, weight=weight) for adapter, _, weight in pairs),
        triggers=tuple(replace(one, automatic=weight.positive) for _, one, weight in pairs),
    )


def _owner_of(pipe: Any) -> Any:
    """Return the pipeline that `load` returned: `pipe` itself, or the one that diffusers'
    `from_pipe` made it of."""
    from hublora.generation.lora.schedule import pipeline_of

    denoisers = (getattr(pipe, name, None) for name in DENOISERS)
    denoiser = next((one for one in denoisers if one is not None), None)
    return pipeline_of(denoiser) or pipe


def _composition_of(pipe: Any) -> Composition:
    composition = getattr(_owner_of(pipe), "hublora", None)
    if composition is None or composition.adapter_cache is None:
        raise ConfigError("This pipeline is not from hublora.", "Make it with hublora.load(…).")
    return composition


def _load_or_find(
    adapter_cache: AdapterCache, wanted: WeightedRef, callback: Callback
) -> ResolvedRefs:
    """Open a ref, unless it is in memory."""
    if cached := adapter_cache.find(wanted.ref):
        return ResolvedRefs((replace(cached.loaded, asked=wanted.ref, weight=wanted.weight),))
    found = load_adapters([WeightedRef(adapter_cache.pinned(wanted.ref), wanted.weight)], callback)
    if found.lock:
        return found
    return replace(
        found, adapters=tuple(replace(adapter, asked=wanted.ref) for adapter in found.adapters)
    )


def _report_lost_mode(
    opened: Sequence[ResolvedRefs], mode: CompositionMode | None, callback: Callback
) -> None:
    """Report compositions whose own mode does not apply because other adapters are beside them."""
    if len(opened) == 1 or mode is not None:
        return
    for one in opened:
        if one.lock and one.lock.compose != "sum":
            name = one.composition or "A composition"
            callback(
                Note(
                    f"{name} combines its adapters by {one.lock.compose}; with other adapters "
                    f'beside it, all are combined by sum. compose="{one.lock.compose}" combines '
                    f"all of them by {one.lock.compose}.",
                    warning=True,
                )
            )


def _remember(
    adapter_cache: AdapterCache, wanted: Sequence[WeightedRef], opened: Sequence[ResolvedRefs]
) -> None:
    for one, found in zip(wanted, opened, strict=True):
        if found.lock is None:
            adapter_cache.remember(one.ref, found.adapters[0])


def _activate(
    composition: Composition, found: ResolvedRefs, mode: CompositionMode | None
) -> Composition:
    """Activate adapters; return the pipeline's composition from then on."""
    adapter_cache = composition.adapter_cache
    assert adapter_cache is not None, "it was loaded"
    cached = adapter_cache.add(found.adapters)
    mode = mode or (found.lock.compose if found.lock else "sum")
    weights = [adapter.weight for adapter in found.adapters]
    adapter_cache.activate(cached, weights, mode)
    return composition.with_adapters(found, cached, mode)
