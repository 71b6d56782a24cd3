"""Layers that an original implementation stacks: split and stacked exactly, as diffusers does."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from diffusers.loaders import lora_conversion_utils as converters
from diffusers.loaders.single_file_utils import swap_scale_shift

from hublora.adapters.adapter import Adapter, AdapterFacts, LowRank
from hublora.adapters.convert import with_stacked_layers
from hublora.adapters.layer_names import file_names
from hublora.adapters.layer_specs import read_layer_specs
from hublora.adapters.match import match_layers
from hublora.adapters.parse import read_layers
from hublora.adapters.stacked_layers import split_stacked, stack
from hublora.errors import AdapterError
from hublora.families.registry import FAMILIES, architecture_of_layers

Shapes = dict[str, tuple[int, ...]]
WIDTH, MLP = 3072, 12288  # of FLUX.1, which diffusers' converter has as constants
ATTENTION = ("to_q", "to_k", "to_v")
ADDED = ("add_q_proj", "add_k_proj", "add_v_proj")


def flux() -> Shapes:
    """Return the layers of the first blocks of FLUX.1."""
    double, single = "transformer_blocks.0", "single_transformer_blocks.0"
    square = (WIDTH, WIDTH)
    return {
        **{f"{double}.attn.{name}": square for name in (*ATTENTION, *ADDED)},
        f"{double}.attn.to_out.0": square,
        f"{double}.attn.to_add_out": square,
        f"{double}.ff.net.0.proj": (MLP, WIDTH),
        f"{double}.ff.net.2": (WIDTH, MLP),
        f"{double}.ff_context.net.0.proj": (MLP, WIDTH),
        f"{double}.ff_context.net.2": (WIDTH, MLP),
        f"{double}.norm1.linear": (6 * WIDTH, WIDTH),
        f"{double}.norm1_context.linear": (6 * WIDTH, WIDTH),
        **{f"{single}.attn.{name}": square for name in ATTENTION},
        f"{single}.proj_mlp": (MLP, WIDTH),
        f"{single}.proj_out": (WIDTH, WIDTH + MLP),
        f"{single}.norm.linear": (3 * WIDTH, WIDTH),
    }


def flux2() -> Shapes:
    """Return the layers of the first blocks of a FLUX.2 of width 48."""
    double, single = "transformer_blocks.0", "single_transformer_blocks.0"
    return {
        **{f"{double}.attn.{name}": (48, 48) for name in (*ATTENTION, *ADDED)},
        f"{double}.attn.to_out.0": (48, 48),
        f"{double}.attn.to_add_out": (48, 48),
        f"{double}.ff.linear_in": (288, 48),
        f"{double}.ff.linear_out": (48, 144),
        f"{double}.ff_context.linear_in": (288, 48),
        f"{double}.ff_context.linear_out": (48, 144),
        f"{single}.attn.to_qkv_mlp_proj": (432, 48),
        f"{single}.attn.to_out": (48, 192),
        "single_stream_modulation.linear": (144, 48),
        "x_embedder": (48, 128),
    }


def z_image() -> Shapes:
    """Return the layers of the first blocks of a Z-Image of width 48."""
    return {
        f"{block}.0.{name}": shape
        for block in ("layers", "noise_refiner", "context_refiner")
        for name, shape in {
            **{f"attention.{name}": (48, 48) for name in (*ATTENTION, "to_out.0")},
            "feed_forward.w1": (128, 48),
            "feed_forward.w2": (48, 128),
            "feed_forward.w3": (128, 48),
        }.items()
    }


def native_file(
    family: str, shapes: Shapes, name_of: Callable[[str], str], down: str, up: str, alpha: bool
) -> dict[str, torch.Tensor]:
    """Return the tensors of an adapter of all layers under the original's names, rank 2."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for native, parts in FAMILIES[family].names.native_layers(list(shapes)).items():
        out, inputs = sum(shapes[part][0] for part in parts), shapes[parts[0]][1]
        name = name_of(native)
        tensors[f"{name}.{down}.weight"] = torch.randn(2, inputs, generator=generator)
        tensors[f"{name}.{up}.weight"] = torch.randn(out, 2, generator=generator)
        if alpha:
            tensors[f"{name}.alpha"] = torch.tensor(1.0)
    return tensors


def updates(tensors: Mapping[str, torch.Tensor], shapes: Shapes, flat: bool) -> dict[str, LowRank]:
    """Return the updates in a file by the base's own layers; all of them are matched."""
    base = {"transformer": shapes}
    layers = read_layers(tensors, {})
    assert layers.keys() == {"transformer"}
    split = split_stacked(layers, base, flat)
    fit = match_layers(split, base, {"transformer": file_names(list(shapes))}, flat)
    assert not fit.missing
    assert not fit.wrong_shape
    specs = read_layer_specs({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    assert split_stacked(specs, base, flat).keys() == {"transformer"}
    assert {
        module: (layer.out, layer.inputs)
        for module, layer in split_stacked(specs, base, flat)["transformer"].items()
    } == {
        module: (layer.up.shape[0], tuple(layer.down.shape[1:]))
        for module, layer in split["transformer"].items()
    }
    return {own: split["transformer"][module] for (_, module), own in fit.matched.items()}


def delta(layer: LowRank) -> torch.Tensor:
    return layer.scale * layer.up @ layer.down


def check(ours: dict[str, LowRank], theirs: dict[str, torch.Tensor]) -> None:
    """Check that the updates are those of diffusers' state dict, and as many."""
    downs = {name: tensor for name, tensor in theirs.items() if name.endswith("lora_A.weight")}
    assert len(downs) == len(ours) > 5
    generator = torch.Generator().manual_seed(3)
    for name, down in downs.items():
        own = name.removeprefix("transformer.").removesuffix(".lora_A.weight")
        up = theirs[name.replace("lora_A", "lora_B")]
        layer, given = ours[own], torch.randn(down.shape[1], 4, generator=generator)
        found = layer.scale * layer.up @ (layer.down @ given)  # ΔW is large here, its answers not
        assert torch.allclose(found, up @ (down @ given), rtol=1e-4, atol=1e-4), own


def test_a_kohya_file_of_flux_is_split_as_diffusers_splits_it() -> None:
    shapes = flux()
    tensors = native_file(
        "flux",
        shapes,
        lambda n: "lora_unet_" + n.replace(".", "_"),
        "lora_down",
        "lora_up",
        True,
    )
    theirs = converters._convert_kohya_flux_lora_to_diffusers(dict(tensors))
    check(updates(tensors, shapes, True), theirs)


@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
def test_a_file_of_xlabs_is_split_as_diffusers_splits_it(prefix: str) -> None:
    """Of a single block's fused layer it changes the rows of the attention alone."""
    shapes, tensors = flux(), {}
    generator = torch.Generator().manual_seed(5)
    for name, out, inputs in (
        ("double_blocks.0.processor.qkv_lora1", 3 * WIDTH, WIDTH),
        ("double_blocks.0.processor.qkv_lora2", 3 * WIDTH, WIDTH),
        ("double_blocks.0.processor.proj_lora1", WIDTH, WIDTH),
        ("double_blocks.0.processor.proj_lora2", WIDTH, WIDTH),
        ("single_blocks.0.processor.qkv_lora", 3 * WIDTH, WIDTH),
        ("single_blocks.0.processor.proj_lora", WIDTH, WIDTH + MLP),
    ):
        tensors[f"{prefix}{name}.down.weight"] = torch.randn(2, inputs, generator=generator)
        tensors[f"{prefix}{name}.up.weight"] = torch.randn(out, 2, generator=generator)
    theirs = converters._convert_xlabs_flux_lora_to_diffusers(dict(tensors))
    ours = updates(tensors, shapes, False)
    check(ours, theirs)
    assert len(ours) == 12
    assert "single_transformer_blocks.0.proj_mlp" not in ours


@pytest.mark.parametrize(
    ("family", "shapes"), [("flux", flux()), ("flux2-klein", flux2()), ("z-image", z_image())]
)
def test_the_prefix_of_whole_models_is_read(family: str, shapes: Shapes) -> None:
    named = [
        native_file(family, shapes, (prefix + "{}").format, "lora_A", "lora_B", True)
        for prefix in ("model.diffusion_model.", "diffusion_model.")
    ]
    ours, others = (updates(tensors, shapes, False) for tensors in named)
    assert ours.keys() == others.keys() == shapes.keys()
    assert all(torch.equal(ours[name].up, others[name].up) for name in ours)


@pytest.mark.parametrize("alpha", [False, True])
def test_a_file_of_ai_toolkit_for_flux2_is_split_as_diffusers_splits_it(alpha: bool) -> None:
    """With alphas diffusers refuses the file; hublora reads it, at half the strength here."""
    shapes = flux2()
    tensors = native_file(
        "flux2-klein", shapes, "diffusion_model.{}".format, "lora_A", "lora_B", alpha
    )
    plain = {name: one for name, one in tensors.items() if not name.endswith(".alpha")}
    theirs = converters._convert_non_diffusers_flux2_lora_to_diffusers(dict(plain))
    if alpha:
        theirs = {k: t * 0.5 if "lora_B" in k else t for k, t in theirs.items()}
        with pytest.raises(ValueError, match="should be empty"):
            converters._convert_non_diffusers_flux2_lora_to_diffusers(dict(tensors))
    check(updates(tensors, shapes, False), theirs)


@pytest.mark.parametrize(
    ("prefix", "down", "up"),
    [
        ("diffusion_model.", "lora_A", "lora_B"),
        ("model.diffusion_model.", "lora_A", "lora_B"),
        ("diffusion_model.", "lora_down", "lora_up"),
        ("lora_unet_", "lora_down", "lora_up"),
    ],
)
def test_z_images_fused_attention_is_split(prefix: str, down: str, up: str) -> None:
    """diffusers fails on the first, so the rows are compared with the file's own."""
    shapes = z_image()
    flat = prefix.startswith("lora")
    tensors = native_file(
        "z-image",
        shapes,
        lambda n: prefix + (n.replace(".", "_") if flat else n),
        down,
        up,
        True,
    )
    ours = updates(tensors, shapes, flat)
    assert ours.keys() == shapes.keys()
    name = prefix + ("layers_0_attention_qkv" if flat else "layers.0.attention.qkv")
    whole = tensors[f"{name}.{up}.weight"] @ tensors[f"{name}.{down}.weight"] * 0.5
    parts = [delta(ours[f"layers.0.attention.{part}"]) for part in ATTENTION]
    assert torch.equal(torch.cat(parts), whole) or torch.allclose(
        torch.cat(parts), whole, atol=1e-6
    )


@pytest.mark.parametrize("flat", [False, True])
def test_a_stack_of_other_rows_has_another_shape_and_is_not_missing(flat: bool) -> None:
    base = {"transformer": z_image()}
    native = "layers.0.attention.qkv"
    name = native.replace(".", "_") if flat else native
    update = LowRank(torch.ones(1, 48), torch.ones(3 * 40, 1), 1.0)
    layers = {"transformer": {name: update, "layers.9.attention.qkv": update}}
    fit = match_layers(
        split_stacked(layers, base, flat),
        base,
        {"transformer": file_names(list(base["transformer"]))},
        flat,
    )
    assert fit.wrong_shape == (("transformer", name),)
    assert fit.missing == (("transformer", "layers.9.attention.qkv"),)


@pytest.mark.parametrize(
    ("family", "layer", "parts"),
    [
        ("z-image", "layers.0.attention.qkv", [f"layers.0.attention.{p}" for p in ATTENTION]),
        (
            "flux2-klein",
            "double_blocks.0.img_attn.qkv",
            [f"transformer_blocks.0.attn.{p}" for p in ATTENTION],
        ),
    ],
)
def test_a_lokr_of_a_fused_layer_is_split_without_fusing_the_bases(
    family: str, layer: str, parts: list[str]
) -> None:
    """Of [12, 4] ⊗ [12, 12], within the error that is told; the Kronecker product is the oracle."""
    shapes = {"z-image": z_image(), "flux2-klein": flux2()}[family]
    generator = torch.Generator().manual_seed(6)
    one, two = (torch.randn(12, size, generator=generator) for size in (4, 12))
    name = f"diffusion_model.{layer}"
    tensors = {
        f"{name}.lokr_w1": one,
        f"{name}.lokr_w2": two,
        f"{name}.alpha": torch.tensor(1.0),
    }
    ours = updates(tensors, shapes, False)
    assert ours.keys() == set(parts)
    whole, exact = torch.cat([delta(ours[part]) for part in parts]), torch.kron(one, two)
    told = max(layer.error for layer in ours.values())  # of the rewriting as low rank
    assert float((whole - exact).norm() / exact.norm()) <= told + 1e-4 < 0.03


def test_swapped_rows_are_those_of_diffusers() -> None:
    shapes: Shapes = {
        "norm_out.linear": (12, 6),
        "transformer_blocks.0.norm1_context.linear": (36, 6),
        "transformer_blocks.1.norm1_context.linear": (12, 6),
    }
    generator = torch.Generator().manual_seed(1)
    ups = [torch.randn(rows, 2, generator=generator) for rows in (12, 36, 12)]
    names = (
        "final_layer.adaLN_modulation.1",
        *(f"joint_blocks.{n}.context_block.adaLN_modulation.1" for n in (0, 1)),
    )
    layers = {name: LowRank(torch.ones(2, 6), up, 2.0) for name, up in zip(names, ups, strict=True)}
    split = split_stacked({"transformer": layers}, {"transformer": shapes}, False)["transformer"]
    last = "transformer_blocks.1.norm1_context.linear"
    assert torch.equal(split["norm_out.linear"].up, swap_scale_shift(ups[0], dim=None))
    assert torch.equal(split[last].up, swap_scale_shift(ups[2], dim=None))
    assert torch.equal(split[names[1]].up, ups[1])  # six parts, in the same order: only renamed
    again = stack(split, shapes, FAMILIES["stable-diffusion-3"].names.native_layers([last]))
    assert torch.equal(again[names[2]].up, ups[2])


@pytest.mark.parametrize(("family", "shapes"), [("flux2-klein", flux2()), ("chroma", flux())])
def test_stacking_and_splitting_is_exact(family: str, shapes: Shapes) -> None:
    generator = torch.Generator().manual_seed(2)
    known = FAMILIES[family].names
    layers = {
        name: LowRank(
            torch.randn(2, inputs, generator=generator),
            torch.randn(out, 2, generator=generator),
            3.0,
        )
        for name, (out, inputs) in shapes.items()
        if known.knows(name) and out < 1000
        if not name.endswith("to_k")
    } or {"transformer_blocks.0.attn.to_q": LowRank(torch.ones(1, WIDTH), torch.ones(WIDTH, 1), 1)}
    adapter = Adapter({"transformer": layers}, AdapterFacts(family=family))
    stacked = with_stacked_layers(adapter, {"transformer": shapes})
    assert stacked is not None
    assert not any("to_q" in name for name in stacked.layers["transformer"])
    split = split_stacked(stacked.layers, {"transformer": shapes}, False)["transformer"]
    own = file_names(list(shapes))
    found = {own[name]: layer for name, layer in split.items()}
    for name, layer in layers.items():
        assert torch.allclose(delta(found[name]), delta(layer), atol=1e-5), name
    for name in found.keys() - layers.keys():  # parts that were not trained
        assert not delta(found[name]).any()


def test_a_missing_part_of_unknown_size_is_refused() -> None:
    update = LowRank(torch.ones(1, 48), torch.ones(48, 1), 1.0)
    adapter = Adapter(
        {"transformer": {"transformer_blocks.0.attn.to_q": update}},
        AdapterFacts(family="flux2-klein"),
    )
    with pytest.raises(AdapterError, match="how many is not known"):
        with_stacked_layers(adapter)
    with pytest.raises(AdapterError, match="could be those of"):
        with_stacked_layers(Adapter(adapter.layers))


def test_a_layer_both_stacked_and_split_is_refused() -> None:
    shapes = flux2()
    whole = LowRank(torch.ones(1, 48), torch.ones(144, 1), 1.0)
    part = LowRank(torch.ones(1, 48), torch.ones(48, 1), 1.0)
    layers = {"double_blocks.0.img_attn.qkv": whole, "transformer_blocks.0.attn.to_q": part}
    with pytest.raises(AdapterError, match="twice, stacked and split"):
        split_stacked({"transformer": layers}, {"transformer": shapes}, False)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(
    ("layers", "architecture"),
    [
        ({"double_blocks.0.img_mod.lin": 8, "single_blocks.1.linear1": 8}, "flux-1-dev"),
        ({"joint_blocks.0.x_block.attn.qkv": 8}, "stable-diffusion-3-m"),
        ({"layers.0.attention.qkv": 8}, "Z-Image"),
        ({"blocks.0.attn.wq": 8}, "krea-2"),
        ({"transformer_blocks.0.img_mlp.net.2": 8}, "Qwen-Image"),
        ({"distilled_guidance_layer.in_proj": 8}, "chroma"),
        ({"transformer_blocks.0.attn.to_q": 8}, None),  # of four families
        ({"layers.0.attention.qkv": 8, "double_blocks.0.img_mod.lin": 8}, None),
    ],
)
def test_layers_tell_the_architecture_where_one_family_has_them(
    layers: dict[str, int], architecture: str | None, flat: bool
) -> None:
    named = {name.replace(".", "_") if flat else name: (size,) for name, size in layers.items()}
    assert architecture_of_layers({"transformer": named}) == architecture


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("alphas", [(1.0, 1.0, 1.0), (1.0, 3.0, 1.0)])
def test_stacking_loses_nothing_of_small_half_precision_weights(
    dtype: torch.dtype, alphas: tuple[float, ...]
) -> None:
    """Scales that are equal stay a scale; others are taken into float32 weights."""
    generator = torch.Generator().manual_seed(4)
    parts = [f"transformer_blocks.0.attn.to_{part}" for part in "qkv"]
    layers = {
        part: LowRank(
            torch.randn(32, 16, generator=generator).to(dtype),
            (torch.randn(16, 32, generator=generator) * 1e-4).to(dtype),
            alpha,
        )
        for part, alpha in zip(parts, alphas, strict=True)
    }
    stacks = {"double_blocks.0.img_attn.qkv": tuple(parts)}
    whole = stack(layers, None, stacks)["double_blocks.0.img_attn.qkv"]
    assert whole.up.dtype == (dtype if len(set(alphas)) == 1 else torch.float32)
    found = whole.scale * whole.up.double() @ whole.down.double()
    expected = torch.cat(
        [one.scale * one.up.double() @ one.down.double() for one in layers.values()]
    )
    assert torch.allclose(found, expected, rtol=1e-6, atol=0)
