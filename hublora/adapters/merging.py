"""Merges several adapters into one.

    method           result                                             source
    cat              side by side: exactly the weighted sum              PEFT's `cat`
    svd              the best approximation of a smaller rank            Eckart and Young, 1936
    ties             small values trimmed, signs elected                 arXiv 2306.01708
    dare_linear      values dropped at random, the others scaled up      arXiv 2311.03099
    dare_ties        the same, signs elected                             arXiv 2311.03099
    magnitude_prune  small values trimmed

The last four are defined on the updates themselves, so they are computed on `up @ down`, layer by
layer, and approximated in low rank. PEFT's `linear` is not offered: it adds the factors, not their
products, with relative errors of 100 % and more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hublora.adapters.adapter import Adapter, LowRank
from hublora.adapters.convert import diffusers_names, with_kernels, with_layer_names
from hublora.errors import AdapterError, ConfigError

if TYPE_CHECKING:
    import torch

_DENSE = ("ties", "dare_linear", "dare_ties", "magnitude_prune")
METHODS = ("cat", "svd", *_DENSE)

Weighted = Sequence[tuple[float, LowRank]]


@dataclass(frozen=True)
class Merged:
    """The result of a merge.

    Attributes:
        adapter: The merged updates, without facts.
        error: Frobenius norm of the difference from the exact weighted sum, relative to that sum.
    """

    adapter: Adapter
    error: float


def merge(
    parts: Sequence[tuple[Adapter, float]],
    method: str = "cat",
    *,
    rank: int | None = None,
    density: float = 0.5,
    seed: int = 0,
) -> Merged:
    """Return one adapter that approximates the weighted sum of `parts` by a method.

    Args:
        parts: (adapter, weight) pairs.
        method: One of METHODS.
        rank: Largest rank of a layer; None is the largest among the parts. Not for `cat`.
        density: Fraction of the values that ties, dare and magnitude_prune keep, in (0, 1].
        seed: Seed of the values that dare drops.

    Raises:
        ConfigError: The method is unknown, or does not take these arguments.
        AdapterError: The adapters have layers of different shapes, or one of them is a DoRA.
    """
    import torch

    _check(method, rank, density)
    layers: dict[str, dict[str, LowRank]] = {}
    wanted = differing = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for (component, module), weighted in _by_layer(parts).items():
            exact = _concatenated(weighted)
            up, down = _merge_layer(weighted, exact, method, rank, density)
            layer = _as_layer(up, down, weighted)
            layers.setdefault(component, {})[module] = layer
            stored = layer.up.flatten(1).double(), layer.down.flatten(1).double()
            wanted += _norm(*exact) ** 2
            differing += _norm(_cat(1, exact[0], -stored[0]), _cat(0, exact[1], stored[1])) ** 2
    if not layers:
        raise AdapterError("There is nothing to merge: every weight is 0.")
    return Merged(Adapter(layers), (differing / wanted) ** 0.5 if wanted else 0.0)


def _check(method: str, rank: int | None, density: float) -> None:
    if method == "linear":
        raise ConfigError(
            "merge method linear adds factors instead of updates, with errors of 100 % and more.",
            "Use --merge cat, which is exact.",
        )
    if method not in METHODS:
        raise ConfigError(f"Unknown merge method {method!r}.", f"Choose from {', '.join(METHODS)}.")
    if method == "cat" and rank is not None:
        raise ConfigError(f"merge method cat takes no rank, got {rank}.", "Use --merge svd.")
    if not 0 < density <= 1:
        raise ConfigError(f"density must be in (0, 1], got {density:g}.", "Try 0.5.")


def _by_layer(
    parts: Sequence[tuple[Adapter, float]],
) -> dict[tuple[str, str], list[tuple[float, LowRank]]]:
    """Return the weighted updates of each layer, under the names of diffusers' files."""
    found: dict[tuple[str, str], list[tuple[float, LowRank]]] = {}
    for adapter, weight in parts:
        if not weight:
            continue
        named = with_kernels(with_layer_names(adapter, diffusers_names(adapter)))
        for component, modules in named.layers.items():
            for module, layer in modules.items():
                if layer.magnitude is not None:
                    raise AdapterError(
                        f"{adapter.facts.source or 'An adapter'} is a DoRA and cannot be merged.",
                        "Compose the adapters instead: hublora run a b …",
                    )
                found.setdefault((component, module), []).append((weight, layer))
    for (component, module), weighted in found.items():
        if len({(layer.up.shape[0], layer.down[0].numel()) for _, layer in weighted}) > 1:
            raise AdapterError(
                f"The adapters have different shapes for the layer {component}.{module}.",
                "Merge adapters of one base model.",
            )
    return found


def _concatenated(weighted: Weighted) -> tuple[torch.Tensor, torch.Tensor]:
    """Return up [out, Σr] and down [Σr, n] whose product is the weighted sum, in float64."""
    ups = [weight * layer.scale * layer.up.flatten(1).double() for weight, layer in weighted]
    downs = [layer.down.flatten(1).double() for _, layer in weighted]
    return _cat(1, *ups), _cat(0, *downs)


def _merge_layer(
    weighted: Weighted,
    exact: tuple[torch.Tensor, torch.Tensor],
    method: str,
    rank: int | None,
    density: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    from hublora.adapters.lycoris import truncate

    if method == "cat":
        return exact
    most = rank or max(layer.rank for _, layer in weighted)
    if method == "svd":
        return truncate(*exact, tolerance=0.0, rank=most)[:2]
    return _low_rank(_merge_dense(weighted, method, density), most)


def _merge_dense(weighted: Weighted, method: str, density: float) -> torch.Tensor:
    """Return the merged update, [out, n]; PEFT's functions, on updates as they are defined."""
    import torch
    from peft.utils import merge_utils

    # Signs are elected before weighting, so a negative weight is made part of its update.
    updates = [
        math.copysign(layer.scale, weight * layer.scale)
        * (layer.up.flatten(1).float() @ layer.down.flatten(1).float())
        for weight, layer in weighted
    ]
    weights = torch.tensor([abs(weight) for weight, _ in weighted])
    return getattr(merge_utils, method)(updates, weights, density=density)


def _low_rank(update: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    few = rank + 16  # oversampled, for accuracy
    if min(update.shape) > 4 * few:
        left, values, right = torch.svd_lowrank(update, q=few, niter=6)
        right = right.T
    else:
        left, values, right = torch.linalg.svd(update, full_matrices=False)
    keep = min(rank, len(values))
    root = values[:keep].sqrt()
    return left[:, :keep] * root, root[:, None] * right[:keep]


def _as_layer(up: torch.Tensor, down: torch.Tensor, weighted: Weighted) -> LowRank:
    """Return the update in the shape of the first part's, in the widest of the parts' types, or
    in float32 where that type would round it."""
    import functools

    import torch

    first = weighted[0][1]
    dtype = functools.reduce(torch.promote_types, (layer.up.dtype for _, layer in weighted))
    rank = down.shape[0]

    def stored(tensor: torch.Tensor) -> torch.Tensor:
        small = tensor.to(dtype)
        return small if torch.equal(small.to(tensor.dtype), tensor) else tensor.float()

    return LowRank(
        stored(down).reshape(rank, *first.down.shape[1:]),
        stored(up).reshape(-1, rank, *first.up.shape[2:]),
        float(rank),
    )


def _norm(up: torch.Tensor, down: torch.Tensor) -> float:
    """Return the Frobenius norm of `up @ down` without building it."""
    import torch

    return float((torch.linalg.qr(up).R @ torch.linalg.qr(down.T).R.T).norm())


def _cat(dimension: int, *tensors: torch.Tensor) -> Any:
    import torch

    return torch.cat(tensors, dim=dimension)


def common_facts(parts: Sequence[Adapter]) -> Mapping[str, Any]:
    """Return the facts that all parts have in common, and the trigger words of each."""
    found: dict[str, Any] = {}
    shared = ("base_model", "base_revision", "base_sha256", "base_components")
    used = ("generation_base", "generation_revision")
    for name in (*shared, *used, "family", "architecture"):
        values = {getattr(part.facts, name) for part in parts}
        if len(values) == 1:
            found[name] = values.pop()
    words = (word for part in parts for word in part.facts.trigger_words)
    return {**found, "trigger_words": tuple(dict.fromkeys(words))}
