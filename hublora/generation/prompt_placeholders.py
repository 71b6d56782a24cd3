"""Placeholders, trigger words and learned tokens of adapters in a prompt.

`<1>`, `<2>`, … stand for the first, second, … adapter of a composition, and a learned token such as
`<s0>` may be written as its card writes it:

    typed      a <1> in the style of <2>
    expanded   a sks dog in the style of <a2-s0-0><a2-s1-0>

`\\<1>` stands for the text <1> itself. Learned tokens have names of their own for each adapter, so
that two adapters that both call theirs `<s0>` compose.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from hublora.errors import ConfigError

TriggerMode = Literal["auto", "off"]

_PLACE = r"\\(?P<literal><[1-9]\d?>)|<(?P<place>[1-9]\d?)>"


@dataclass(frozen=True)
class AdapterTriggers:
    """Trigger words and learned tokens of one adapter.

    Attributes:
        label: Name of the adapter in messages.
        trigger_words: Trigger words of its card; they may hold learned tokens.
        tokens: Learned token as its author wrote it -> its tokens in the pipeline.
        automatic: Whether `trigger="auto"` may add its words: not where its weight is 0 or less.
    """

    label: str
    trigger_words: tuple[str, ...] = ()
    tokens: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    automatic: bool = True

    @property
    def words(self) -> str:
        """Trigger words in the pipeline's tokens; empty when there are none."""
        return self.rename(self.written)

    @property
    def written(self) -> str:
        """Trigger words in their author's tokens."""
        mentioned = any(token in words for words in self.trigger_words for token in self.tokens)
        if self.trigger_words and (mentioned or not self.tokens):
            return ", ".join(self.trigger_words)
        return "".join(self.tokens)

    def rename(self, text: str) -> str:
        """Return `text` with this adapter's learned tokens as the pipeline has them."""
        if not self.tokens:
            return text
        return _any_of(self.tokens).sub(lambda found: "".join(self.tokens[found[0]]), text)


@dataclass(frozen=True)
class Expanded:
    """A prompt as the pipeline reads it.

    Attributes:
        text: With every placeholder and learned token replaced.
        added: Trigger words that were put in front, in their authors' tokens.
    """

    text: str
    added: tuple[str, ...] = ()


def expand(
    prompt: str, triggers: Sequence[AdapterTriggers], trigger: TriggerMode = "auto"
) -> Expanded:
    """Return `prompt` with what its placeholders stand for.

    Args:
        prompt: Prompt as a person typed it.
        triggers: One for each adapter, in order; without any, the prompt stays as it is.
        trigger: "auto" puts the trigger words of each adapter in front that the prompt neither
            names by its place nor by one of its words; "off" adds nothing.

    Raises:
        ConfigError: A placeholder stands for nothing, or a learned token for two adapters.
    """
    if not triggers:
        return Expanded(re.sub(_PLACE, lambda found: found["literal"] or found[0], prompt))
    named: set[int] = set()

    def replace(found: re.Match[str]) -> str:
        if found["literal"]:
            return found["literal"]
        if found["place"]:
            index = int(found["place"]) - 1
            words = _words_at(index, triggers)
        else:
            index = _owner(found[0], triggers)
            words = "".join(triggers[index].tokens[found[0]])
        named.add(index)
        return words

    learned = {token for one in triggers for token in one.tokens}
    text = re.sub("|".join([_PLACE, *map(re.escape, _longest_first(learned))]), replace, prompt)
    if trigger == "off":
        return Expanded(text)
    added = {  # by what is read: the same adapter may come twice
        one.words: one.written
        for index, one in enumerate(triggers)
        if index not in named and one.automatic and one.words and not _called(one, prompt)
    }
    return Expanded(", ".join(part for part in (*added, text) if part), tuple(added.values()))


def _words_at(index: int, triggers: Sequence[AdapterTriggers]) -> str:
    if index >= len(triggers):
        raise ConfigError(
            f"<{index + 1}> stands for adapter {index + 1}, and there are {len(triggers)}.",
            "Adapters are counted from 1 in the order they are given. For the text itself write "
            f"\\<{index + 1}>.",
        )
    words = triggers[index].words
    if not words:
        raise ConfigError(
            f"<{index + 1}> stands for {triggers[index].label}, which names no trigger words.",
            f"Leave <{index + 1}> out: the adapter acts on every prompt.",
        )
    return words


def _owner(token: str, triggers: Sequence[AdapterTriggers]) -> int:
    owners = [index for index, one in enumerate(triggers) if token in one.tokens]
    if len(owners) > 1:
        places = " or ".join(f"<{index + 1}>" for index in owners)
        raise ConfigError(f"{len(owners)} adapters have learned {token}.", f"Write {places}.")
    return owners[0]


def _called(triggers: AdapterTriggers, prompt: str) -> bool:
    return any(
        re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prompt, re.IGNORECASE)
        for word in triggers.trigger_words
    )


def _any_of(tokens: Mapping[str, object]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, _longest_first(tokens))))


def _longest_first(tokens: Mapping[str, object] | set[str]) -> list[str]:
    return sorted(tokens, key=len, reverse=True)
