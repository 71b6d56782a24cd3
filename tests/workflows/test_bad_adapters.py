"""What is wrong with a file, a card or a ref is one sentence, and leaves a pipeline as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import hublora
from hublora.cli.errors import explain
from hublora.errors import HubloraError
from hublora.generation.token_embeddings import add_tokens
from hublora.resolution.composition_parts import load_adapters, parse_weighted_refs
from hublora.workflows.inspect import preflight
from tests.lora import Weighted, apply_adapters
from tests.workflows.bad_files import FILES, LAYER, MISFITS, pair
from tests.workflows.bad_refs import REFS

ONE = LAYER.removeprefix("unet.")


@pytest.fixture(scope="module")
def pipe(bases: Path) -> Any:
    """One pipeline for everything that is wrong."""
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(bases / "epsilon")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def image(pipe: Any) -> bytes:
    noise = torch.Generator().manual_seed(0)
    result = pipe("a red star", num_inference_steps=1, guidance_scale=1.0, generator=noise)
    return result.images[0].tobytes()


def state(pipe: Any) -> tuple[Any, ...]:
    """Return what else an adapter could change: adapters, layers and tokens."""
    return (
        pipe.get_list_adapters(),
        [type(module).__name__ for module in pipe.unet.modules()],
        len(pipe.tokenizer),
        pipe.text_encoder.get_input_embeddings().weight.shape,
    )


@pytest.fixture(scope="module")
def untouched(pipe: Any) -> tuple[bytes, tuple[Any, ...]]:
    return image(pipe), state(pipe)


def put_on(pipe: Any, ref: str) -> None:
    """Do what `hublora.load` does, on a pipeline that is there."""
    for part in load_adapters(parse_weighted_refs([ref])).adapters:
        add_tokens(pipe, part.tokens, part.label)
        apply_adapters(pipe, [Weighted(part.adapter)], "bases/epsilon")


def sentence_of(error: BaseException) -> str:
    """Return what a person would read, and check that it is a sentence."""
    explained = explain(error)
    assert explained is not None, f"{type(error).__name__} would be a traceback"
    text, status = explained
    assert status == 1
    first = text.partition("Name one:\n")[0]
    assert "\n" not in first.strip()
    assert 20 < len(first) < 600
    assert "Traceback" not in text
    return text


def refusal(action: Any) -> str:
    with pytest.raises(HubloraError) as caught:
        action()
    return sentence_of(caught.value)


# What a header shows that a load refuses.
SHOWN = {
    "a rank of nothing",
    "one half",
    "halves of different rank",
    "three dimensions",
    "a tensor of something else",
    "vectors",
    "numbers",
    "LoHa without a factor",
    "LoKr without a factor",
    "LoKr larger than any layer",
    "LoKr of numbers",
    "OFT",
    "IA3",
    "IA3 with integers",
    "full weights",
    "biases",
}


def test_there_are_enough_of_them() -> None:
    assert len(FILES) >= 80
    assert len(FILES) + len(REFS) >= 130


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_a_sentence_and_changes_nothing(
    pipe: Any, untouched: tuple[bytes, tuple[Any, ...]], tmp_path: Path, name: str
) -> None:
    build, words = FILES[name]
    path = build(tmp_path)
    assert words in refusal(lambda: put_on(pipe, str(path)))
    assert state(pipe) == untouched[1]
    if name in MISFITS:  # the others never reach the pipeline
        assert image(pipe) == untouched[0]
    try:
        (one,) = preflight(str(path), base="bases/epsilon").adapters
    except HubloraError as error:
        sentence_of(error)
    else:  # a header cannot show everything
        assert any("will not load" in said for said in one.problems) == (name in SHOWN), one


def test_after_all_of_them_the_pipeline_takes_what_is_right(
    pipe: Any, untouched: tuple[bytes, tuple[Any, ...]], tmp_path: Path
) -> None:
    assert image(pipe) == untouched[0]
    strong = {key.replace("to_q", "to_v"): 9 * torch.randn_like(x) for key, x in pair().items()}
    save_file(strong, tmp_path / "a.safetensors")
    put_on(pipe, str(tmp_path / "a.safetensors"))
    assert image(pipe) != untouched[0]


@pytest.mark.parametrize("ref", REFS)
def test_a_bad_ref_is_a_sentence(
    hub: object, ref: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (hublora.inspect, lambda ref: load_adapters(parse_weighted_refs([ref]))):
        assert REFS[ref] in refusal(lambda use=use: use(ref))
    assert not list(tmp_path.iterdir())


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

# Front matter -> words of the refusal when no base is named, or the facts that are known then.
CARDS: dict[str, tuple[str | bytes, str]] = {
    "no card": ("", "does not state the base"),
    "no base": ("---\nlicense: mit\n---\n", "does not state the base"),
    "a list of bases": ("---\nbase_model: [me/one, me/two]\n---\n", "does not state the base"),
    "an empty list": ("---\nbase_model: []\n---\n", "does not state the base"),
    "a base that is a number": ("---\nbase_model: 5\n---\n", "does not state the base"),
    "a base that is a table": ("---\nbase_model: {a: b}\n---\n", "does not state the base"),
    "a base that is nowhere": ("---\nbase_model: me/no-such-base\n---\n", "There is no model"),
    "a base that is no repo": ("---\nbase_model: a/b/c\n---\n", "owner/name"),
    "a base that is an address": ("---\nbase_model: https://x.y/z\n---\n", "owner/name"),
    "a base that is a data set": ("---\nbase_model: bases/images\n---\n", "There is no model"),
    "a base that is an adapter": ("---\nbase_model: '../../etc'\n---\n", ""),
    "front matter that is no YAML": ("---\nbase_model: [\n---\n", "does not state the base"),
    "front matter that is a list": ("---\n- a\n- b\n---\n", "does not state the base"),
    "front matter that never ends": ("---\nbase_model: me/x\n", "does not state the base"),
    "a bomb of references": (f"---\n{BOMB}---\n", "does not state the base"),
    "a bomb as the base": (f"---\n{BOMB}base_model: *i\n---\n", "does not state the base"),
    "a reference to itself": ("---\nlicense: &a [*a]\n---\n", "does not state the base"),
    "a tag that runs code": (
        "---\nbase_model: !!python/object/apply:os.system [id]\n---\n", "does not state the base",
    ),
    "no text": (b"---\nlicense: \xff\xfe\n---\n", "does not state the base"),
}  # fmt: skip


@pytest.mark.parametrize("name", CARDS)
def test_a_bad_card_is_a_sentence(hub: object, tmp_path: Path, name: str) -> None:
    text, words = CARDS[name]
    save_file(pair(), tmp_path / "a.safetensors")
    if text:
        (tmp_path / "README.md").write_bytes(text if isinstance(text, bytes) else text.encode())
    said = refusal(lambda: hublora.load(str(tmp_path / "a.safetensors")))
    assert words in said
    (one,) = preflight(str(tmp_path / "a.safetensors"), base="bases/epsilon").adapters
    assert one.fit is not None
    assert one.fit.fraction == 1.0


@pytest.mark.parametrize(
    ("license", "known"),
    [("mit", "mit"), ("nobody-knows-1.0", "nobody-knows-1.0"), ("[mit, apache-2.0]", None),
     ("5", None), ("{a: b}", None)],
)  # fmt: skip
def test_a_licence_is_what_the_card_says_or_unknown(
    tmp_path: Path, license: str, known: str | None
) -> None:
    save_file(pair(), tmp_path / "a.safetensors")
    (tmp_path / "README.md").write_text(f"---\nbase_model: a/b\nlicense: {license}\n---\n")
    (facts,) = hublora.inspect(str(tmp_path / "a.safetensors"))
    assert facts.license == known


ABOUT_AN_ADAPTER = "---\nlicense: mit\nbase_model: a/b\ninstance_prompt: sks\n---\n"


@pytest.mark.parametrize(
    ("folder", "files", "card", "is_its_own"),
    [
        (".", ["a"], ABOUT_AN_ADAPTER, True),
        (".", ["a"], "---\nlicense: mit\ntags: [lora]\ninstance_prompt: sks\n---\n", True),
        # A model folder that several downloads went to, one of them with its card.
        (".", ["a", "b"], ABOUT_AN_ADAPTER, False),
        # A project, or a dataset, that the file was put into.
        (".", ["a"], "---\nlicense: mit\nlibrary_name: transformers\n---\n", False),
        (".", ["a"], "# My project\n\nlicense: mit\n", False),
        # A repo with several adapters, downloaded as it is.
        (f"models--me--x/snapshots/{'a' * 40}", ["a", "b"], ABOUT_AN_ADAPTER, True),
        (".", ["pytorch_lora_weights", "b"], ABOUT_AN_ADAPTER, True),
    ],
)
def test_a_stray_readme_gives_a_file_neither_licence_nor_triggers(
    tmp_path: Path, folder: str, files: list[str], card: str, is_its_own: bool
) -> None:
    place = tmp_path / folder
    place.mkdir(parents=True, exist_ok=True)
    for name in files:
        save_file(pair(), place / f"{name}.safetensors")
    (place / "README.md").write_text(card)
    (facts,) = hublora.inspect(str(place / f"{files[0]}.safetensors"))
    assert (facts.license, facts.trigger_words) == (("mit", ("sks",)) if is_its_own else (None, ()))


def test_a_layer_without_alpha_is_applied_as_it_is(bases: Path, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    from hublora.refs import AdapterRef
    from hublora.resolution.adapter import open_adapter

    save_file(pair(rank=4), tmp_path / "a.safetensors")
    pipe = DiffusionPipeline.from_pretrained(bases / "epsilon")
    adapter = open_adapter(AdapterRef.parse(str(tmp_path / "a.safetensors")))
    name = apply_adapters(pipe, [Weighted(adapter)], "bases/epsilon").name
    (update,) = adapter.layers["unet"].values()
    assert torch.equal(pipe.unet.get_submodule(ONE).lora_B[name].weight, update.up)
