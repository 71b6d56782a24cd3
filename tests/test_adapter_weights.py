"""Weights as they are written: numbers, over the steps, by block."""

from __future__ import annotations

import pytest

from hublora.adapter_weights import Weight
from hublora.errors import ConfigError

WRITTEN = [
    "0.8",
    "-0.5",
    "0.2..0.9",
    "1..0",
    "1,mid:0",
    "0.5,down.1:0.2..0.9,text:0",
    "1,up:2",
    "0.1234567891",
    "1e-07..1",
]


@pytest.mark.parametrize("text", WRITTEN)
def test_what_is_written_is_rendered_back(text: str) -> None:
    assert str(Weight.parse(text)) == text
    assert Weight.parse(str(Weight.parse(text))) == Weight.parse(text)


@pytest.mark.parametrize(
    "text", ["", "strong", "1..", "..1", "mid", "1,mid", "1,mid:0,mid:1", "nan"]
)
def test_what_is_no_weight_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a weight"):
        Weight.parse(text)


def test_the_longest_block_decides() -> None:
    weight = Weight.parse("1,down:0.5,down.1:0.2,text:0.3")
    at = [
        weight.for_layer(*layer).start
        for layer in [
            ("unet", "down_blocks.0.resnets.0.conv1"),
            ("unet", "down_blocks.1.resnets.0.conv1"),
            ("unet", "down_blocks.10.resnets.0.conv1"),
            ("unet", "mid_block.attentions.0"),
            ("text_encoder_2", "encoder.layers.0"),
        ]
    ]
    assert at == [0.5, 0.2, 0.5, 1.0, 0.3]


def test_a_layer_is_named_exactly() -> None:
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    weight = Weight.parse(f"1,{name}:0.25")
    layers = (name, f"{name}2", name.replace("to_q", "to_k"))
    assert [weight.for_layer("unet", layer).start for layer in layers] == [0.25, 1.0, 1.0]


def test_a_weight_moves_from_start_to_end() -> None:
    one = Weight.parse("0.2..1").rest
    assert [one.at(progress) for progress in (0, 0.5, 1)] == pytest.approx([0.2, 0.6, 1.0])
    assert Weight.parse("0.2..1").times(0.5) == Weight.parse("0.1..0.5")
    assert Weight.parse("0.7").number == 0.7
    assert Weight.parse("0.7,mid:0").number is None
