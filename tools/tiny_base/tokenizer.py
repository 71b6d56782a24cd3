"""Builds the tiny base's tokenizer: CLIP's byte-pair encoding with the demo's few words.

The vocabulary holds all 256 bytes, inside a word and at its end, so no text is unknown; and the
merges that make each caption word a single token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING

from tools.tiny_base.captions import WORDS

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

MAX_TOKENS = 32
END_OF_WORD = "</w>"

Pair = tuple[str, str]


def new_tokenizer() -> CLIPTokenizer:
    """Return the tokenizer; `save_pretrained` writes it as any CLIP tokenizer."""
    from transformers import CLIPTokenizer

    merges = learn_merges(WORDS)
    tokens = byte_symbols()
    tokens += [symbol + END_OF_WORD for symbol in tokens]
    tokens += [left + right for left, right in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


def byte_symbols() -> list[str]:
    """Return the 256 characters that stand for bytes in GPT-2's and CLIP's vocabularies.

    Printable Latin-1 characters stand for themselves, the other bytes for characters from U+0100.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(0x100 + n) for n in range(others)]


def learn_merges(words: Iterable[str], end_of_word: str = END_OF_WORD) -> list[Pair]:
    """Return byte-pair merges, most frequent pair first, until every word is one token.

    Sennrich et al. 2016, Algorithm 1 (https://arxiv.org/abs/1508.07909), each word counted once.

    Args:
        words: Words, each spelled with the vocabulary's symbols.
        end_of_word: What a word's last symbol ends in; empty in GPT-2's and Qwen's vocabularies.
    """
    spellings = [[*word[:-1], word[-1] + end_of_word] for word in sorted(set(words))]
    merges: list[Pair] = []
    while pairs := Counter(pair for word in spellings for pair in pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spellings = [_merge(word, best) for word in spellings]
    return merges


def _merge(word: list[str], pair: Pair) -> list[str]:
    merged: list[str] = []
    position = 0
    while position < len(word):
        if tuple(word[position : position + 2]) == pair:
            merged.append("".join(pair))
            position += 2
        else:
            merged.append(word[position])
            position += 1
    return merged
