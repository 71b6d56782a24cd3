"""Axes of a sheet, as they are written."""

from __future__ import annotations

import pytest

from hublora.errors import ConfigError
from hublora.generation.sample import Sampling
from hublora.generation.sweep_axes import Axis


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("weight=0..1:5", ("0", "0.25", "0.5", "0.75", "1")),
        ("weight.2=-0.5,1", ("-0.5", "1")),
        ("seed=3", ("7", "8", "9")),
        ("seed=3,4", ("3", "4")),
        ("steps=10", ("10",)),
        ("scheduler=DDIM,EulerDiscrete", ("DDIM", "EulerDiscrete")),
    ],
)
def test_an_axis_is_parsed(text: str, values: tuple[str, ...]) -> None:
    assert Axis.parse(text, first_seed=7).values == values


@pytest.mark.parametrize(
    "text", ["seed", "colour=3", "weight=", "weight.0=1", "steps=a", "seed=1,x", "weight=..1:2"]
)
def test_what_is_no_axis_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="Write it like"):
        Axis.parse(text)


def test_an_axis_changes_its_own_setting() -> None:
    plan = Sampling("a")
    assert Axis.parse("steps=10").apply(plan, "10").num_inference_steps == 10
    assert Axis.parse("guidance=2").apply(plan, "2").guidance_scale == 2.0
    axis = Axis.parse("weight.2=0..1:2")
    assert (axis.apply(plan, "1"), axis.adapter, axis.label("1")) == (plan, 1, "weight.2 1")
