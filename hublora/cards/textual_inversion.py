"""What a card says of learned words, and how plain diffusers loads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import quote

from hublora import quoting
from hublora.cards import markdown
from hublora.cards.facts import CardFacts

_ENCODERS = ("", "_2")  # what follows `tokenizer` and `text_encoder` in a pipeline, in order


def kind(facts: CardFacts) -> str:
    """Return what the repo holds, as the beginning of a sentence."""
    if facts.token_embeddings is None:
        return "A LoRA adapter"
    several = len(facts.token_embeddings.lengths) > 1
    words = "learned words" if several else "a learned word"
    if facts.weight_name is None:
        return f"{words.capitalize()} (textual inversion)"
    return f"A LoRA adapter with {words}"


def loading(facts: CardFacts) -> dict[str, list[str]] | None:
    """Return Python's imports and lines that load the words with diffusers; None without words."""
    if facts.token_embeddings is None:
        return None
    words, repo = facts.token_embeddings, quoting.python_text(facts.repo_id or ".")
    if not words.keys and len(words.lengths) == 1:
        return {"imports": [], "lines": [f"pipe.load_textual_inversion({repo})"]}
    path = quoting.python_text(words.path)
    file = f"hf_hub_download({repo}, {path})" if facts.repo_id else path
    imports = ["from safetensors.torch import load_file"]
    if facts.repo_id:
        imports.insert(0, "from huggingface_hub import hf_hub_download")
    lines = [f"learned = load_file({file})"]
    if words.keys:
        lines += _lines_by_encoder(words.lengths.items(), words.keys)
    else:
        lines += [
            "for word, vectors in learned.items():",
            "    pipe.load_textual_inversion({word: vectors})",
        ]
    return {"imports": imports, "lines": lines}


def in_hublora(facts: CardFacts, prompt: str) -> str:
    """Return Python that gives the pipeline a prompt, in which hublora has words of its own for
    what each adapter has learned."""
    return prompt if facts.token_embeddings is None else f"pipe.hublora.prompt({prompt})"


def for_comfyui(facts: CardFacts) -> dict[str, str] | None:
    """Return link and name of a file that ComfyUI reads as one embedding; None if it is none."""
    words = facts.token_embeddings
    if words is None or facts.repo_id is None or len(words.lengths) != 1 or not words.keys:
        return None
    name = words.path.rpartition("/")[2].removesuffix(".safetensors")
    link = f"[{markdown.code(words.path)}](/{facts.repo_id}/resolve/main/{quote(words.path)})"
    return {"link": link, "tag": markdown.code(f"embedding:{name}")}


def _lines_by_encoder(lengths: Iterable[tuple[str, int]], keys: Sequence[str]) -> list[str]:
    lines, first = [], 0
    for word, length in lengths:
        for key, ending in zip(keys, _ENCODERS, strict=False):
            lines += [
                "pipe.load_textual_inversion(",
                f"    learned[{quoting.python_text(key)}][{first}:{first + length}],",
                f"    token={quoting.python_text(word)},",
                f"    tokenizer=pipe.tokenizer{ending},",
                f"    text_encoder=pipe.text_encoder{ending},",
                ")",
            ]
        first += length
    return lines
