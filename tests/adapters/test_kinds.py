"""Every kind of update acts as its definition says: compared with the dense weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from hublora.adapters import lycoris
from hublora.adapters.files import load_adapter
from hublora.adapters.layer_specs import find_load_problems
from hublora.adapters.lycoris import truncate
from hublora.adapters.parse import read_layers
from hublora.errors import AdapterError
from tests.lora import Weighted, apply_adapters

ATTENTION, FEED, CONV = "attn1.to_q", "ff.net.2", "resnets.0.conv1"
Tensors = dict[str, torch.Tensor]


class Kind:
    """Samples a layer's tensors, and computes the adapted weight from the definition.

    Args:
        seed: Seed of the random numbers.
    """

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator) * 0.3

    def lora(self, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        out, inputs, *kernel = weight.shape
        ones = [1] * len(kernel)
        down, up = self.normal(3, inputs, *kernel), self.normal(out, 3, *ones)
        delta = 2.0 / 3 * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        tensors = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(2.0)}
        return tensors, weight + delta

    def tucker(self, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        if weight.ndim == 2:
            return self.lora(weight)
        out, inputs, *kernel = weight.shape
        down, core = self.normal(3, inputs, 1, 1), self.normal(3, 3, *kernel)
        up = self.normal(out, 3, 1, 1)
        delta = torch.einsum("or,rskl,si->oikl", up[..., 0, 0], core, down[..., 0, 0])
        tensors = {"lora_down.weight": down, "lora_mid.weight": core, "lora_up.weight": up}
        return {**tensors, "alpha": torch.tensor(1.5)}, weight + 0.5 * delta

    def dora(self, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        tensors, changed = self.lora(weight)
        out, ones = weight.shape[0], [1] * (weight.ndim - 1)
        magnitude = 1 + self.normal(out).abs()
        lengths = changed.flatten(1).norm(dim=1)
        adapted = changed * (magnitude / lengths).reshape(out, *ones)
        return {**tensors, "dora_scale": magnitude.reshape(out, *ones)}, adapted

    def loha(self, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        flat = weight.flatten(1)
        a1, b1, a2, b2 = (
            self.normal(*shape) for shape in ((flat.shape[0], 2), (2, flat.shape[1])) * 2
        )
        tensors = {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2}
        delta = 1.5 / 2 * ((a1 @ b1) * (a2 @ b2)).reshape(weight.shape)
        return {**tensors, "alpha": torch.tensor(1.5)}, weight + delta

    def loha_with_cores(self, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        if weight.ndim == 2:
            return self.loha(weight)
        out, inputs, *kernel = weight.shape
        tensors, product = {}, torch.ones_like(weight)
        for side in (1, 2):
            a, b, core = self.normal(2, out), self.normal(2, inputs), self.normal(2, 2, *kernel)
            tensors |= {f"hada_w{side}_a": a, f"hada_w{side}_b": b, f"hada_t{side}": core}
            product = product * torch.einsum("rskl,si,ro->oikl", core, b, a)
        return tensors, weight + product  # no alpha: scaled by 1

    def lokr(self, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        out, inputs, *kernel = weight.shape
        w1, w2 = self.normal(2, 4), self.normal(out // 2, inputs // 4, *kernel)
        delta = torch.kron(w1.reshape(2, 4, *[1] * len(kernel)), w2)
        return {"lokr_w1": w1, "lokr_w2": w2, "alpha": torch.tensor(9e9)}, weight + delta

    def lokr_with_factors(self, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        out, inputs, *kernel = weight.shape
        a1, b1 = self.normal(4, 2), self.normal(2, 2)
        tensors = {"lokr_w1_a": a1, "lokr_w1_b": b1}
        if kernel:
            a2, b2 = self.normal(2, out // 4), self.normal(2, inputs // 2)
            core = self.normal(2, 2, *kernel)
            tensors["lokr_t2"] = core
            w2 = torch.einsum("rskl,si,ro->oikl", core, b2, a2).contiguous()
        else:
            a2, b2 = self.normal(out // 4, 2), self.normal(2, inputs // 2)
            w2 = a2 @ b2
        tensors |= {"lokr_w2_a": a2, "lokr_w2_b": b2, "alpha": torch.tensor(1.0)}
        delta = torch.kron((a1 @ b1).reshape(4, 2, *[1] * len(kernel)), w2)
        return tensors, weight + 0.5 * delta


KINDS = ["lora", "tucker", "dora", "loha", "loha_with_cores", "lokr", "lokr_with_factors"]


def kohya_name(module: str) -> str:
    return "lora_unet_" + module.replace(".", "_") + "."


def diffusers_name(module: str) -> str:
    return f"unet.{module}."


def peft_name(module: str) -> str:
    return f"base_model.model.{module}."


NAMES = {"kohya": kohya_name, "diffusers": diffusers_name, "peft": peft_name}


def file_and_base(
    pipe: Any, path: Path, kind: str, name: Callable[[str], str], modules: Sequence[str]
) -> Mapping[str, torch.Tensor]:
    """Write the file and return the weights that the U-Net's layers have with it."""
    random_kind, tensors, adapted = Kind(), {}, {}
    for module, layer in pipe.unet.named_modules():
        if module.endswith(tuple(modules)):
            own, adapted[module] = getattr(random_kind, kind)(layer.weight.detach())
            tensors |= {name(module) + part: tensor for part, tensor in own.items()}
    assert adapted
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return adapted


def image(pipe: Any) -> torch.Tensor:
    """Return what the U-Net makes of a fixed input."""
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(1, 4, 16, 16, generator=generator)
    text = torch.randn(1, 5, pipe.unet.config.cross_attention_dim, generator=generator)
    with torch.no_grad():
        return pipe.unet(latents, torch.tensor([500]), text).sample


@pytest.mark.parametrize("layout", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_acts_as_it_is_defined(
    pipe: Any, other: Any, tmp_path: Path, kind: str, layout: str
) -> None:
    path = tmp_path / "adapter_model.safetensors"
    adapted = file_and_base(pipe, path, kind, NAMES[layout], (ATTENTION, FEED, CONV))
    adapter = load_adapter(path)
    assert adapter.facts.layout == layout
    assert adapter.facts.methods == ({"tucker": "lora"}.get(kind, kind.partition("_")[0]),)
    for module, weight in adapted.items():
        other.unet.get_submodule(module).weight.data = weight
    plain = image(pipe)
    apply_adapters(pipe, [Weighted(adapter)])
    difference = (image(pipe) - image(other)).abs().max()
    change = (image(other) - plain).abs().max()
    assert change > 1e-2
    assert difference <= (0.02 if adapter.error else 1e-4) * change


@pytest.mark.parametrize("kind", ["LoKr", "LoHa"])
def test_pefts_own_products_with_patterns_act_as_in_peft(
    pipe: Any, other: Any, tmp_path: Path, kind: str
) -> None:
    """PEFT scales by alpha / r of the layer, also where no factor of a LoKr has that r."""
    import peft

    config = getattr(peft, f"{kind}Config")(
        r=4,
        alpha=6,
        target_modules=["attn1.to_q", "attn2.to_k", "conv1"],
        rank_pattern={"attn2.to_k": 2},
        alpha_pattern={r"mid_block.attentions.0.transformer_blocks.0.attn1.to_q": 1.5},
        init_weights=False,
        **({"decompose_factor": 2} if kind == "LoKr" else {}),
    )
    theirs = peft.get_peft_model(other.unet, config)
    theirs.save_pretrained(tmp_path)
    other.unet = theirs.base_model.model
    plain = image(pipe)
    adapter = load_adapter(tmp_path / "adapter_model.safetensors")
    apply_adapters(pipe, [Weighted(adapter)])
    change = (image(other) - plain).abs().max()
    assert change > 1e-2
    assert (image(pipe) - image(other)).abs().max() <= (0.02 if adapter.error else 1e-4) * change


def test_the_error_of_a_product_is_reported(pipe: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    file_and_base(pipe, path, "lokr", kohya_name, (ATTENTION,))
    adapter = load_adapter(path)
    assert 0 <= adapter.error <= 0.01
    (one, *_) = adapter.layers["unet"].values()
    dense = one.scale * one.up @ one.down
    (name, *_) = adapter.layers["unet"]
    layer = dict(pipe.unet.named_modules())
    module = next(m for m in layer if m.replace(".", "_") == name)
    _, wanted = Kind().lokr(layer[module].weight.detach())
    wanted = wanted - layer[module].weight.detach()
    assert (dense - wanted).norm() / wanted.norm() <= one.error + 1e-5


@pytest.mark.parametrize("rank", [1, 3, 5, 8])
def test_truncation_is_the_best_approximation_and_knows_its_error(rank: int) -> None:
    generator = torch.Generator().manual_seed(rank)
    up, down = torch.randn(12, 7, generator=generator), torch.randn(7, 20, generator=generator)
    small_up, small_down, error = truncate(up, down, tolerance=0.0, rank=rank)
    exact = up @ down
    left = (exact - small_up @ small_down).norm() / exact.norm()
    values = torch.linalg.svdvals(exact)
    assert small_up.shape[1] == min(rank, 7)
    assert float(left) == pytest.approx(error, abs=1e-5)
    assert error == pytest.approx(float(values[rank:].norm() / values.norm()), abs=1e-5)


def test_an_update_of_nothing_stays_one() -> None:
    up, down, error = truncate(torch.zeros(4, 2), torch.zeros(2, 6))
    assert (up.shape, down.shape, error) == ((4, 1), (1, 6), 0.0)
    assert not up.any()


def test_a_scale_for_each_input_is_refused(pipe: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    stem = kohya_name("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q")
    parts = {"lora_down.weight": torch.ones(2, 16), "lora_up.weight": torch.ones(16, 2)}
    save_file({stem + k: v for k, v in {**parts, "dora_scale": torch.ones(1, 16)}.items()}, path)
    with pytest.raises(AdapterError, match=r"one of its inputs"):
        load_adapter(path)
    save_file({stem + k: v for k, v in {**parts, "dora_scale": torch.ones(7, 1)}.items()}, path)
    with pytest.raises(AdapterError, match=r"7 values for 16 outputs"):
        load_adapter(path)


def test_a_small_file_cannot_ask_for_a_huge_product(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(
        {"lora_unet_a.lokr_w1": torch.ones(300, 300), "lora_unet_a.lokr_w2": torch.ones(300, 300)},
        path,
    )
    with pytest.raises(AdapterError, match=r"more than any layer has"):
        load_adapter(path)


@pytest.mark.parametrize(
    "shapes",
    [
        {"lokr_w1": (128, 128), "lokr_w2": (128, 128)},  # 131 KB as a file, 4 GB in low rank
        {"lokr_w1": (1, 1), "lokr_w2_a": (30_000, 1), "lokr_w2_b": (1, 30_000)},
        {"hada_w1_a": (9000, 1), "hada_w1_b": (1, 9000), "hada_w2_a": (9000, 9000),
         "hada_w2_b": (9000, 9000)},
    ],
    ids=["kronecker", "kronecker in low rank", "hadamard"],
)  # fmt: skip
def test_memory_is_bounded_by_the_shapes_in_the_header(shapes: dict[str, tuple[int, ...]]) -> None:
    problems = find_load_problems({f"lora_unet_a.{part}": shape for part, shape in shapes.items()})
    assert len(problems) == 1
    assert "more than any layer has" in problems[0]


def test_a_small_core_cannot_ask_for_a_huge_product(tmp_path: Path) -> None:
    shapes = {"mid": (9000, 1, 1, 1), "down": (1, 9000, 1, 1), "up": (9, 9000, 1, 1)}
    tensors = {
        f"lora_unet_a.lora_{part}.weight": torch.ones(shape) for part, shape in shapes.items()
    }
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=r"more than any layer has"):
        load_adapter(tmp_path / "a.safetensors")


@pytest.mark.parametrize("flip", [False, True])
def test_a_wide_hadamard_product_takes_no_more_than_its_own_size(flip: bool) -> None:
    """1×30,000 numbers as LoHa: an identity of the wide side would be 7 GB in float64."""
    out, n = (30_000, 1) if flip else (1, 30_000)
    generator = torch.Generator().manual_seed(0)
    parts = {
        name: torch.randn(*shape, generator=generator)
        for name, shape in (
            ("hada_w1_a", (out, 1)), ("hada_w1_b", (1, n)),
            ("hada_w2_a", (out, 1)), ("hada_w2_b", (1, n)),
        )
    }  # fmt: skip
    up, down, error = lycoris.hadamard(parts)
    expected = (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    assert (up.shape, down.shape) == ((out, 1), (1, n))
    assert torch.allclose(up @ down, expected, atol=1e-4)
    assert error < 1e-6


def test_a_large_kronecker_factor_of_low_rank_is_not_multiplied_out() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4200, 1, generator=generator)
    b = torch.randn(1, 4200, generator=generator)
    parts = {"lokr_w1": torch.full((1, 1), 2.0), "lokr_w2_a": a, "lokr_w2_b": b}
    up, down, error = lycoris.kronecker(parts)
    assert (up.shape, down.shape) == ((4200, 1), (1, 4200))
    assert torch.allclose(up[:50] @ down[:, :50], 2 * (a @ b)[:50, :50], atol=1e-4)
    assert error < 1e-6


class Decompositions(TorchDispatchMode):
    """Records the decompositions of matrices, and their larger sides."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "linalg" in str(func):
            self.seen.append((str(func).split(".")[1], max(args[0].shape)))
        return func(*args, **(kwargs or {}))


def test_a_square_product_takes_one_decomposition_of_its_own_size() -> None:
    """An SVD between two QR factorisations, of an identity too, took three times as long."""
    random_kind = Kind()
    parts = {
        f"hada_w{side}_{half}": random_kind.normal(*((48, 8) if half == "a" else (8, 40)))
        for side in (1, 2)
        for half in "ab"
    }
    with Decompositions() as found:
        lycoris.hadamard(parts)
    assert found.seen == [("_linalg_eigh", 40)]
    factors = {"lokr_w1": torch.ones(1, 1), "lokr_w2_a": random_kind.normal(48, 2)}
    with Decompositions() as found:
        lycoris.kronecker({**factors, "lokr_w2_b": random_kind.normal(2, 40)})
    assert ("_linalg_svd", 2) in found.seen
    assert all(kind == "linalg_qr" for kind, size in found.seen if size > 2)


def test_the_work_of_all_layers_is_bounded_before_any_is_begun() -> None:
    parts = {"lokr_w1": (1, 1), "lokr_w2": (4000, 4000)}
    shapes = {
        f"lora_unet_{number}.{part}": shape for number in range(40) for part, shape in parts.items()
    }
    assert find_load_problems({key: shapes[key] for key in list(shapes)[:20]}) == []
    (problem,) = find_load_problems(shapes)
    assert "5e+12 multiplications" in problem
    with torch.device("meta"), Decompositions() as found:
        tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
        with pytest.raises(AdapterError, match=r"5e\+12 multiplications"):
            read_layers(tensors, {})
    assert not found.seen


def test_a_layer_that_takes_too_long_is_refused() -> None:
    square = {"hada_w1_a": (5500, 80), "hada_w1_b": (80, 5500)}
    square |= {name.replace("w1", "w2"): shape for name, shape in square.items()}
    (problem,) = find_load_problems({f"lora_unet_a.{part}": one for part, one in square.items()})
    assert "5,500 × 5,500 of rank 5,500" in problem
