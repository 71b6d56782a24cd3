"""Flow matching: noise levels, their densities and shifts, and the velocity that is predicted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from hublora.errors import AdapterError, ConfigError
from hublora.families.parameterization import UNIFORM, LevelDensity, broadcast

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DynamicShift:
    """Shift by resolution: μ is linear in the number of tokens, and the factor is e^μ.

    Attributes:
        tokens: Numbers of tokens at which μ is stated, the smaller first.
        mu: μ at each of them.
        patch: Latents on a side of a token.
    """

    tokens: tuple[int, int]
    mu: tuple[float, float]
    patch: int

    def factor(self, shape: tuple[int, ...]) -> float:
        """Return e^μ for latents of the shape (c, h, w)."""
        (few, many), (low, high) = self.tokens, self.mu
        count = shape[-2] * shape[-1] / self.patch**2
        return math.exp(low + (count - few) * (high - low) / (many - few))


@dataclass(frozen=True)
class Flow:
    """Velocity of flow matching along straight paths (https://huggingface.co/papers/2403.03206,
    section 2).

    Attributes:
        sigmas: [T], float32, decreasing in (0, 1]: the noise levels of the base's own scheduler,
            its static shift included.
        density: How often each of them is trained.
        dynamic: Shift by resolution that the scheduler states; None where it states none.
    """

    name: ClassVar[str] = "flow_matching"
    modelspec: ClassVar[str | None] = None

    sigmas: torch.Tensor
    density: LevelDensity = UNIFORM
    dynamic: DynamicShift | None = None

    @classmethod
    def of_scheduler(cls, scheduler: Any, patch: int = 2) -> Flow:
        """Return the noise levels of a `FlowMatchEulerDiscreteScheduler`.

        They are read from a fresh copy, because a pipeline's call overwrites its scheduler's.

        Args:
            scheduler: The scheduler.
            patch: Latents on a side of a token.

        Raises:
            AdapterError: Its settings make no noise levels.
        """
        config = scheduler.config
        fresh = type(scheduler).from_config(config)
        sigmas = fresh.sigmas[: config.num_train_timesteps].float()
        if not (len(sigmas) and (sigmas.diff() < 0).all() and 0 < sigmas[-1] <= sigmas[0] <= 1):
            raise AdapterError(
                "The noise levels of the base model's scheduler do not decrease from 1 to 0.",
                "Its scheduler_config.json is damaged: download it again.",
            )
        dynamic = None
        if config.use_dynamic_shifting:
            if config.base_image_seq_len == config.max_image_seq_len:
                raise AdapterError(
                    "The base model's scheduler states its shift for one size of images twice "
                    f"({config.max_image_seq_len} tokens).",
                    "Its scheduler_config.json is damaged: download it again.",
                )
            tokens = (config.base_image_seq_len, config.max_image_seq_len)
            dynamic = DynamicShift(tokens, (config.base_shift, config.max_shift), patch)
        return cls(sigmas, dynamic=dynamic)

    def to(self, device: torch.device) -> Flow:
        return replace(self, sigmas=self.sigmas.to(device))

    def with_density(self, density: LevelDensity) -> Flow:
        if density.shift == "resolution" and self.dynamic is None:
            raise ConfigError(
                "The scheduler of this base model states no shift by resolution, which "
                'objective.shift "resolution" requires.',
                "Give objective.shift as a number, or leave it out.",
            )
        return replace(self, density=density)

    def levels(self, uniforms: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        shares = _densities[self.density.kind](uniforms, self.density)
        last = len(self.sigmas) - 1
        indices = (shares * len(self.sigmas)).long().clamp(0, last)
        levels = self.sigmas[indices.to(self.sigmas.device)]
        shift = self.density.shift
        if shift == "resolution":
            assert self.dynamic is not None, "with_density refuses it"
            shift = self.dynamic.factor(shape)
        return levels if shift == 1 else shift * levels / (1 + (shift - 1) * levels)

    def mix(self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """Return (1−s)·x + s·e."""
        level = broadcast(levels, clean)
        return (1 - level) * clean + level * noise

    def target(
        self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor
    ) -> torch.Tensor:
        """Return e − x, which is the derivative of `mix` by the level."""
        return noise - clean

    def check_weighting(self, snr_gamma: float | None, debiased: bool) -> None:
        for name, used in (("snr_gamma", snr_gamma is not None), ("debiased", debiased)):
            if used:
                raise ConfigError(
                    f"objective.{name} is not defined for a flow-matching base model; it requires "
                    "one that predicts epsilon or v.",
                    f"Leave objective.{name} out.",
                )

    def weight(
        self, levels: torch.Tensor, snr_gamma: float | None = None, debiased: bool = False
    ) -> torch.Tensor | None:
        self.check_weighting(snr_gamma, debiased)
        return None

    def share(self, levels: torch.Tensor) -> torch.Tensor:
        return levels.float()


def _uniform(uniforms: torch.Tensor, density: LevelDensity) -> torch.Tensor:
    return uniforms


def _logit_normal(uniforms: torch.Tensor, density: LevelDensity) -> torch.Tensor:
    """Return sigmoid(mean + std · Φ⁻¹(u))."""
    import torch

    return torch.sigmoid(density.mean + density.std * torch.special.ndtri(uniforms))


def _mode(uniforms: torch.Tensor, density: LevelDensity) -> torch.Tensor:
    """Return 1 − u − m·(cos²(πu/2) − 1 + u) with the m of diffusers' scripts."""
    return 1 - uniforms - _MODE_SCALE * ((math.pi * uniforms / 2).cos().square() - 1 + uniforms)


_MODE_SCALE = 1.29
_densities: Mapping[str, Callable[[torch.Tensor, LevelDensity], torch.Tensor]] = {
    "uniform": _uniform,
    "logit_normal": _logit_normal,
    "mode": _mode,
}
