"""What stands for an adapter in a prompt: places, learned tokens, trigger words."""

from __future__ import annotations

import pytest

from hublora.errors import ConfigError
from hublora.generation.prompt_placeholders import AdapterTriggers, expand

DOG = AdapterTriggers("me/dog", ("sks dog",))
INK = AdapterTriggers(
    "me/ink", ("in the style of <s0><s1>",), {"<s0>": ("<a1-s0>",), "<s1>": ("<a1-s1>",)}
)
CAT = AdapterTriggers("me/cat", (), {"<s0>": ("<a2-s0-0>", "<a2-s0-1>")})
PLAIN = AdapterTriggers("me/plain")

EXPANSIONS = {
    "places": ("a <1> by <2>", [DOG, INK], "a sks dog by in the style of <a1-s0><a1-s1>", ()),
    "tokens without trigger words": ("a <1>", [CAT], "a <a2-s0-0><a2-s0-1>", ()),
    "a learned token as its card writes it": ("by <s0>!", [CAT], "by <a2-s0-0><a2-s0-1>!", ()),
    "a missing word is put in front": ("a hill", [DOG], "sks dog, a hill", ("sks dog",)),
    "a word that is there is not": ("A SKS dog.", [DOG], "A SKS dog.", ()),
    "a part of another word is not the word": (
        "asks dogs", [DOG], "sks dog, asks dogs", ("sks dog",)
    ),
    "no words, nothing added": ("a hill", [PLAIN], "a hill", ()),
    "a learned token that is put in front": (
        "a hill", [CAT], "<a2-s0-0><a2-s0-1>, a hill", ("<s0>",)
    ),
    "the same words once": ("a hill", [DOG, DOG], "sks dog, a hill", ("sks dog",)),
    "nothing for a weight of nothing": (
        "a hill", [AdapterTriggers("me/dog", ("sks dog",), automatic=False)], "a hill", ()
    ),
    "a backslash makes it the text itself": (r"a \<1> by <1>", [DOG], "a <1> by sks dog", ()),
    "a backslash without adapters": (r"a \<2>", [], "a <2>", ()),
    "without adapters nothing stands for anything": ("a <1>", [], "a <1>", ()),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPANSIONS)
def test_a_prompt_is_expanded(name: str) -> None:
    prompt, triggers, text, added = EXPANSIONS[name]
    found = expand(prompt, triggers)
    assert (found.text, found.added) == (text, added)


def test_off_replaces_places_and_adds_nothing() -> None:
    assert expand("a <1>", [DOG, INK], "off").text == "a sks dog"


def test_a_placeholder_without_adapter_or_trigger_words_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"<2> stands for adapter 2, and there are 1"):
        expand("a <2>", [DOG])
    with pytest.raises(ConfigError, match=r"me/plain, which names no trigger words"):
        expand("a <1>", [PLAIN])


def test_a_token_of_two_adapters_must_be_written_by_place() -> None:
    with pytest.raises(ConfigError, match=r"2 adapters have learned <s0>\. Write <1> or <2>"):
        expand("a <s0>", [INK, CAT])
