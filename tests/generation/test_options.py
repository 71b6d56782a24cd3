"""Keywords of the public calls: typed, and a wrong one is named with the nearest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from inspect import isfunction, signature
from typing import Any

import pytest

import hublora
from hublora.errors import ConfigError
from hublora.generation.inputs import Inputs
from hublora.generation.options import InputOptions, SamplingOptions, pick_sampling
from hublora.generation.sample import Sampling

WRONG = {
    "load": (lambda: hublora.load("me/a", devise="cpu"), "'devise' of load. Did you mean device?"),
    "run": (
        lambda: hublora.run("me/a", "a hill", guidence_scale=3.0),
        "Unknown keyword 'guidence_scale' of run. Did you mean guidance_scale?",
    ),
    "an explicit one": (
        lambda: hublora.run("me/a", "a hill", outputs="x.png"), "Did you mean output?"
    ),
    "nothing near": (lambda: hublora.run("me/a", "a hill", zzz=1), "Choose from base, "),
    "run_batch": (
        lambda: next(iter(hublora.run_batch(["me/a"], ["a hill"], colums="seed=2"))), "columns"
    ),
    "caption": (lambda: hublora.caption("folder", batchsize=2), "Did you mean batch_size?"),
    "replay": (lambda: hublora.replay("a.png", masks="b.png"), "Did you mean mask?"),
    "compose": (lambda: hublora.compose(["me/a"], pushto="me/mix"), "Did you mean push_to?"),
    "merge": (lambda: hublora.merge(["me/a"], wideth=64), "Did you mean width?"),
    "outdated": (lambda: hublora.outdated("me/a", step=3), "Did you mean steps?"),
    "update": (lambda: hublora.update("me/a", hight=64), "Did you mean height?"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_keyword_is_named_with_the_nearest(name: str) -> None:
    call, words = WRONG[name]
    with pytest.raises(ConfigError) as caught:
        call()
    assert words in str(caught.value)


def test_keywords_are_the_fields_of_the_values() -> None:
    sampling = {one.name for one in fields(Sampling)} - {"prompt"}
    assert SamplingOptions.__optional_keys__ == sampling | {"steps"}
    assert InputOptions.__optional_keys__ == {one.name for one in fields(Inputs)}


def test_steps_is_short_for_its_long_name() -> None:
    assert pick_sampling({"steps": 3, "width": None, "base": "x"}) == {"num_inference_steps": 3}
    with pytest.raises(ConfigError, match="are the same"):
        pick_sampling({"steps": 3, "num_inference_steps": 3})


def public() -> Iterator[Callable[..., Any]]:
    yield from filter(isfunction, (getattr(hublora, name) for name in hublora.__all__))


@pytest.mark.parametrize("call", public(), ids=lambda call: call.__name__)
def test_no_call_has_more_than_seven_parameters_of_its_own(call: Callable[..., Any]) -> None:
    explicit = [one for one in signature(call).parameters.values() if one.kind != one.VAR_KEYWORD]
    assert len(explicit) <= 7
