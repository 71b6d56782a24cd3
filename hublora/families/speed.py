"""Adapters that let a base model generate in a few steps, and how they are sampled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeGuard

from hublora.errors import ConfigError

MOST_STEPS = 100


@dataclass(frozen=True)
class SpeedSettings:
    """How images are sampled with an adapter that was trained for few steps.

    Attributes:
        num_inference_steps: Denoising steps, from 1 to 100.
        guidance_scale: Guidance, as the family's pipeline counts it, at least 0.
        scheduler: Scheduler as in diffusers or AUTOMATIC1111; None is the base's own.
        timestep_spacing: "leading", "linspace" or "trailing"; None is the scheduler's own.
        shift: Shift of the noise levels of flow matching, at any size of images, above 0; None is
            the scheduler's own.
        weight: Weight that the adapter was trained for.
    """

    num_inference_steps: int
    guidance_scale: float
    scheduler: str | None = None
    timestep_spacing: str | None = None
    shift: float | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.num_inference_steps <= MOST_STEPS or not 0 <= self.guidance_scale <= 100:
            raise ConfigError(
                f"A speed adapter has 1 to {MOST_STEPS} steps and guidance from 0 to 100, got "
                f"{self.num_inference_steps} and {self.guidance_scale:g}."
            )

    def __str__(self) -> str:
        steps = self.num_inference_steps
        said = [f"{steps} step" if steps == 1 else f"{steps} steps"]
        said += [f"guidance {self.guidance_scale:g}"]
        if self.scheduler or self.timestep_spacing:
            named = f"the scheduler {self.scheduler}" if self.scheduler else "the base's scheduler"
            spacing = f" with {self.timestep_spacing} timesteps" if self.timestep_spacing else ""
            said.append(named + spacing)
        if self.shift is not None:
            said.append(f"shift {self.shift:g}")
        return f"{', '.join(said[:-1])} and {said[-1]}"

    def sampling(self) -> dict[str, Any]:
        """Return the settings as fields of a sampling plan, without those that are None."""
        stated = {field.name: getattr(self, field.name) for field in fields(self)}
        del stated["weight"]
        return {name: value for name, value in stated.items() if value is not None}


@dataclass(frozen=True)
class SpeedAdapter:
    """Published adapters of one kind.

    Attributes:
        pattern: Regular expression that the repo id and file name of such an adapter contain, in
            lower case; a group `steps` is the number of steps.
        settings: How images are sampled with them; a number of steps in the name replaces its own.
        tag: Tag on the Hub, in lower case, that adapters of this kind have; None without one.
    """

    pattern: str
    settings: SpeedSettings
    tag: str | None = None

    def match(self, name: str) -> SpeedSettings | None:
        """Return the settings of an adapter of this name, None if it is of another kind."""
        found = re.search(self.pattern, name.lower())
        if found is None:
            return None
        steps = found.groupdict().get("steps")
        if not steps or not 1 <= int(steps) <= MOST_STEPS:
            return self.settings
        return SpeedSettings(**{**vars(self.settings), "num_inference_steps": int(steps)})


def find_speed(
    known: Sequence[SpeedAdapter], names: Iterable[str], tags: Iterable[str] = ()
) -> SpeedSettings | None:
    """Return the settings of an adapter by its names, else by its tags; None if it is no known one.

    Args:
        known: The family's published ones.
        names: Repo id with file, file name and title.
        tags: Tags of its card.
    """
    for name in names:
        if found := next((one for kind in known if (one := kind.match(name))), None):
            return found
    stated = {tag.lower() for tag in tags}
    return next((kind.settings for kind in known if kind.tag in stated), None)


def parse_speed(stated: Mapping[str, Any]) -> SpeedSettings | None:
    """Return settings that a file's metadata states, None if they are none; anybody may have
    written them."""
    steps, guidance = stated.get("num_inference_steps"), stated.get("guidance_scale")
    if type(steps) is not int or not _is_number(guidance):
        return None
    texts: dict[str, Any] = {name: stated.get(name) for name in ("scheduler", "timestep_spacing")}
    numbers: dict[str, Any] = {"shift": stated.get("shift"), "weight": stated.get("weight", 1.0)}
    if not all(text is None or isinstance(text, str) for text in texts.values()):
        return None
    if not all(number is None or _is_number(number) for number in numbers.values()):
        return None
    try:
        return SpeedSettings(steps, guidance, **texts, **numbers)
    except (ConfigError, TypeError):
        return None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
