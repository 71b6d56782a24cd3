"""An adapter in memory, whatever file it came from: low-rank updates of layers, and facts.

An adapter adds `scale · up @ down` to the weight of each layer it targets, with
`scale = alpha / rank` (LoRA, https://huggingface.co/papers/2106.09685, section 4.1). With a
magnitude, each row of the sum is then scaled to that norm (DoRA,
https://huggingface.co/papers/2402.09353, equation 5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hublora.adapters.layer_names import WRAPPER
from hublora.families.speed import SpeedSettings

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LowRank:
    """The low-rank update of one layer.

    Attributes:
        down: [rank, in] or, for a convolution, [rank, in, kh, kw]  (PEFT's lora_A).
        up: [out, rank] or [out, rank, 1, 1]  (PEFT's lora_B).
        alpha: Numerator of the scale; at alpha == rank the scale is 1.
        magnitude: [out], norms of the rows of the adapted weight (DoRA); None for LoRA.
        error: Frobenius norm of the approximation error relative to that of the file's update; 0
            unless a LoHa or LoKr was converted to low rank.
    """

    down: torch.Tensor
    up: torch.Tensor
    alpha: float
    magnitude: torch.Tensor | None = None
    error: float = 0.0

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


@dataclass(frozen=True)
class AdapterFacts:
    """Facts about an adapter; any of them may be unknown (None or empty).

    Attributes:
        base_model: Hub id of the base it was trained on.
        base_revision: Commit of that base.
        base_sha256: SHA-256 of that base where it is a single file, hexadecimal.
        base_components: Pipeline, as owner/name@commit, that has what a single file lacks.
        generation_base: Hub id of the base, with the same layers, that its images are generated
            with where it is another one.
        generation_revision: Commit of that one.
        family: Name in the families registry.
        components: Components of the pipeline that it changes.
        ranks: Ranks that occur, smallest first.
        alphas: Alphas that occur, smallest first.
        targets: Last parts of the names of the layers it changes, e.g. "to_q".
        trigger_words: Words that trigger the concept in a prompt.
        license: SPDX-like id as cards write it.
        title: Display name.
        source: Pinned ref of its file.
        sha256: SHA-256 of the file, hexadecimal.
        data_hash: Hash of the tensors alone, hexadecimal, as AUTOMATIC1111's web UI computes it.
        size: Size of the file in bytes.
        parameters: Number of weights.
        dtype: Safetensors name of the weights' type, e.g. "F32".
        layout: Naming of the file: "diffusers", "peft" or "kohya".
        methods: Kinds of updates: "lora", "dora", "loha", "lokr".
        speed: How images are sampled with it where it was trained for few steps.
        architecture: Modelspec name of the kind of base that the tensors fit, e.g.
            "stable-diffusion-xl-v1-base"; None where shapes and metadata do not tell.
    """

    base_model: str | None = None
    base_revision: str | None = None
    base_sha256: str | None = None
    base_components: str | None = None
    generation_base: str | None = None
    generation_revision: str | None = None
    family: str | None = None
    components: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    alphas: tuple[float, ...] = ()
    targets: tuple[str, ...] = ()
    trigger_words: tuple[str, ...] = ()
    license: str | None = None
    title: str | None = None
    source: str | None = None
    sha256: str | None = None
    data_hash: str | None = None
    size: int | None = None
    parameters: int | None = None
    dtype: str | None = None
    layout: str | None = None
    methods: tuple[str, ...] = ()
    architecture: str | None = None
    speed: SpeedSettings | None = None


@dataclass(frozen=True)
class Adapter:
    """Low-rank updates by component and layer name, and facts about them.

    Attributes:
        layers: Component ("unet", "text_encoder", …) -> module name -> update.
        facts: Base model, ranks, licence and so on.
        metadata: `__metadata__` of the file, unchanged.
    """

    layers: Mapping[str, Mapping[str, LowRank]]
    facts: AdapterFacts = field(default_factory=AdapterFacts)
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def error(self) -> float:
        """Largest relative error of a layer; 0 unless a LoHa or LoKr was converted to low rank."""
        errors = [layer.error for modules in self.layers.values() for layer in modules.values()]
        return max(errors, default=0.0)


def peft_config(modules: Mapping[str, LowRank]) -> dict[str, Any]:
    """Return the arguments of a `peft.LoraConfig` that matches `modules` exactly.

    Ranks and alphas that differ from the most common one are given by full module name, anchored,
    because PEFT matches patterns as suffixes. That is also why targets go without the level that
    some versions of transformers do not have (`hublora.adapters.layer_names`): they fit both.
    """
    from collections import Counter

    dora = any(layer.magnitude is not None for layer in modules.values())
    rank = Counter(layer.rank for layer in modules.values()).most_common(1)[0][0]
    alpha = Counter(layer.alpha for layer in modules.values()).most_common(1)[0][0]
    return {
        "r": rank,
        "lora_alpha": _whole(alpha),
        "target_modules": sorted(name.removeprefix(WRAPPER) for name in modules),
        "rank_pattern": {
            _pattern(name): layer.rank for name, layer in modules.items() if layer.rank != rank
        },
        "alpha_pattern": {
            _pattern(name): _whole(layer.alpha)
            for name, layer in modules.items()
            if layer.alpha != alpha
        },
        "lora_dropout": 0.0,
        "bias": "none",
        **({"use_dora": True} if dora else {}),
    }


def _pattern(name: str) -> str:
    """Return the pattern that matches one layer in every version of transformers: without the level
    `text_model` and its anchor, for layers of text encoders that have both."""
    bare = name.removeprefix(WRAPPER)
    return f"^{re.escape(name)}$" if bare == name else f"{re.escape(bare)}$"


def _whole(number: float) -> int | float:
    return int(number) if float(number).is_integer() else number
