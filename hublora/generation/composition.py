"""Base and adapters of a pipeline, and their licences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hublora._version import __version__
from hublora.adapter_weights import CompositionMode
from hublora.adapters.licenses import LicenseSummary
from hublora.errors import ConfigError
from hublora.families.speed import SpeedSettings
from hublora.generation.lora.schedule import AdapterSchedule
from hublora.generation.prompt_placeholders import AdapterTriggers, Expanded, TriggerMode, expand
from hublora.generation.speed import speed_adapters
from hublora.hub.resolve import license_of
from hublora.progress import Callback, Note
from hublora.resolution.base import Base
from hublora.resolution.composition_parts import LoadedAdapter, ResolvedRefs

if TYPE_CHECKING:
    from hublora.generation.lora.cache import AdapterCache, CachedAdapter
    from hublora.memory.quantization import Quantization
    from hublora.resolution.lockfile import Lockfile


@dataclass(frozen=True, repr=False)
class Composition:
    """Base and adapters of a pipeline; `hublora.load` leaves it in `pipe.hublora`.

    Attributes:
        base: The base at its commit.
        adapters: The active adapters, in order; their weights are in the pipeline.
        triggers: Trigger words and learned tokens of each of them.
        dtype: Torch name of the weights' type, e.g. "float32".
        mode: How the adapters are combined: sum, switch or composite.
        adapter_cache: All adapters in memory; None where nothing was loaded.
        lock: Lockfile, if a single composition was loaded; else None.
        name: The composition's pinned ref.
        device: Torch device of the pipeline.
        scheduler: Class name of the base's own scheduler.
        base_scheduler: The base's own scheduler; None where nothing was loaded.
        quantize: Kind in which the base is quantised; None if it is not.
    """

    base: Base
    adapters: tuple[LoadedAdapter, ...]
    triggers: tuple[AdapterTriggers, ...]
    dtype: str
    mode: CompositionMode = "sum"
    adapter_cache: AdapterCache | None = None
    lock: Lockfile | None = None
    name: str | None = None
    device: str = "cpu"
    scheduler: str | None = None
    base_scheduler: Any = None
    quantize: Quantization | None = None

    def __repr__(self) -> str:
        parts = ", ".join(f"{part.label}:{part.weight}" for part in self.adapters) or "no adapter"
        mode = f", {self.mode}" if len(self.adapters) > 1 else ""
        return f"<hublora: {self.base.label} with {parts}{mode}>"

    @property
    def adapter_schedule(self) -> AdapterSchedule | None:
        """Schedule of the adapters; None where nothing was loaded."""
        return self.adapter_cache.adapter_schedule if self.adapter_cache else None

    @property
    def speed(self) -> SpeedSettings | None:
        """How images are sampled with the first active adapter that was trained for few steps; None
        without one."""
        fast = speed_adapters(self.adapters)
        return fast[0].adapter.facts.speed if fast else None

    @property
    def licenses(self) -> LicenseSummary:
        """Licences of base and adapters."""
        return license_summary(self.base, self.adapters)

    def prompt(self, text: str, trigger: TriggerMode = "auto") -> str:
        """Return `text` as the pipeline is to be given it: in the composition's template, `<1>`,
        `<2>`, … and learned tokens replaced, missing trigger words in front.

        Raises:
            ConfigError: A placeholder stands for nothing.
        """
        return self.expand(self.lock.fill(text) if self.lock else text, trigger).text

    def expand(self, text: str, trigger: TriggerMode = "auto") -> Expanded:
        """Return the expanded prompt and the trigger words that were added."""
        return expand(text, self.triggers, trigger)

    def with_adapters(
        self, found: ResolvedRefs, cached: Sequence[CachedAdapter], mode: CompositionMode
    ) -> Composition:
        """Return the composition with other adapters in place of its own.

        Args:
            found: Refs and weights of the adapters, in order.
            cached: The adapters in memory, in the same order as in `found.adapters`.
            mode: "sum", "switch" or "composite".
        """
        weights = [adapter.weight for adapter in found.adapters]
        return replace(
            self,
            adapters=tuple(
                replace(one.loaded, asked=adapter.asked, weight=adapter.weight)
                for one, adapter in zip(cached, found.adapters, strict=True)
            ),
            triggers=tuple(
                replace(one.triggers, automatic=weight.positive)
                for one, weight in zip(cached, weights, strict=True)
            ),
            mode=mode,
            lock=found.lock,
            name=found.composition,
        )

    def facts(self) -> dict[str, Any]:
        """Return its facts for an image's metadata."""
        return {
            "hublora": __version__,
            "base": self.base.name,
            "base_revision": self.base.commit,
            **self._single_file(),
            "dtype": self.dtype,
            **({"quantize": self.quantize} if self.quantize else {}),
            "device": self.device.partition(":")[0],
            "compose": self.mode,
            "adapters": [part.facts() for part in self.adapters],
            "license": self.licenses.facts(),
            **({"composition": self.name} if self.name else {}),
        }

    def _single_file(self) -> dict[str, str]:
        base = self.base
        stated = {"base_sha256": base.sha256, "base_components": base.published_components}
        return {key: value for key, value in stated.items() if value is not None}

    @property
    def on_step_end(self) -> Any:
        """No callback: adapters that switch, and weights that move, follow the steps by themselves.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "Adapters that switch, and weights that move, follow the steps by themselves.",
            "Leave callback_on_step_end=pipe.hublora.on_step_end out.",
        )


def license_summary(base: Base, parts: Sequence[LoadedAdapter]) -> LicenseSummary:
    """Return the licences of a base and of adapters."""
    of_base = license_of(base.card)
    found = {base.name: of_base}
    for part in parts:
        found |= part.licenses(of_base)
    return LicenseSummary(found)


def check_licenses(
    base: Base, parts: Sequence[LoadedAdapter], commercial: bool, callback: Callback
) -> None:
    """Report the licences, and refuse commercial use where one of them forbids it.

    Raises:
        ConfigError: One does.
    """
    summary = license_summary(base, parts)
    if commercial and summary.forbidding:
        raise ConfigError(
            f"The licence of {', '.join(summary.forbidding)} forbids commercial use.",
            "Leave --commercial out for other use, or choose another adapter.",
        )
    callback(Note(str(summary), warning=commercial and bool(summary.unknown)))
