"""Blocks of a U-Net go by the short names that weights are written with."""

from __future__ import annotations

import pytest

from hublora.families.registry import (
    block_path,
    family_of_adapter,
    family_of_architecture,
    find_block,
)


@pytest.mark.parametrize(
    ("short", "path"),
    [
        ("down", "down_blocks"),
        ("up.1", "up_blocks.1"),
        ("mid", "mid_block"),
        ("time_embedding", "time_embedding"),
        ("down_blocks.1", "down_blocks.1"),
    ],
)
def test_a_block_stands_for_the_layers_whose_names_begin_so(short: str, path: str) -> None:
    assert block_path(short) == path


@pytest.mark.parametrize(
    ("layer", "block"),
    [
        ("down_blocks.1.attentions.0.proj_in", ("down.1", "down_blocks.1")),
        ("mid_block.attentions.0.proj_in", ("mid", "mid_block")),
        ("up_blocks_0_attentions", None),
        ("conv_in", None),
    ],
)
def test_a_layer_is_in_the_block_that_its_name_begins_with(
    layer: str, block: tuple[str, str] | None
) -> None:
    assert find_block(layer) == block


@pytest.mark.parametrize(
    ("architecture", "family"),
    [
        ("stable-diffusion-v1/lora", "stable-diffusion"),
        ("stable-diffusion-v2-768-v", "stable-diffusion"),
        ("stable-diffusion-xl-v1-base", "stable-diffusion-xl"),
        ("flux-1-dev/lora", "flux"),
        ("Flux.2-klein-4b", "flux2-klein"),
        ("stable-diffusion-3-m", "stable-diffusion-3"),
        ("pixart-sigma", None),
    ],
)
def test_an_architecture_belongs_to_a_family(architecture: str, family: str | None) -> None:
    found = family_of_architecture(architecture)
    assert (found.name if found else None) == family


@pytest.mark.parametrize(
    ("architecture", "family", "components", "expected"),
    [
        (None, None, ["unet"], "stable-diffusion"),
        (None, None, ["unet", "text_encoder_2"], "stable-diffusion-xl"),
        ("stable-diffusion-xl-v1-base", None, ["unet"], "stable-diffusion-xl"),
        (None, "stable-diffusion-xl-inpainting", ["unet"], "stable-diffusion-xl-inpainting"),
        ("stable-diffusion-v1", None, ["text_encoder_2"], "stable-diffusion-xl"),
    ],
)
def test_an_adapter_has_the_layer_names_of_the_family_that_its_facts_tell(
    architecture: str | None, family: str | None, components: list[str], expected: str
) -> None:
    assert family_of_adapter(architecture, family, components).name == expected
