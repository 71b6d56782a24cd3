"""Adapters that one pipeline holds in memory: the active ones, and those used before them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hublora.adapter_weights import CompositionMode, Weight
from hublora.errors import HubloraError
from hublora.generation.lora.schedule import AdapterSchedule
from hublora.generation.prompt_placeholders import AdapterTriggers
from hublora.refs import AdapterRef
from hublora.resolution.adapter import local_file
from hublora.resolution.base import Base
from hublora.resolution.base_contents import remembered_sha256
from hublora.resolution.composition_parts import LoadedAdapter

if TYPE_CHECKING:
    from hublora.generation.lora.manager import FittedAdapter

DEFAULT_LIMIT = 4 << 30  # bytes


@dataclass(frozen=True, eq=False)
class CachedAdapter:
    """An adapter in memory.

    Attributes:
        loaded: Refs and facts of the adapter, without weights.
        triggers: Trigger words and placeholder tokens.
        fitted: Weights under the base's layer names.
    """

    loaded: LoadedAdapter
    triggers: AdapterTriggers
    fitted: FittedAdapter


class AdapterCache:
    """Adapters in memory up to a limit; the least recently used are discarded first.

    Args:
        pipe: A diffusers pipeline without adapters.
        base: The base that it was loaded from.
        limit: Bytes; active adapters stay, even if they need more.
        max_rank: Rank of every layer's buffers, at least (`hublora.generation.lora.component`).

    Attributes:
        manager: Fits adapters to the pipeline.
        adapter_schedule: Activates the adapters.
        lock: Held while the pipeline's adapters change, and by `hublora.using` until its end.
    """

    def __init__(
        self, pipe: Any, base: Base, limit: int = DEFAULT_LIMIT, max_rank: int = 0
    ) -> None:
        from hublora.generation.lora.manager import LoraManager

        self._pipe, self._base, self._limit = pipe, base, limit
        self.lock = threading.RLock()
        self.manager = LoraManager(pipe, max_rank)
        self.adapter_schedule = AdapterSchedule(self.manager, getattr(pipe, base.family.denoiser))
        self._cached: OrderedDict[str, CachedAdapter] = OrderedDict()
        self._pinned: dict[str, tuple[AdapterRef, str]] = {}
        self._tokens: dict[str, dict[str, tuple[str, ...]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, lock=threading.RLock())  # a copy is another pipeline

    @property
    def nbytes(self) -> int:
        """Bytes that the adapters take."""
        return sum(one.fitted.nbytes for one in self._cached.values())

    @property
    def names(self) -> list[str]:
        """Titles of the adapters in memory, the least recently used first."""
        return [one.loaded.title for one in self.adapters]

    @property
    def adapters(self) -> list[CachedAdapter]:
        """The adapters in memory, the least recently used first."""
        return list(self._cached.values())

    def remember(self, ref: AdapterRef, loaded: LoadedAdapter) -> None:
        """Pin a ref to the commit that it was loaded at, as long as the pipeline lives."""
        if ref.kind != "local":  # a file may change
            self._pinned[_unweighted(ref)] = (loaded.ref, _key(loaded))

    def forget(self, ref: AdapterRef) -> None:
        """Let a ref be resolved anew; the adapter stays in memory."""
        self._pinned.pop(_unweighted(ref), None)

    def pinned(self, ref: AdapterRef) -> AdapterRef:
        """Return a ref at the commit that it was loaded at before, itself if it was not."""
        found, _ = self._pinned.get(_unweighted(ref), (ref, ""))
        return replace(found, weight=ref.weight)

    def find(self, ref: AdapterRef) -> CachedAdapter | None:
        """Return the adapter of a ref, None if it is not in memory or its file has changed."""
        if ref.kind == "local":
            return self._cached.get(_local_key(ref))
        _, key = self._pinned.get(_unweighted(ref), (ref, ""))
        return self._cached.get(key)

    def add(self, adapters: Sequence[LoadedAdapter]) -> list[CachedAdapter]:
        """Return loaded adapters as cached ones, fitting those that are not in memory.

        Raises:
            AdapterError: One of them does not fit the base; nothing has changed.
        """
        missing = {_key(one): one for one in adapters if _key(one) not in self._cached}
        fitted = {
            key: self.manager.fit(one.adapter, one.label, self._base.name)
            for key, one in missing.items()
        }
        for key, one in missing.items():
            bare = replace(one, adapter=replace(one.adapter, layers={}))
            self._cached[key] = CachedAdapter(bare, self._add_triggers(one), fitted[key])
        for one in adapters:
            self._cached.move_to_end(_key(one))
        return [self._cached[_key(one)] for one in adapters]

    def activate(
        self, adapters: Sequence[CachedAdapter], weights: Sequence[Weight], mode: CompositionMode
    ) -> None:
        """Activate adapters, and discard others until the limit holds.

        Raises:
            ConfigError: A weight names a block that its adapter has no layers in.
        """
        self.adapter_schedule.activate([one.fitted for one in adapters], weights, mode)
        self.discard_idle(adapters)

    def _add_triggers(self, loaded: LoadedAdapter) -> AdapterTriggers:
        """Add the adapter's learned tokens to the pipeline; return its triggers."""
        key = _key(loaded)
        if loaded.tokens and key not in self._tokens:
            from hublora.generation.token_embeddings import add_tokens

            self._tokens[key] = add_tokens(self._pipe, loaded.tokens, loaded.label)
        trigger_words = loaded.adapter.facts.trigger_words
        return AdapterTriggers(loaded.label, trigger_words, self._tokens.get(key, {}))

    def discard_idle(self, active: Iterable[CachedAdapter]) -> None:
        """Discard the adapters that were not used for longest, but for `active` ones, until the
        limit holds."""
        used = {_key(one.loaded) for one in active}
        for key in [key for key in self._cached if key not in used]:
            if self.nbytes <= self._limit:
                return
            del self._cached[key]


def _key(loaded: LoadedAdapter) -> str:
    return f"{_unweighted(loaded.ref)} {loaded.adapter.facts.sha256}"


def _local_key(ref: AdapterRef) -> str:
    """Return the `_key` of a local adapter as it is on disk, "" if there is none."""
    try:
        return f"{_unweighted(ref)} {remembered_sha256(local_file(ref))}"
    except (OSError, HubloraError):
        return ""  # loading it says what is wrong


def _unweighted(ref: AdapterRef) -> str:
    return str(replace(ref, weight=1.0))
