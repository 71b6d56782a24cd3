"""The adapters that one pipeline has in memory: those that act, and those that acted lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hublora.generation.lora.schedule import AdapterSchedule
from hublora.generation.prompt_placeholders import Concept
from hublora.refs import AdapterRef
from hublora.resolution.base import Base
from hublora.resolution.composition_parts import LoadedAdapter
from hublora.weights import CompositionMode, Weight

if TYPE_CHECKING:
    from hublora.generation.lora.manager import FittedAdapter

DEFAULT_LIMIT = 4 << 30  # bytes


@dataclass(frozen=True, eq=False)
class CachedAdapter:
    """An adapter in memory.

    Attributes:
        part: What is known of it; its weights are in `prepared` alone.
        concept: What it is called by in a prompt.
        prepared: Its weights, as the base takes them.
    """

    part: LoadedAdapter
    concept: Concept
    prepared: FittedAdapter


class AdapterCache:
    """Keeps adapters in memory up to a limit; those that were used longest ago leave first.

    Args:
        pipe: A diffusers pipeline without adapters.
        base: What it is.
        limit: Bytes; adapters that act stay, even if they need more.
        room: Ranks that each layer keeps room for (`hublora.generation.lora.component`).
    """

    def __init__(self, pipe: Any, base: Base, limit: int = DEFAULT_LIMIT, room: int = 0) -> None:
        from hublora.generation.lora.manager import LoraManager

        self._pipe, self._base, self._limit = pipe, base, limit
        self._bank = LoraManager(pipe, room)
        self.adapter_schedule = AdapterSchedule(self._bank, getattr(pipe, base.family.denoiser))
        self._there: OrderedDict[str, CachedAdapter] = OrderedDict()
        self._known: dict[str, tuple[AdapterRef, str]] = {}
        self._taught: dict[str, dict[str, tuple[str, ...]]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes that the adapters take."""
        return sum(one.prepared.nbytes for one in self._there.values())

    @property
    def names(self) -> list[str]:
        """What is in memory, the longest unused first."""
        return [one.part.title for one in self._there.values()]

    def remember(self, ref: AdapterRef, part: LoadedAdapter) -> None:
        """Let a ref stand for the same commit as long as the pipeline lives."""
        if ref.kind != "local":  # a file may change
            self._known[_unweighted(ref)] = (part.ref, _key(part))

    def pinned(self, ref: AdapterRef) -> AdapterRef:
        """Return a ref as this pipeline has had it before, itself if it has not."""
        known, _ = self._known.get(_unweighted(ref), (ref, ""))
        return replace(known, weight=ref.weight)

    def find(self, ref: AdapterRef) -> CachedAdapter | None:
        """Return an adapter that is in memory, None if it is not."""
        _, key = self._known.get(_unweighted(ref), (ref, ""))
        return self._there.get(key)

    def take(self, parts: Sequence[LoadedAdapter]) -> list[CachedAdapter]:
        """Bring adapters into memory that are not there yet.

        Raises:
            AdapterError: One of them does not fit the base; nothing has changed.
        """
        missing = {_key(part): part for part in parts if _key(part) not in self._there}
        prepared = {
            key: self._bank.prepare(part.adapter, part.label, self._base.name)
            for key, part in missing.items()
        }
        for key, part in missing.items():
            self._put(part, prepared[key])
        return [self._there[_key(part)] for part in parts]

    def play(
        self, acting: Sequence[CachedAdapter], weights: Sequence[Weight], way: CompositionMode
    ) -> None:
        """Let adapters act, and let go of what is over the limit.

        Raises:
            ConfigError: A weight names a block that its adapter has no layers in.
        """
        self.adapter_schedule.play([one.prepared for one in acting], weights, way)
        for one in acting:
            self._there.move_to_end(_key(one.part))
        self._let_go({_key(one.part) for one in acting})

    def _put(self, part: LoadedAdapter, prepared: FittedAdapter) -> None:
        bare = replace(part, adapter=replace(part.adapter, layers={}))
        self._there[_key(part)] = CachedAdapter(bare, self._concept(part), prepared)

    def _concept(self, part: LoadedAdapter) -> Concept:
        """Put the adapter's learned tokens on the pipeline; return what it is called by."""
        key = _key(part)
        if part.tokens and key not in self._taught:
            from hublora.generation.token_embeddings import add_tokens

            self._taught[key] = add_tokens(self._pipe, part.tokens, part.label)
        triggers = part.adapter.facts.trigger_words
        return Concept(part.label, triggers, self._taught.get(key, {}))

    def _let_go(self, acting: Iterable[str]) -> None:
        idle = [name for name in self._there if name not in set(acting)]
        for name in idle:
            if self.nbytes <= self._limit:
                return
            del self._there[name]


def _key(part: LoadedAdapter) -> str:
    return f"{_unweighted(part.ref)} {part.adapter.facts.sha256}"


def _unweighted(ref: AdapterRef) -> str:
    return str(replace(ref, weight=1.0))
