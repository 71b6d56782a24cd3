"""Similarity of adapters: cosines of their updates, without building them.

Updates are compared as vectors of all their weights. Of two in low rank, the inner product is

    ⟨s₁B₁A₁, s₂B₂A₂⟩ = s₁s₂ · Σᵢⱼ (B₁ᵀB₂)ᵢⱼ (A₁A₂ᵀ)ᵢⱼ

which costs two products of rank by rank. DoRA's magnitudes are ignored: they have no direction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from hublora.adapters.adapter import Adapter, LowRank
from hublora.families.registry import find_block

# Cosines below the first are taken for independent updates, from the second for conflicting ones.
INDEPENDENT, ENTANGLED = 0.1, 0.5
_UNBALANCED = 2.0  # one adapter's update is this much longer than another's

Layers = Mapping[tuple[str, str], LowRank]  # (component, module) -> update


@dataclass(frozen=True)
class PairOverlap:
    """The overlap of two adapters.

    Attributes:
        first: Index of the first adapter.
        second: Index of the second adapter.
        cosine: Cosine of their updates, -1 to 1; 0 is independent, below 0 they cancel.
        blocks: Block that both change, e.g. "unet.down_blocks.1" -> cosine in it, -1 to 1.
    """

    first: int
    second: int
    cosine: float
    blocks: Mapping[str, float]


@dataclass(frozen=True)
class Suggestion:
    """A suggestion how to use adapters together.

    Attributes:
        mode: "sum" of all at once, or "switch" from one to the next at each step.
        weights: Weight of each adapter, in order.
        reason: Explanation in one sentence or two.
    """

    mode: str
    weights: tuple[float, ...]
    reason: str


@dataclass(frozen=True)
class Overlap:
    """The overlap of several adapters.

    Attributes:
        norms: Frobenius norm of each adapter's update.
        pairs: Overlap of every two adapters.
        suggestion: Composition mode and weights.
    """

    norms: tuple[float, ...]
    pairs: tuple[PairOverlap, ...]
    suggestion: Suggestion


@dataclass(frozen=True)
class Similarity:
    """The similarity of two adapters that should be equal.

    Attributes:
        cosine: Cosine of their updates, -1 to 1; 1 is the same direction.
        difference: Norm of the difference of the updates divided by that of the first.
    """

    cosine: float
    difference: float


def similarity_of(one: Adapter, other: Adapter) -> Similarity:
    """Compare two adapters, whose layer names may be in different layouts."""
    first, second = _flattened_names(one), _flattened_names(other)
    inner = sum(_inner(first, second).values())
    length, other_length = _norm(first), _norm(second)
    apart = math.sqrt(max(0.0, length**2 + other_length**2 - 2 * inner))
    cosine = _cosine(inner, length, other_length) if length or other_length else 1.0
    return Similarity(cosine, apart / length if length else float(apart > 0))


def _flattened_names(adapter: Adapter) -> Layers:
    """Return the layers under names with `_` for `.`, as in kohya's layout."""
    return {
        (component, module.replace(".", "_")): layer
        for (component, module), layer in _flat(adapter).items()
    }


def overlap(adapters: Sequence[Adapter]) -> Overlap:
    """Compare adapters whose layers have the same names, two or more.

    Layers that one of two changes alone do not overlap, nor do layers of different shapes, which
    are of different base models.
    """
    layers = [_flat(adapter) for adapter in adapters]
    norms = [_norm(one) for one in layers]
    pairs = []
    for i, j in combinations(range(len(layers)), 2):
        whole = sum(_inner(layers[i], layers[j]).values())
        blocks = _blocks(layers[i], layers[j])
        pairs.append(PairOverlap(i, j, _cosine(whole, norms[i], norms[j]), blocks))
    return Overlap(tuple(norms), tuple(pairs), _suggest(norms, pairs))


def inner_product(one: LowRank, other: LowRank) -> float:
    """Return ⟨ΔW₁, ΔW₂⟩ of two updates of one layer."""
    ups = one.up.flatten(1).double().T @ other.up.flatten(1).double()
    downs = one.down.flatten(1).double() @ other.down.flatten(1).double().T
    return one.scale * other.scale * float((ups * downs).sum())


def _flat(adapter: Adapter) -> Layers:
    return {
        (component, module): layer
        for component, modules in adapter.layers.items()
        for module, layer in modules.items()
    }


def _norm(layers: Layers) -> float:
    return math.sqrt(max(0.0, sum(inner_product(layer, layer) for layer in layers.values())))


def _inner(one: Layers, other: Layers) -> dict[tuple[str, str], float]:
    """Return the inner product of each layer that both have in the same shape."""
    return {
        name: inner_product(layer, other[name])
        for name, layer in one.items()
        if name in other and _same_sides(layer, other[name])
    }


def _same_sides(one: LowRank, other: LowRank) -> bool:
    return bool(
        one.up.shape[0] == other.up.shape[0]
        and one.down.flatten(1).shape[1] == other.down.flatten(1).shape[1]
    )


def _blocks(one: Layers, other: Layers) -> dict[str, float]:
    shared = _inner(one, other)
    found = {}
    for block in sorted({_block(name) for name in shared}):
        inner = sum(product for name, product in shared.items() if _block(name) == block)
        lengths = [
            _norm({name: layer for name, layer in layers.items() if _block(name) == block})
            for layers in (one, other)
        ]
        found[block] = _cosine(inner, *lengths)
    return found


def _block(name: tuple[str, str]) -> str:
    component, module = name
    found = find_block(module)
    return f"{component}.{found[1]}" if found else component


def _cosine(inner: float, one: float, other: float) -> float:
    return inner / (one * other) if one and other else 0.0


def _suggest(norms: Sequence[float], pairs: Sequence[PairOverlap]) -> Suggestion:
    """Suggest the sum where updates are independent enough, switching where they are not.

    In a sum, each update is scaled to the smallest norm if norms differ much, and then all together
    so that the norm of the sum is at most the largest norm of one.
    """
    worst = max(pairs, key=lambda pair: abs(pair.cosine))
    plain = tuple(1.0 for _ in norms)
    if abs(worst.cosine) >= ENTANGLED:
        what = "point in the same direction" if worst.cosine > 0 else "cancel each other"
        return Suggestion("switch", plain, f"Their updates {what}: switch between them.")
    shortest = min((norm for norm in norms if norm), default=1.0)
    unbalanced = max(norms) > _UNBALANCED * shortest
    weights = [shortest / norm if unbalanced and norm else 1.0 for norm in norms]
    if worst.cosine > INDEPENDENT:
        lengths = [weight * norm for weight, norm in zip(weights, norms, strict=True)]
        square = sum(length**2 for length in lengths)
        square += sum(2 * p.cosine * lengths[p.first] * lengths[p.second] for p in pairs)
        smaller = min(1.0, max(lengths) / math.sqrt(square)) if square > 0 else 1.0
        weights = [weight * smaller for weight in weights]
    reason = (
        "Their updates overlap: smaller weights limit the norm of the sum."
        if worst.cosine > INDEPENDENT
        else "Their updates are almost independent."
    )
    if unbalanced:
        reason += " One is much stronger than the other."
    return Suggestion("sum", tuple(round(weight, 2) for weight in weights), reason)
