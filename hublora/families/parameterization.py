"""How a base model was trained to undo noise: one class for each prediction.

    class     noisy                 target          weight of the squared error
    Epsilon   √a·x + √(1−a)·e       e               1, min-SNR or debiased
    Velocity  √a·x + √(1−a)·e       √a·e − √(1−a)·x 1, min-SNR or debiased
    Flow      (1−s)·x + s·e         e − x           1

x are clean latents and e is standard normal noise, each [B, …]; a = alphas_cumprod[t] is the share
of signal variance left at timestep t; s in (0, 1] is the noise level of flow matching. `levels` are
[B]: integer timesteps t for the first two, s for the third.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from hublora.errors import AdapterError, ConfigError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LevelDensity:
    """How often each noise level of flow matching is trained.

    Attributes:
        kind: "uniform", "logit_normal" or "mode" (https://huggingface.co/papers/2403.03206, section
            3.1).
        mean: Mean of the logit of 1 − s, for "logit_normal"; above 0 there is less noise.
        std: Standard deviation of that logit, above 0.
        shift: Factor α of s' = α·s / (1 + (α−1)·s), above 0; "resolution" takes the scheduler's own
            for the size of the latents.
    """

    kind: Literal["uniform", "logit_normal", "mode"] = "uniform"
    mean: float = 0.0
    std: float = 1.0
    shift: float | Literal["resolution"] = 1.0


UNIFORM = LevelDensity()


class Parameterization(Protocol):
    """Noise, training target and loss weight of a base model.

    Attributes:
        name: "epsilon", "v_prediction" or "flow_matching", as cards state it.
        modelspec: Value of `modelspec.prediction_type`; None where the standard has none.
    """

    name: ClassVar[str]
    modelspec: ClassVar[str | None]

    def to(self, device: torch.device) -> Parameterization:
        """Return the same parameterization with its tensors on `device`."""
        ...

    def with_density(self, density: LevelDensity) -> Parameterization:
        """Return the same parameterization with another density of noise levels.

        Raises:
            ConfigError: The density is not the default one, and the noise is not flow matching's,
                or states no shift by resolution.
        """
        ...

    def levels(self, uniforms: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """Return the noise level of each sample, [B].

        Args:
            uniforms: [B] in [0, 1), float64.
            shape: (c, h, w) of the latents, for schedules that depend on the resolution.
        """
        ...

    def mix(self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """Return the noisy latents, [B, …]."""
        ...

    def target(
        self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor
    ) -> torch.Tensor:
        """Return what the denoiser is to predict, [B, …]."""
        ...

    def check_weighting(self, snr_gamma: float | None, debiased: bool) -> None:
        """Refuse a weighting that is not defined for this prediction.

        Raises:
            ConfigError: `objective.snr_gamma` or `objective.debiased` cannot be used.
        """
        ...

    def weight(
        self, levels: torch.Tensor, snr_gamma: float | None = None, debiased: bool = False
    ) -> torch.Tensor | None:
        """Return the weight of each sample's squared error, [B] in [0, ∞); None is 1 for all.

        Args:
            levels: [B].
            snr_gamma: γ of min-SNR weighting, above 0; None turns it off.
            debiased: Whether the weights are those of debiased estimation.
        """
        ...

    def share(self, levels: torch.Tensor) -> torch.Tensor:
        """Return where the levels lie between no noise, 0, and pure noise, 1: [B], float32."""
        ...


class _Discrete(ABC):
    """Noise of DDPM, https://huggingface.co/papers/2006.11239.

    Attributes:
        alphas_cumprod: [T], decreasing in [0, 1]: signal variance left at each timestep.
    """

    name: ClassVar[str]

    def __init__(self, alphas_cumprod: torch.Tensor) -> None:
        self.alphas_cumprod = alphas_cumprod

    def to(self, device: torch.device) -> Any:
        return type(self)(self.alphas_cumprod.to(device))

    def with_density(self, density: LevelDensity) -> Any:
        if density != UNIFORM:
            raise ConfigError(
                "objective.density, logit_mean, logit_std and shift require a flow-matching base "
                f"model; this one predicts {self.name}.",
                "Leave them out.",
            )
        return self

    def levels(self, uniforms: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        return (uniforms * len(self.alphas_cumprod)).long()

    def mix(self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """Return √a·x + √(1−a)·e (DDPM, eq. 4)."""
        signal, spread = self._mixture(levels, clean)
        return signal * clean + spread * noise

    def check_weighting(  # noqa: B027  (nothing to refuse: every weighting is defined)
        self, snr_gamma: float | None, debiased: bool
    ) -> None:
        """Every weighting is defined."""

    def weight(
        self, levels: torch.Tensor, snr_gamma: float | None = None, debiased: bool = False
    ) -> torch.Tensor | None:
        if snr_gamma is not None:
            return self.min_snr_weight(levels, snr_gamma)
        return self.debiased_weight(levels) if debiased else None

    def share(self, levels: torch.Tensor) -> torch.Tensor:
        return levels.float() / len(self.alphas_cumprod)

    def signal_to_noise(self, levels: torch.Tensor) -> torch.Tensor:
        """Return SNR = a / (1−a), [B], in [0, ∞)."""
        alphas = self.alphas_cumprod[levels]
        return alphas / (1 - alphas)

    @abstractmethod
    def min_snr_weight(self, levels: torch.Tensor, gamma: float) -> torch.Tensor:
        """Return the Min-SNR-γ weights, [B], in [0, 1]: the weight min(SNR, γ) of the x-prediction
        (https://huggingface.co/papers/2303.09556, section 3.4) carried over to the target."""

    @abstractmethod
    def debiased_weight(self, levels: torch.Tensor) -> torch.Tensor:
        """Return the weights of debiased estimation, [B], in [0, ∞): √SNR on the error of the
        x-prediction (https://huggingface.co/papers/2310.08442, section 3.3), carried over."""

    def _mixture(
        self, levels: torch.Tensor, like: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        alphas = broadcast(self.alphas_cumprod[levels], like)
        return alphas.sqrt(), (1 - alphas).sqrt()


class Epsilon(_Discrete):
    """Prediction of the noise (DDPM, eq. 14)."""

    name: ClassVar[str] = "epsilon"
    modelspec: ClassVar[str | None] = "epsilon"

    def target(
        self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor
    ) -> torch.Tensor:
        return noise

    def min_snr_weight(self, levels: torch.Tensor, gamma: float) -> torch.Tensor:
        """Return min(SNR, γ)/SNR, [B], in (0, 1]; at zero terminal SNR it tends to 1."""
        snr = self.signal_to_noise(levels)
        return (snr.clamp(max=gamma) / snr.clamp(min=1e-20)).where(snr > 0, 1.0)

    def debiased_weight(self, levels: torch.Tensor) -> torch.Tensor:
        """Return 1/√SNR, [B]; 0 at zero terminal SNR, where the noise is the input itself."""
        snr = self.signal_to_noise(levels)
        return snr.clamp(min=1e-20).rsqrt().where(snr > 0, 0.0)


class Velocity(_Discrete):
    """Prediction of the velocity (https://huggingface.co/papers/2202.00512, appendix D)."""

    name: ClassVar[str] = "v_prediction"
    modelspec: ClassVar[str | None] = "v"

    def target(
        self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor
    ) -> torch.Tensor:
        """Return √a·e − √(1−a)·x."""
        signal, spread = self._mixture(levels, clean)
        return signal * noise - spread * clean

    def min_snr_weight(self, levels: torch.Tensor, gamma: float) -> torch.Tensor:
        """Return min(SNR, γ)/(SNR+1), [B], in [0, 1)."""
        snr = self.signal_to_noise(levels)
        return snr.clamp(max=gamma) / (snr + 1)

    def debiased_weight(self, levels: torch.Tensor) -> torch.Tensor:
        """Return √SNR/(SNR+1), [B]."""
        snr = self.signal_to_noise(levels)
        return snr.sqrt() / (snr + 1)


_DISCRETE: dict[str, type[Epsilon] | type[Velocity]] = {
    "epsilon": Epsilon,
    "v_prediction": Velocity,
}


def discrete_kind(scheduler: Any) -> type[Epsilon] | type[Velocity]:
    """Return the class that the config of a DDPM-like scheduler names.

    Raises:
        AdapterError: The prediction, or the noise itself, is another one.
    """
    prediction = getattr(scheduler.config, "prediction_type", None)
    if prediction not in _DISCRETE:
        raise AdapterError(
            f"The base model's scheduler states prediction_type {prediction!r}; "
            f"{' and '.join(_DISCRETE)} can be trained."
        )
    return _DISCRETE[prediction]


def discrete_of_scheduler(scheduler: Any) -> Epsilon | Velocity:
    """Return the parameterization that a pipeline's DDPM-like scheduler reverses.

    Raises:
        AdapterError: The prediction, or the noise itself, is another one.
    """
    from diffusers import DDPMScheduler

    kind = discrete_kind(scheduler)
    if "beta_schedule" not in scheduler.config:
        raise AdapterError(
            f"The noise levels of {type(scheduler).__name__} are not those of DDPM; the base model "
            "cannot be trained.",
            "Choose a base model whose scheduler states a beta_schedule.",
        )
    return kind(DDPMScheduler.from_config(scheduler.config).alphas_cumprod)


def broadcast(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return [B] values as [B, 1, …], to be multiplied with [B, …]."""
    return values.view(-1, *[1] * (like.ndim - 1))
