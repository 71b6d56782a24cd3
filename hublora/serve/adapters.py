"""The adapters that a server has in memory, and those of one request at each of its steps."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from hublora.adapter_weights import CompositionMode, Weight
from hublora.errors import ConfigError
from hublora.generation.composition import Composition, check_licenses
from hublora.generation.lora.cache import AdapterCache, CachedAdapter
from hublora.generation.lora.schedule import layer_factors, mean_prediction, reads_text
from hublora.generation.lora.step_counter import StepCounter
from hublora.hub.urls import public_addresses_only
from hublora.progress import no_callback
from hublora.refs import AdapterRef
from hublora.resolution.composition_parts import ResolvedRefs, WeightedRef, join_refs, load_adapters
from hublora.serve.batching.row_lora import RequestLoras
from hublora.serve.settings import EngineSettings

_MOST_REFS = 10_000  # whose commits are known at a time


@dataclass(frozen=True)
class RequestAdapters:
    """The adapters of one request.

    Attributes:
        composition: Base, adapters and trigger words, for prompt and metadata.
        cached: The adapters in memory, in order.
    """

    composition: Composition
    cached: tuple[CachedAdapter, ...]

    @property
    def weights(self) -> tuple[Weight, ...]:
        return tuple(one.weight for one in self.composition.adapters)

    def of_component(self, component: str, progress: float = 0.0) -> RequestLoras:
        """Return the adapters that change a component.

        Args:
            component: Component of the pipeline.
            progress: Share of the steps done, 0 to 1.
        """
        found = []
        for one, weight in zip(self.cached, self.weights, strict=True):
            packed = one.fitted.packed.get(component)
            if packed is not None and weight.acts:
                found.append((packed, layer_factors(weight, component, packed.layers, progress)))
        return found


class StepAdapters:
    """Which adapters of a request change the denoiser at which step.

    Args:
        adapters: The request's, opened (`AdapterStore.using`).
        denoiser: Component that predicts.
        scheduler: The request's own.
        scheduler_timestep: The scheduler's timestep for the one that the denoiser is called with.
    """

    def __init__(
        self,
        adapters: RequestAdapters,
        denoiser: str,
        scheduler: Callable[[], Any],
        scheduler_timestep: Callable[[float], float],
    ) -> None:
        self._adapters, self._denoiser, self._scheduler = adapters, denoiser, scheduler
        self._counter = StepCounter(scheduler_timestep)
        alone = len(adapters.of_component(denoiser)) < 2
        self._mode: CompositionMode = "sum" if alone else adapters.composition.mode
        self._moves = self._mode == "switch" or any(one.moves for one in adapters.weights)

    def predict(self, timestep: Any, call: Callable[[RequestLoras], Any]) -> Any:
        """Return the denoiser's prediction at a timestep.

        Args:
            timestep: Timestep of the denoiser's call: a number, or a tensor of equal ones.
            call: Calls the denoiser with adapters.
        """
        step, progress = 0, 0.0
        if self._moves:
            step, steps = self._counter.step(self._scheduler(), timestep)
            progress = step / max(steps - 1, 1)
        every = self._adapters.of_component(self._denoiser, progress)
        if self._mode == "switch":
            return call([every[step % len(every)]])
        if self._mode == "composite":
            return mean_prediction([call([one]) for one in every])
        return call(every)


class AdapterStore:
    """Opens the adapters of requests: at a commit, loaded once, kept while they are used.

    Args:
        empty: Composition of the base alone.
        settings: How the base is served.
    """

    def __init__(self, empty: Composition, settings: EngineSettings) -> None:
        assert empty.adapter_cache is not None, "it was loaded"
        self._empty, self._cache = empty, empty.adapter_cache
        self._recheck, self._commercial = settings.recheck_seconds, settings.commercial
        self._most_adapters = settings.most_adapters
        # Ref without its weight -> itself, and when its commit was asked for.
        self._asked: OrderedDict[str, tuple[AdapterRef, float]] = OrderedDict()
        self._used: Counter[CachedAdapter] = Counter()
        self._opening: dict[str, threading.Lock] = {}

    @property
    def cache(self) -> AdapterCache:
        """The adapters in memory; its lock is held while text encoders have adapters."""
        return self._cache

    @contextmanager
    def using(
        self, refs: Sequence[WeightedRef], mode: CompositionMode | None
    ) -> Iterator[RequestAdapters]:
        """Open adapters; they stay in memory as long as the block lasts.

        Args:
            refs: Adapter refs with their weights.
            mode: How they act together; None as a composition says, else "sum".

        Raises:
            HubloraError: One cannot be loaded, or does not fit the base.
        """
        with ExitStack() as held:
            opened = [self._open(ref, held) for ref in refs]
            found = join_refs(opened)
            self._check(found)
            with self._cache.lock:
                cached = tuple(self._cache.add(found.adapters))
                self._hold(cached, held)
                for ref, one in zip(refs, opened, strict=True):
                    if one.lock is None:
                        self._cache.remember(ref.ref, one.adapters[0])
            mode = mode or (found.lock.compose if found.lock else "sum")
            yield RequestAdapters(self._empty.with_adapters(found, cached, mode), cached)

    def _check(self, found: ResolvedRefs) -> None:
        if len(found.adapters) > self._most_adapters:
            raise ConfigError(
                f"{len(found.adapters)} adapters are too many for one image here.",
                f"Name {self._most_adapters} at most.",
            )
        check_licenses(self._empty.base, found.adapters, self._commercial, no_callback)

    def _hold(self, cached: Sequence[CachedAdapter], held: ExitStack) -> None:
        """Keep adapters in memory until the stack is left; the caller has the cache's lock."""
        self._used.update(cached)
        held.callback(self._release, cached)

    def _release(self, cached: Sequence[CachedAdapter]) -> None:
        with self._cache.lock:
            self._used.subtract(cached)
            self._used = +self._used
            self._cache.discard_idle(self._used)

    def _open(self, wanted: WeightedRef, held: ExitStack) -> ResolvedRefs:
        ref = wanted.ref
        key = str(replace(ref, weight=1.0))
        # Many requests for one adapter that is not there yet fetch it once.
        with self._opening.setdefault(key, threading.Lock()):
            _, asked = self._asked.get(key, (ref, -math.inf))
            if time.monotonic() - asked < self._recheck:
                with self._cache.lock:
                    cached = self._cache.find(ref)
                    if cached is not None:
                        self._hold([cached], held)
                        one = replace(cached.loaded, asked=ref, weight=wanted.weight)
                        return ResolvedRefs((one,))
            try:
                with public_addresses_only():
                    found = load_adapters([wanted])
            except BaseException:
                self._opening.pop(key, None)
                raise
            self._remember(key, ref)
            return found

    def _remember(self, key: str, ref: AdapterRef) -> None:
        """Note that the commit of a ref is known now; the oldest of very many are forgotten."""
        with self._cache.lock:
            self._asked[key] = ref, time.monotonic()
            self._asked.move_to_end(key)
            while len(self._asked) > _MOST_REFS:
                name, (oldest, _) = self._asked.popitem(last=False)
                self._cache.forget(oldest)
                self._opening.pop(name, None)


def activate_text_encoders(cache: AdapterCache, adapters: RequestAdapters) -> None:
    """Give the pipeline's text encoders the adapters of a request, and no others.

    The caller holds the cache's lock.
    """
    wanted = {name for one in adapters.cached for name in one.fitted.packed if reads_text(name)}
    for name in wanted | {one for one in cache.manager.components if reads_text(one)}:
        component, active = cache.manager.component(name), adapters.of_component(name)
        component.reserve([packed for packed, _ in active])
        component.activate(active)
