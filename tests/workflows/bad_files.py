"""Adapter files that are wrong in one way each: name -> how it is written, words of the refusal.

Each builder gets an empty folder and returns what to load: a file or a folder in it.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save, save_file

Build = Callable[[Path], Path]
Tensors = dict[str, torch.Tensor]

LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"  # 16 wide on the base
DOWN, UP = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"
FLAT = "lora_unet_" + LAYER.removeprefix("unet.").replace(".", "_")
CONV = "unet.down_blocks.0.resnets.0.conv1"
PEFT = "base_model.model." + LAYER.removeprefix("unet.")


def pair(rank: int = 2, width: int = 16) -> Tensors:
    """Return the tensors of an adapter that fits."""
    return {DOWN: torch.ones(rank, width), UP: torch.ones(width, rank)}


def called(old: str, new: str) -> Tensors:
    """Return the tensors of an adapter that fits, by other names."""
    return {key.replace(old, new): tensor for key, tensor in pair().items()}


def bytes_of(make: Callable[[], bytes]) -> Build:
    def build(folder: Path) -> Path:
        (folder / "a.safetensors").write_bytes(make())
        return folder / "a.safetensors"

    return build


def header(entries: object, data: bytes = b"", length: int | None = None) -> Build:
    """Write a file with this header, whatever it says."""

    def make() -> bytes:
        text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + data

    return bytes_of(make)


def entry(begin: int, end: int, shape: object, dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def tensors(make: Callable[[], Tensors], **metadata: str) -> Build:
    def build(folder: Path) -> Path:
        save_file(make(), folder / "a.safetensors", metadata or None)
        return folder / "a.safetensors"

    return build


def cut(keep: int) -> Build:
    return bytes_of(lambda: save(pair())[:keep])


def filled(value: float, dtype: torch.dtype) -> Build:
    return tensors(
        lambda: {key: torch.full_like(x, value, dtype=dtype) for key, x in pair().items()}
    )


def flat(**parts: tuple[int, ...]) -> Build:
    """Write one layer of these parts and shapes in kohya's layout."""
    return tensors(
        lambda: {f"{FLAT}.{part.replace('__', '.')}": torch.ones(s) for part, s in parts.items()}
    )


def peft(config: bytes) -> Build:
    """Write a PEFT folder with these settings."""

    def build(folder: Path) -> Path:
        good = {
            f"{PEFT}.lora_A.weight": torch.ones(2, 16),
            f"{PEFT}.lora_B.weight": torch.ones(16, 2),
        }
        save_file(good, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_bytes(config)
        return folder / "adapter_model.safetensors"

    return build


def settings(**config: Any) -> Build:
    return peft(json.dumps({"peft_type": "LORA", "r": 2, **config}).encode())


def sparse_header(folder: Path) -> Path:
    """A header of 100 MB that is all there, of spaces."""
    path = folder / "a.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 100_000_000))
        file.truncate(100_000_008)
    return path


def torch_file(folder: Path) -> Path:
    torch.save(pair(), folder / "a.safetensors")
    return folder / "a.safetensors"


def old_torch_file(folder: Path) -> Path:
    path = folder / "a.safetensors"
    torch.save(pair(), path, _use_new_zipfile_serialization=False)
    return path


def named(name: str) -> Build:
    def build(folder: Path) -> Path:
        (folder / name).write_bytes(save(pair()))
        return folder / name

    return build


def two_files(folder: Path) -> Path:
    for name in "ab":
        save_file(pair(), folder / f"{name}.safetensors")
    return folder


def folder_called_like_a_file(folder: Path) -> Path:
    (folder / "a.safetensors").mkdir()
    return folder / "a.safetensors"


def loop(folder: Path) -> Path:
    os.symlink("a.safetensors", folder / "a.safetensors")
    return folder / "a.safetensors"


def with_tokens(content: bytes) -> Build:
    """Write an adapter that fits beside learned tokens that do not."""

    def build(folder: Path) -> Path:
        save_file(pair(), folder / "pytorch_lora_weights.safetensors")
        (folder / "embeddings").mkdir()
        (folder / "embeddings" / "tokens.safetensors").write_bytes(content)
        return folder

    return build


def more(**parts: torch.Tensor) -> Build:
    return tensors(
        lambda: pair() | {f"{LAYER}.{k.replace('__', '.')}": x for k, x in parts.items()}
    )


ONE = entry(0, 4, [1])
PICKLE = "pickle file, which can run code"
NO_FIT = "does not fit"

CONTAINERS: dict[str, tuple[Build, str]] = {
    "nothing at all": (bytes_of(lambda: b""), "not a safetensors file"),
    "five bytes": (cut(5), "not a safetensors file"),
    "the length alone": (cut(8), "header"),
    "cut inside the header": (cut(60), "header"),
    "cut inside the data": (cut(-3), "damaged"),
    "a byte too many": (bytes_of(lambda: save(pair()) + b"x"), "damaged"),
    "a header longer than the file": (header({}, length=5_000), "header"),
    "a header longer than any file": (header({}, length=2**63), "not a safetensors file"),
    "a header of 100 MB": (sparse_header, "not a safetensors file"),
    "a header of length 0": (header(b"", b"\0" * 64), "not a safetensors file"),
    "a header that is no JSON": (header(b"{'a': 1}"), "header"),
    "a header that is no text": (header(b"\xff\xfe" * 40), "header"),
    "a header that is a list": (header([1, 2]), "header"),
    "a header without end": (header(b"[" * 200_000), "header"),
    "the same name twice": (
        header(b'{"%s":%s,"%s":%s}' % (*[DOWN.encode(), b"1"] * 2,)), "header",
    ),
    "an entry that is text": (header({DOWN: "x"}), "header"),
    "no offsets": (header({DOWN: {"dtype": "F32", "shape": [1]}}), "header"),
    "offsets of text": (header({DOWN: entry("0", "4", [1])}), "header"),  # type: ignore[arg-type]
    "overlapping data": (header({DOWN: ONE, UP: ONE}, b"1234"), "header"),
    "a gap in the data": (header({DOWN: ONE, UP: entry(8, 12, [1])}, b"x" * 12), "header"),
    "data that ends first": (header({DOWN: entry(4, 0, [1])}), "header"),
    "a negative side": (header({DOWN: entry(0, 4, [-1, -1])}, b"1234"), "header"),
    "half a side": (header({DOWN: entry(0, 4, [0.5, 2])}, b"1234"), "header"),
    "a shape of another size": (header({DOWN: entry(0, 4, [9, 9])}, b"1234"), "header"),
    "an unknown type": (
        header({DOWN: entry(0, 128, [2, 16], "F99"), UP: entry(128, 256, [16, 2])}, b"\0" * 256),
        "damaged",
    ),
    "metadata that is no text": (header({"__metadata__": {"a": 1}, DOWN: ONE}, b"1234"), "header"),
    "metadata that is a list": (header({"__metadata__": ["a"], DOWN: ONE}, b"1234"), "header"),
    "a rank of a million in the header": (
        header({
            DOWN: entry(0, 64 * 10**6, [10**6, 16]),
            UP: entry(64 * 10**6, 128 * 10**6, [16, 10**6]),
        }),
        "damaged",
    ),
    "a rank of 10^18 in the header": (
        header({DOWN: entry(0, 64 * 10**18, [10**18, 16])}), "header",
    ),
    "a pickle by torch": (torch_file, PICKLE),
    "a pickle by old torch": (old_torch_file, PICKLE),
    "a pickle": (bytes_of(lambda: pickle.dumps({"a": 1}, protocol=4) * 9), PICKLE),
    "a web page": (bytes_of(lambda: b"<!doctype html><title>Sign in</title>" * 9), "web page"),
    "an image": (bytes_of(lambda: b"\x89PNG\r\n\x1a\n" + b"\0" * 99), "not a safetensors file"),
    "a pointer to a large file": (
        bytes_of(lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "pointer",
    ),
    "a checkpoint by its ending": (named("a.ckpt"), "not a .safetensors file"),
    "a .bin": (named("a.bin"), "not a .safetensors file"),
    "a folder called like a file": (folder_called_like_a_file, "got: none"),
    "a folder without adapters": (lambda folder: folder, "got: none"),
    "a folder with two": (two_files, "a.safetensors"),
    "a link to itself": (loop, "is a link to a file that does not exist"),
}  # fmt: skip

TENSORS: dict[str, tuple[Build, str]] = {
    "no tensors": (tensors(dict), "not a LoRA adapter"),
    "NaN": (filled(float("nan"), torch.float32), "not finite"),
    "infinity in half precision": (filled(float("inf"), torch.float16), "not finite"),
    "minus infinity in bfloat16": (filled(-float("inf"), torch.bfloat16), "not finite"),
    "a rank of nothing": (tensors(lambda: pair(rank=0)), "do not match"),
    "one half": (tensors(lambda: {DOWN: torch.ones(2, 16)}), "only some of the parts"),
    "halves of different rank": (
        tensors(lambda: {**pair(), UP: torch.ones(16, 3)}), "do not match",
    ),
    "vectors": (tensors(lambda: {DOWN: torch.ones(2), UP: torch.ones(2)}), "do not match"),
    "numbers": (tensors(lambda: {DOWN: torch.ones(()), UP: torch.ones(())}), "do not match"),
    "three dimensions": (
        tensors(lambda: {DOWN: torch.ones(2, 16, 1), UP: torch.ones(16, 2, 1)}), "do not match",
    ),
    "whole numbers": (tensors(lambda: {k: x.int() for k, x in pair().items()}), "floating-point"),
    "the weights of a model": (
        tensors(lambda: {"conv_in.weight": torch.ones(2, 2)}), "not a LoRA adapter",
    ),
    "a tensor of something else": (more(strange=torch.ones(2)), "is of no kind"),
    "a layer under two names": (more(lora__down__weight=torch.zeros(2, 16)), "twice"),
    "an alpha of three numbers": (more(alpha=torch.ones(3)), "must be one number"),
    "an alpha that is no number": (more(alpha=torch.tensor(float("nan"))), "not finite"),
    "settings that are no JSON": (tensors(pair, lora_adapter_metadata="{"), "not valid JSON"),
    "settings that are a list": (
        tensors(pair, lora_adapter_metadata="[1]"), "must be a JSON object",
    ),
    "an alpha of text in the settings": (
        tensors(pair, lora_adapter_metadata='{"unet.lora_alpha": "much"}'),
        "must be a finite number",
    ),
    "an alpha beyond all numbers": (
        tensors(pair, lora_adapter_metadata='{"unet.lora_alpha": 1%s}' % ("0" * 400)),
        "must be a finite number",
    ),
    "an expression as a layer's name": (
        tensors(pair, lora_adapter_metadata='{"unet.alpha_pattern": {"(a+)+$": 1}}'),
        "not the name of a layer",
    ),
    "PEFT settings that are no JSON": (peft(b"{"), "is not valid JSON"),
    "PEFT settings that are no text": (peft(b"\xff\xfe\x00"), "is not valid JSON"),
    "PEFT settings that are a list": (peft(b"[]"), "must be a JSON object"),
    "PEFT settings without end": (peft(b"[" * 100_000), "is not valid JSON"),
    "a kind of PEFT that is not read": (settings(peft_type="VERA"), "got VERA"),
    "a PEFT alpha of text": (settings(lora_alpha="strong"), "must be a finite number"),
    "DoRA for some layers": (
        tensors(lambda: pair() | {
            f"{CONV}.lora_A.weight": torch.ones(2, 16, 3, 3),
            f"{CONV}.lora_B.weight": torch.ones(16, 2, 1, 1),
            f"{CONV}.lora_magnitude_vector": torch.ones(1, 16, 1, 1),
        }),
        "have none",
    ),
    "DoRA of another length": (more(lora_magnitude_vector=torch.ones(7)), "7 values for 16"),
    "DoRA of inputs": (
        flat(lora_down__weight=(2, 16), lora_up__weight=(16, 2), dora_scale=(1, 16)),
        "of its inputs",
    ),
    "LoHa without a factor": (flat(hada_w1_a=(16, 2), hada_w1_b=(2, 16)), "only some of the parts"),
    "LoHa that does not multiply": (
        flat(hada_w1_a=(16, 2), hada_w1_b=(3, 16), hada_w2_a=(16, 2), hada_w2_b=(2, 16)),
        "do not match",
    ),
    "LoKr without a factor": (flat(lokr_w1=(4, 4), lokr_w2_a=(4, 2)), "only some of the parts"),
    "LoKr larger than any layer": (
        flat(lokr_w1=(200, 200), lokr_w2=(200, 200)), "more than any layer",
    ),
    "LoKr of numbers": (flat(lokr_w1=(), lokr_w2=()), "do not match"),
    "LoCon with a core that does not fit": (
        flat(
            lora_down__weight=(2, 16, 1, 1),
            lora_mid__weight=(3, 3, 3, 3),
            lora_up__weight=(16, 2, 1, 1),
        ),
        "do not match",
    ),
    "OFT": (flat(oft_blocks=(4, 4, 4)), "contains OFT"),
    "IA3 with integers": (
        tensors(
            lambda: {f"{FLAT}.weight": torch.ones(16, 1), f"{FLAT}.on_input": torch.tensor(1)}
        ),
        "contains IA3",
    ),
    "IA3": (flat(weight=(16,), on_input=(1,)), "contains IA3"),
    "full weights": (flat(diff=(16, 16)), "contains full weights"),
    "biases": (more(diff_b=torch.ones(16)), "contains full biases"),
}  # fmt: skip

MISFITS: dict[str, tuple[Build, str]] = {
    "no layer of the base": (
        tensors(lambda: called("down_blocks.0", "down_blocks.7")),
        "1 layers 1 are not in the base",
    ),
    "one layer too many": (
        tensors(lambda: pair() | called("to_q", "to_z")),
        "2 layers 1 are not in the base",
    ),
    "another width": (tensors(lambda: pair(width=32)), "1 have another shape"),
    "a kernel on a linear layer": (
        tensors(lambda: {DOWN: torch.ones(2, 16, 3, 3), UP: torch.ones(16, 2, 1, 1)}),
        "1 have another shape",
    ),
    "another kernel": (
        tensors(lambda: {
            f"{CONV}.lora_A.weight": torch.ones(2, 16, 5, 5),
            f"{CONV}.lora_B.weight": torch.ones(16, 2, 1, 1),
        }),
        "1 have another shape",
    ),
    "another family": (
        tensors(lambda: called("unet", "transformer")), NO_FIT,
    ),
    "two families in one file": (
        tensors(lambda: pair() | called("unet", "transformer")), NO_FIT,
    ),
    "SDXL's second text encoder": (
        tensors(lambda: pair() | called("unet", "text_encoder_2")), NO_FIT,
    ),
    "SDXL in kohya's names": (
        tensors(lambda: {
            "lora_unet_input_blocks_9_1_proj_in.lora_down.weight": torch.ones(2, 16),
            "lora_unet_input_blocks_9_1_proj_in.lora_up.weight": torch.ones(16, 2),
        }),
        NO_FIT,
    ),
    "LoKr of another shape": (flat(lokr_w1=(4, 4), lokr_w2=(5, 4)), "1 have another shape"),
    "tokens of another width": (with_tokens(save({"clip_l": torch.ones(2, 999)})), "999 wide"),
    "tokens for an encoder that is missing": (
        with_tokens(save({"clip_l": torch.ones(2, 32), "clip_g": torch.ones(2, 48)})), "missing",
    ),
    "tokens that are not finite": (
        with_tokens(save({"clip_l": torch.full((2, 32), float("nan"))})),
        "no usable token embeddings",
    ),
    "tokens that cannot be read": (with_tokens(b"\0" * 9), "cannot be read"),
}  # fmt: skip

FILES = CONTAINERS | TENSORS | MISFITS
