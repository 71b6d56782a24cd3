"""Learned tokens: two adapters that both call theirs <s0> compose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hublora.adapters.embeddings import read_tokens
from hublora.errors import AdapterError
from hublora.generation.token_embeddings import add_tokens

WIDTH = 32


def rows(pipe: Any, text: str) -> torch.Tensor:
    """Return the embedding of each token of `text`, markers left out."""
    ids = pipe.tokenizer(text).input_ids[1:-1]
    return pipe.text_encoder.get_input_embeddings().weight[ids]


def test_two_adapters_that_both_learned_s0_keep_their_own(pipe: Any, tmp_path: Path) -> None:
    vectors = [torch.full((2, WIDTH), float(value)) for value in (1, 2)]
    names = []
    for number, tensor in enumerate(vectors):
        file = tmp_path / f"{number}.safetensors"
        save_file({"clip_l": tensor}, file)
        names.append(add_tokens(pipe, read_tokens(file), f"me/{number}"))
    assert set(names[0]) == set(names[1]) == {"<s0>", "<s1>"}
    for own, tensor in zip(names, vectors, strict=True):
        found = rows(pipe, "a".join(name for part in own.values() for name in part))
        assert torch.equal(found[[0, -1]], tensor)


def test_a_token_of_several_vectors_is_several_tokens(pipe: Any, tmp_path: Path) -> None:
    tensor = torch.randn(3, WIDTH)
    save_file({"<toy>": tensor}, tmp_path / "toy.safetensors")
    names = add_tokens(pipe, read_tokens(tmp_path / "toy.safetensors"), "me/toy")
    assert torch.equal(rows(pipe, "".join(names["<toy>"])), tensor)


def test_an_automatic1111_file_is_called_by_its_name(tmp_path: Path) -> None:
    save_file({"emb_params": torch.ones(2, WIDTH)}, tmp_path / "easy.safetensors")
    (token,) = read_tokens(tmp_path / "easy.safetensors")
    assert (token.name, token.length) == ("easy", 2)


def test_another_width_is_refused_and_nothing_changes(pipe: Any, tmp_path: Path) -> None:
    save_file({"<toy>": torch.ones(WIDTH + 1)}, tmp_path / "toy.safetensors")
    before = len(pipe.tokenizer)
    with pytest.raises(AdapterError, match=r"<toy> of me/toy is 33 wide"):
        add_tokens(pipe, read_tokens(tmp_path / "toy.safetensors"), "me/toy")
    assert len(pipe.tokenizer) == before
    assert len(pipe.text_encoder.get_input_embeddings().weight) == before


@pytest.mark.parametrize("tensor", [torch.tensor([float("nan")]), torch.ones(1, 1, 1)])
def test_broken_embeddings_are_refused(tensor: torch.Tensor, tmp_path: Path) -> None:
    save_file({"<toy>": tensor}, tmp_path / "toy.safetensors")
    with pytest.raises(AdapterError, match=r"no usable token embeddings for '<toy>'"):
        read_tokens(tmp_path / "toy.safetensors")
