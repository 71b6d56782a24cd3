"""The card's text about learned token embeddings, and the code that loads them in diffusers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import quote

from hublora import quoting
from hublora.cards import markdown
from hublora.cards.facts import CardFacts

_ENCODERS = ("", "_2")  # what follows `tokenizer` and `text_encoder` in a pipeline, in order


def kind(facts: CardFacts) -> str:
    """Return the kind of the repo's content as the beginning of a sentence."""
    if facts.token_embeddings is None:
        return "A LoRA adapter"
    several = len(facts.token_embeddings.lengths) > 1
    embeddings = "token embeddings" if several else "a token embedding"
    if facts.weight_name is None:
        return f"{embeddings.capitalize()} (textual inversion)"
    return f"A LoRA adapter with {embeddings}"


def loading(facts: CardFacts) -> dict[str, list[str]] | None:
    """Return Python imports and lines that load the token embeddings with diffusers; None without
    any."""
    if facts.token_embeddings is None:
        return None
    learned, repo = facts.token_embeddings, quoting.python_text(facts.repo_id or ".")
    if not learned.keys and len(learned.lengths) == 1:
        return {"imports": [], "lines": [f"pipe.load_textual_inversion({repo})"]}
    path = quoting.python_text(learned.path)
    file = f"hf_hub_download({repo}, {path})" if facts.repo_id else path
    imports = ["from safetensors.torch import load_file"]
    if facts.repo_id:
        imports.insert(0, "from huggingface_hub import hf_hub_download")
    lines = [f"learned = load_file({file})"]
    if learned.keys:
        lines += _lines_by_encoder(learned.lengths.items(), learned.keys)
    else:
        lines += [
            "for token, vectors in learned.items():",
            "    pipe.load_textual_inversion({token: vectors})",
        ]
    return {"imports": imports, "lines": lines}


def in_hublora(facts: CardFacts, prompt: str) -> str:
    """Return Python code of the prompt, with hublora's placeholder tokens for token embeddings."""
    return prompt if facts.token_embeddings is None else f"pipe.hublora.prompt({prompt})"


def for_comfyui(facts: CardFacts) -> dict[str, str] | None:
    """Return link and name of the file that ComfyUI loads as one embedding; None without one."""
    learned = facts.token_embeddings
    if learned is None or facts.repo_id is None or len(learned.lengths) != 1 or not learned.keys:
        return None
    name = learned.path.rpartition("/")[2].removesuffix(".safetensors")
    link = f"[{markdown.code(learned.path)}](/{facts.repo_id}/resolve/main/{quote(learned.path)})"
    return {"link": link, "tag": markdown.code(f"embedding:{name}")}


def _lines_by_encoder(lengths: Iterable[tuple[str, int]], keys: Sequence[str]) -> list[str]:
    lines, first = [], 0
    for token, length in lengths:
        for key, ending in zip(keys, _ENCODERS, strict=False):
            lines += [
                "pipe.load_textual_inversion(",
                f"    learned[{quoting.python_text(key)}][{first}:{first + length}],",
                f"    token={quoting.python_text(token)},",
                f"    tokenizer=pipe.tokenizer{ending},",
                f"    text_encoder=pipe.text_encoder{ending},",
                ")",
            ]
        first += length
    return lines
