"""Blocks whose frozen weights wait elsewhere: the same numbers, and only two blocks at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig

from hublora.errors import ConfigError
from hublora.families import DenoiserInputs, family_of_pipeline
from hublora.memory.block_swap import BlockSwap
from hublora.memory.frozen_linear import (
    QuantizedLinear,
    is_quantized,
    keep_no_weights,
    linear_layers,
    quantize_model,
    read_weight,
    weight_bytes,
)
from tests.flow_pipelines import FLOW_PIPELINES
from tests.tiny import save_pipeline

CPU = torch.device("cpu")


def gradients(
    name: str, *, swapped: int | None, kind: Any = None, checkpointing: bool = False
) -> tuple[list[torch.Tensor], BlockSwap | None]:
    """Return the adapter's gradients after two steps; `swapped` 0 swaps no block, None all."""
    pipe = FLOW_PIPELINES[name]()
    family, model = family_of_pipeline(pipe), pipe.transformer
    with torch.no_grad():
        conditioning = family.encode_prompts(pipe, ["a red cat"])
    if kind is not None:
        quantize_model(model, kind, torch.float32)
    model.requires_grad_(False)
    torch.manual_seed(0)
    model.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    swap = None if swapped == 0 else BlockSwap(model, swapped, CPU)
    if swap is not None:
        poison(swap)
    for _, layer in linear_layers(model):
        if is_quantized(layer):
            keep_no_weights(layer)
    if checkpointing:
        model.train().enable_gradient_checkpointing()
    noisy = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(3))
    inputs = DenoiserInputs(
        noisy, torch.tensor([0.5]), conditioning, torch.zeros(1, 6), torch.ones(1)
    )
    for _ in range(2):
        family.predict(pipe, model, inputs).pow(2).mean().backward()
    return [one.grad for one in model.parameters() if one.grad is not None], swap


def poison(swap: BlockSwap) -> None:
    """Make weights that are read while their block is away give other numbers."""
    for weight in swap.away:
        value = float("nan") if weight.dtype.is_floating_point else 100
        swap.away[weight] = torch.full_like(weight.data, value)
    swap.move(CPU)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", [None, "int8"])
@pytest.mark.parametrize("name", ["z-image", "flux-dev"])
def test_swapped_blocks_give_the_same_gradients(name: str, kind: Any, checkpointing: bool) -> None:
    whole, _ = gradients(name, swapped=0, kind=kind, checkpointing=checkpointing)
    for count in (None, 2):
        part, swap = gradients(name, swapped=count, kind=kind, checkpointing=checkpointing)
        assert len(whole) == len(part) > 0
        assert all(torch.equal(*pair) for pair in zip(whole, part, strict=True))
        assert swap is not None
        assert 0 < swap.device_bytes < swap.host_bytes or count == 2


def test_the_device_has_the_block_that_is_computed_and_the_next_one() -> None:
    model = FLOW_PIPELINES["z-image"]().transformer.requires_grad_(False)
    with pytest.raises(ConfigError, match="must swap at most the 6 blocks of this base, got 7"):
        BlockSwap(model, 7, CPU)


@pytest.mark.parametrize(("kind", "bits"), [("int8", 8), ("fp8", 4)])
def test_a_quantised_layer_is_near_the_plain_one_and_half_the_size(kind: Any, bits: int) -> None:
    """Of a row's largest weight int8 has 127 steps; float8 has 3 bits and the first one."""
    torch.manual_seed(0)
    plain = torch.nn.Linear(64, 48, dtype=torch.bfloat16).requires_grad_(False)
    before = plain.weight.clone()
    layer = QuantizedLinear(plain, kind)
    assert torch.equal(before, plain.weight)
    weight = read_weight(layer)
    largest = before.float().abs().amax(dim=1, keepdim=True)
    error = (weight - before.float()).abs()
    assert (error <= (largest / 254 if kind == "int8" else largest / 16) * 1.01).all()
    inputs = torch.randn(2, 5, 64, dtype=torch.bfloat16, requires_grad=True)
    output = layer(inputs)
    expected = torch.nn.functional.linear(inputs.float(), weight, plain.bias.float())
    assert output.dtype == torch.bfloat16
    assert torch.allclose(output.float(), expected, atol=0.03)
    now, whole = weight_bytes(torch.nn.ModuleList([layer]))
    assert whole - now == 64 * 48 - 4 * 48  # a byte a weight less, four a row more


def test_what_torchao_makes_of_a_layer_is_as_near() -> None:
    torchao = pytest.importorskip("torchao.quantization", reason="torchao is no requirement")
    torch.manual_seed(0)
    plain = torch.nn.Linear(64, 48).requires_grad_(False)
    ours = read_weight(QuantizedLinear(plain, "int8"))
    before = plain.weight.clone()
    torchao.quantize_(plain, torchao.Int8WeightOnlyConfig())
    theirs = plain.weight.dequantize()
    assert (ours - theirs).abs().max() < (before.abs().amax() / 127)
    assert (ours - before).norm() < 1.05 * (theirs - before).norm()


def test_a_quantised_layer_keeps_no_weight_for_its_gradient() -> None:
    """PyTorch's own layer keeps the dequantised weight from the forward to the backward pass."""
    layer = QuantizedLinear(torch.nn.Linear(64, 48).requires_grad_(False), "int8")
    inputs = torch.randn(3, 64, requires_grad=True)

    def kept(call: Any) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda one: (sizes.append(one.numel()), one)[1], lambda one: one
        ):
            call(inputs).sum().backward()
        return sum(sizes)

    assert kept(layer) >= 64 * 48
    first, inputs.grad = inputs.grad, None
    keep_no_weights(layer)
    assert kept(layer) == 0
    assert first is not None
    assert inputs.grad is not None
    assert torch.allclose(first, inputs.grad, atol=1e-6)


def test_a_unet_is_quantised_and_swapped_too(tmp_path: Any) -> None:
    import hublora

    base = str(save_pipeline(tmp_path / "base"))
    plain = hublora.load(base=base, device="cpu")
    small = hublora.load(base=base, device="cpu", quantize="int8")
    assert weight_bytes(small.unet)[0] < weight_bytes(plain.unet)[0]
    latents, text = torch.randn(1, 4, 16, 16), torch.randn(1, 3, 32)
    with torch.no_grad():
        outputs = [pipe.unet(latents, 5, text).sample for pipe in (plain, small)]
        poison(BlockSwap(small.unet, None, CPU))
        outputs.append(small.unet(latents, 5, text).sample)
    assert 0 < (outputs[0] - outputs[1]).abs().max() < 0.1
    assert torch.equal(outputs[1], outputs[2])
