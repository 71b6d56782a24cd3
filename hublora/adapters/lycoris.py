"""LyCORIS's updates as low rank: products of Hadamard (LoHa) and of Kronecker (LoKr), and Tucker's.

    Hadamard    (a₁b₁) ⊙ (a₂b₂) = (a₁ ∗ a₂)(b₁ • b₂)   rank r₁·r₂: products of columns and rows
    Kronecker   (u₁s₁v₁) ⊗ (u₂s₂v₂) = (u₁ ⊗ u₂)(s₁ ⊗ s₂)(v₁ ⊗ v₂)   an SVD again
    Tucker      Σ core·a·b = a (core ∘ b)                 rank r

These are exact; the rank is then made as small as a relative error allows, by the truncated SVD,
which is the best approximation of its rank (Eckart and Young, 1936). The dense update is built only
where it is smaller than its factors.

Sources: https://huggingface.co/papers/2108.06098 (FedPara, section 2.2) and
https://huggingface.co/papers/2309.14859 (LyCORIS, section 3); `get_delta_weight` of
`peft.tuners.loha` and `peft.tuners.lokr` compute the same updates densely.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

Factors = tuple[torch.Tensor, torch.Tensor]
TOLERANCE = 0.01  # relative error allowed unless another is asked for


def hadamard(
    parts: Mapping[str, torch.Tensor], tolerance: float = TOLERANCE, rank: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return the low-rank form of a LoHa: up [out, r], down [r, in·kh·kw] and its relative error.

    Args:
        parts: `hada_w1_a` [out, r], `hada_w1_b` [r, in·kh·kw], the same of w2; or, with the cores
            `hada_t1` and `hada_t2` [r, r, kh, kw], `hada_w1_a` [r, out] and `hada_w1_b` [r, in].
        tolerance: Allowed Frobenius norm of the error, relative to that of the update.
        rank: Largest rank, whatever the error; None for no limit.
    """
    (a1, b1), (a2, b2) = (
        _pair(parts[f"hada_w{k}_a"], parts[f"hada_w{k}_b"], parts.get(f"hada_t{k}")) for k in (1, 2)
    )
    if a1.shape[1] * a2.shape[1] >= min(a1.shape[0], b1.shape[1]):
        return _truncate_whole((a1 @ b1).double() * (a2 @ b2), tolerance, rank)
    up = (a1[:, :, None] * a2[:, None, :]).flatten(1)
    down = (b1[:, None, :] * b2[None, :, :]).flatten(0, 1)
    return truncate(up, down, tolerance, rank)


def kronecker(
    parts: Mapping[str, torch.Tensor], tolerance: float = TOLERANCE, rank: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return the low-rank form of a LoKr, as `hadamard` does of a LoHa.

    Args:
        parts: `lokr_w1` [a, c] or its factors `lokr_w1_a` [a, r], `lokr_w1_b` [r, c]; `lokr_w2`
            [b, d, …] or `lokr_w2_a`, `lokr_w2_b` and perhaps the core `lokr_t2`, as of a LoHa.
            The layer's weight is [a·b, c·d, …].
        tolerance: Allowed relative error, as for `hadamard`.
        rank: Largest rank, as for `hadamard`.
    """
    (u1, s1, v1), (u2, s2, v2) = (_svd_of_factor(parts, side) for side in (1, 2))
    values = torch.outer(s1, s2).flatten()
    order = values.argsort(descending=True)
    keep, error = _truncated_rank(values[order], tolerance, rank)
    first, second = order[:keep] // len(s2), order[:keep] % len(s2)
    root = values[order[:keep]].sqrt()
    up = (u1[:, None, first] * u2[None, :, second]).flatten(0, 1) * root
    down = (v1[first, :, None] * v2[second, None, :]).flatten(1) * root[:, None]
    return up.float(), down.float(), error


def tucker(core: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> Factors:
    """Return the factors up [out, r] and down [r, in·kh·kw] of an update with a core.

    Args:
        core: [r, s, kh, kw].
        up: [out, r] or [out, r, 1, 1].
        down: [s, in] or [s, in, 1, 1].
    """
    return up.flatten(1), torch.einsum("rskl,si->rikl", core, down.flatten(1)).flatten(1)


def truncate(
    up: torch.Tensor, down: torch.Tensor, tolerance: float = TOLERANCE, rank: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return factors of the smallest rank within `tolerance`, and their relative error.

    Args:
        up: [out, R].
        down: [R, n].
        tolerance: Allowed relative error, as for `hadamard`.
        rank: Largest rank, as for `hadamard`.
    """
    if up.shape[1] >= up.shape[0]:
        return _truncate_whole(up.double() @ down.double(), tolerance, rank)
    q, r = torch.linalg.qr(up.double())
    small_up, small_down, error = _truncate_whole(r @ down.double(), tolerance, rank)
    return (q @ small_up.double()).float(), small_down, error


def _truncate_whole(
    update: torch.Tensor, tolerance: float, rank: int | None
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return the same as `truncate` for a matrix in float64.

    One eigendecomposition, of the product over the smaller side's own size, takes a third of an
    SVD's time. What it loses in accuracy, 1e-8 of the largest singular value, is projected out.
    """
    if update.shape[0] > update.shape[1]:
        down, up, error = _truncate_whole(update.T, tolerance, rank)
        return up.T.contiguous(), down.T.contiguous(), error
    squares, basis = torch.linalg.eigh(update @ update.T)  # the smallest first
    values = squares.flip(0).clamp_min(0).sqrt()
    keep, error = _truncated_rank(values, tolerance, rank)
    left, root = basis.flip(1)[:, :keep], values[:keep].sqrt()
    weight = torch.where(root > 0, 1 / root, 0.0)
    return (left * root).float(), ((left * weight).T @ update).float(), error


def _truncated_rank(values: torch.Tensor, tolerance: float, rank: int | None) -> tuple[int, float]:
    """Return how many singular values to keep, at least one, and the relative Frobenius norm of the
    others."""
    rest = values.square().flip(0).cumsum(0).flip(0)  # rest[k]: squared error if k are kept
    if not rest[0] > 0:
        return 1, 0.0
    relative = (rest / rest[0]).sqrt()
    wanted = int((relative > tolerance).sum())
    keep = max(1, wanted if rank is None else min(wanted, rank))
    return keep, float(relative[keep]) if keep < len(relative) else 0.0


def _pair(a: torch.Tensor, b: torch.Tensor, core: torch.Tensor | None) -> Factors:
    if core is None:
        return a.flatten(1).float(), b.flatten(1).float()
    return tucker(core.float(), a.flatten(1).T.float(), b.float())


def _svd_of_factor(
    parts: Mapping[str, torch.Tensor], side: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the singular value decomposition of `lokr_w1` or `lokr_w2`, in float64."""
    whole = parts.get(f"lokr_w{side}")
    if whole is None:
        core = parts.get(f"lokr_t{side}")
        a, b = _pair(parts[f"lokr_w{side}_a"], parts[f"lokr_w{side}_b"], core)
        if a.shape[1] < min(a.shape[0], b.shape[1]):  # not multiplied out: it is of low rank
            q, r = torch.linalg.qr(a.double())
            p, s = torch.linalg.qr(b.double().T)
            left, values, right = torch.linalg.svd(r @ s.T, full_matrices=False)
            return q @ left, values, right @ p.T
        whole = a.double() @ b.double()
    left, values, right = torch.linalg.svd(whole.flatten(1).double(), full_matrices=False)
    return left, values, right
