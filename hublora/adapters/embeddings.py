"""Files of learned tokens (textual inversion, https://huggingface.co/papers/2208.01618).

file                          tensors
diffusers, pivotal tuning     clip_l [n, d] and clip_g [n, d']: the tokens <s0> … <s{n-1}>
diffusers, textual inversion  the token itself -> [d] or [n, d]
AUTOMATIC1111                 emb_params [n, d], the token is the file's name
an adapter that bundles them  bundle_emb.<token>.<key> with the keys above, or string_to_param.*

hublora writes the first two; the metadata of the first maps tokens to rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from hublora.adapters.tensor_names import BUNDLED, is_bundled
from hublora.errors import AdapterError

if TYPE_CHECKING:
    import torch

    from hublora.adapters.header import Header

# Key in a file -> index of the text encoder, from 0.
_ENCODERS = {"clip_l": 0, "clip_g": 1, "text_encoders_0": 0, "text_encoders_1": 1}
KEYS = ("clip_l", "clip_g")  # as written, by index of the text encoder
_AUTOMATIC = "emb_params"
_ONE_ENCODER = (_AUTOMATIC, "string_to_param.*", "string_to_param")
_NAMES = "hublora.tokens"  # metadata: JSON, [[token, rows], …]


@dataclass(frozen=True)
class LearnedToken:
    """A token with embeddings in an adapter file.

    Attributes:
        name: The token as prompts write it, e.g. "<s0>".
        vectors: Index of the text encoder, from 0 -> token embeddings, [n, width].
    """

    name: str
    vectors: Mapping[int, torch.Tensor]

    @property
    def length(self) -> int:
        """Number of token embeddings, of the text encoder that has most."""
        return max(len(rows) for rows in self.vectors.values())


def read_tokens(path: Path) -> list[LearnedToken]:
    """Return the learned tokens in a safetensors file.

    Raises:
        AdapterError: It is damaged, or is no file of token embeddings.
    """
    from safetensors import SafetensorError, safe_open

    from hublora.adapters.tensor_file import read_tensors

    try:
        tensors = read_tensors(path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise AdapterError(f"The embeddings {path.name} cannot be read: {error}.") from error
    rows = _rows(tensors, path.name)
    if set(rows) <= set(_ENCODERS):
        return _by_encoder(rows, metadata)
    if set(rows) == {_AUTOMATIC}:
        return [LearnedToken(path.stem, {0: rows[_AUTOMATIC]})]
    return [LearnedToken(key, {0: tensor}) for key, tensor in rows.items()]


def read_bundled_tokens(path: Path) -> list[LearnedToken]:
    """Return the learned tokens that an adapter's file bundles, none for most files.

    Raises:
        AdapterError: They are of a kind that is not read.
    """
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if is_bundled(name)]  # noqa: SIM118
        rows = _rows({name: file.get_tensor(name) for name in names}, path.name)
    vectors: dict[str, dict[int, torch.Tensor]] = {}
    for name, tensor in rows.items():
        token, _, key = name.removeprefix(BUNDLED).partition(".")
        encoder = 0 if key in _ONE_ENCODER else _ENCODERS.get(key)
        if encoder is None or not token:
            raise AdapterError(
                f"{path.name} bundles token embeddings of a kind that is not read, {name!r}.",
                f"Read are {', '.join((*KEYS, *_ONE_ENCODER[:2]))}.",
            )
        vectors.setdefault(token, {})[encoder] = tensor
    return [LearnedToken(token, found) for token, found in vectors.items()]


def _rows(tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """Return each tensor as [n, width]; `name` is the file's, for messages."""
    import torch

    for key, tensor in tensors.items():
        if tensor.ndim not in (1, 2) or not tensor.numel() or not torch.isfinite(tensor).all():
            raise AdapterError(f"{name} has no usable token embeddings for {key!r}.")
    return {key: tensor.reshape(-1, tensor.shape[-1]) for key, tensor in tensors.items()}


def has_learned_tokens(header: Header) -> bool:
    """Tell from a file's header whether it is one of learned tokens without an adapter."""
    shapes = header.shapes
    named = set(shapes) <= {*_ENCODERS, _AUTOMATIC} or all("." not in key for key in shapes)
    return bool(shapes) and named and all(len(shape) in (1, 2) for shape in shapes.values())


def tokens_by_name(tokens: Sequence[LearnedToken]) -> dict[str, torch.Tensor]:
    """Return a file's tensors as diffusers' textual inversion has them: token -> [n, d].

    For pipelines with one text encoder; `load_textual_inversion` reads a file with one token.
    """
    return {token.name: token.vectors[0] for token in tokens}


def tokens_by_encoder(
    tokens: Sequence[LearnedToken],
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return a file's tensors as diffusers' pivotal tuning has them, clip_l and clip_g, and the
    metadata that maps tokens to rows."""
    import torch

    tensors = {
        KEYS[number]: torch.cat([token.vectors[number] for token in tokens])
        for number in sorted(tokens[0].vectors)
    }
    return tensors, {_NAMES: json.dumps([[token.name, token.length] for token in tokens])}


def _by_encoder(
    rows: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> list[LearnedToken]:
    count = max(len(tensor) for tensor in rows.values())
    names = _stated_names(metadata, count) or [(f"<s{index}>", 1) for index in range(count)]
    ends = [0]
    for _, length in names:
        ends.append(ends[-1] + length)
    return [
        LearnedToken(
            name,
            {
                _ENCODERS[key]: tensor[first:last]
                for key, tensor in rows.items()
                if first < len(tensor)
            },
        )
        for (name, _), (first, last) in zip(names, pairwise(ends), strict=True)
    ]


def _stated_names(metadata: Mapping[str, str], count: int) -> list[tuple[str, int]] | None:
    """Return names and numbers of rows, None unless the metadata states them for all rows."""
    try:
        stated = [(str(name), int(rows)) for name, rows in json.loads(metadata[_NAMES])]
    except (KeyError, ValueError, TypeError):
        return None
    fits = sum(rows for _, rows in stated) == count and all(rows > 0 for _, rows in stated)
    return stated if fits and all(name.strip() for name, _ in stated) else None
