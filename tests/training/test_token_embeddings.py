"""New words: what is learned is the words, and plain diffusers reads them as they were trained."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import hublora
from hublora.errors import ConfigError
from hublora.training.events import StepDone
from hublora.training.loop import train
from hublora.training.session import Session
from tests.tiny import save_images

WORD = "<my-cat>"
WORDS: dict[str, Any] = {
    "tokens__placeholders": [WORD],
    "tokens__initializers": ["cat"],
    "tokens__num_vectors": 2,
    "optimizer__learning_rate": 1e-2,
}
PROMPT = f"a photo of {WORD} on paper"


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_captions_are_counted_with_all_vectors_of_the_placeholders(
    start: Callable[..., Session], bases: Path
) -> None:
    from diffusers import StableDiffusionPipeline

    from hublora.training.token_embeddings import count_tokens

    session = start(method="textual-inversion", **WORDS | {"tokens__num_vectors": 5})
    untouched = StableDiffusionPipeline.from_pretrained(bases / "epsilon", safety_checker=None)
    texts = [PROMPT, "a cat", f"{WORD}'s hat, {WORD}{WORD}", f"({WORD})"]
    real = [session.pipe.maybe_convert_prompt(text, session.pipe.tokenizer) for text in texts]
    expected = session.family.count_tokens(session.pipe, real)
    assert count_tokens(session.config.tokens, session.family, untouched, texts) == expected


def test_captions_that_placeholders_make_too_long_are_told(settings: Callable[..., Any]) -> None:
    config = settings(
        method="textual-inversion",
        schedule__max_train_steps=1,
        validation__num_images=1,
        **WORDS | {"tokens__num_vectors": 28},
    )
    events: list[object] = []
    hublora.train(config, callback=events.append)
    assert [event for event in events if "longer than 32 tokens" in str(event)]


def test_only_the_token_embeddings_are_trained(start: Callable[..., Session]) -> None:
    session = start(method="textual-inversion", **WORDS)
    before = weights(session.pipe.unet) | weights(session.pipe.text_encoder)
    list(train(session))
    after = weights(session.pipe.unet) | weights(session.pipe.text_encoder)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["text_model.embeddings.token_embedding.rows"] or changed == [
        "embeddings.token_embedding.rows"
    ]
    (word,) = session.learned_tokens()
    assert (word.name, word.length) == (WORD, 2)


def test_a_placeholder_begins_as_its_initializer_and_is_that_for_the_base_alone(
    start: Callable[..., Session],
) -> None:
    session = start(method="textual-inversion", **WORDS | {"tokens__num_vectors": 1})
    meaning = session.family.encode_prompts(session.pipe, ["a cat"])["encoder_hidden_states"]

    def encoded() -> torch.Tensor:
        return session.family.encode_prompts(session.pipe, [f"a {WORD}"])["encoder_hidden_states"]

    assert torch.equal(encoded(), meaning)
    list(train(session))
    learned = encoded()
    assert not torch.allclose(learned, meaning, atol=1e-3)
    with session.base_alone():
        assert torch.equal(encoded(), meaning)
    assert torch.equal(encoded(), learned)


def test_captions_contain_the_placeholder(start: Callable[..., Session], tmp_path: Path) -> None:
    named = start(method="textual-inversion", **WORDS).data.captions
    assert named[0] == (f"{WORD}, a red star number 0",)
    folder = save_images(tmp_path / "plain", 2)
    (folder / "metadata.jsonl").unlink()
    (folder / "0.txt").write_text(f"{WORD} on a hill")
    own = {"data__dataset": None, "data__folder": folder, "tokens__property": "style"}
    captions = start(method="textual-inversion", **WORDS, **own).data.captions
    assert captions[0] == (f"{WORD} on a hill",)
    assert len(captions[1]) > 5
    assert f"a painting in the style of {WORD}" in captions[1]


def test_the_adapter_is_frozen_for_the_first_steps(start: Callable[..., Session]) -> None:
    session = start(
        method="pivotal", **WORDS, tokens__first_steps=2, schedule__warmup_steps=1,
        schedule__name="constant_with_warmup", schedule__max_train_steps=5,
    )  # fmt: skip
    begun = [p.detach().clone() for p in session.adapted["unet"].parameters.values()]
    rates, token_rates, moved, learned = [], [], [], []
    for event in train(session):
        if isinstance(event, StepDone):
            rates.append(event.learning_rate)
            token_rates.append(event.token_embedding_lr)
            now = session.adapted["unet"].parameters.values()
            moved.append(any(not torch.equal(*pair) for pair in zip(begun, now, strict=True)))
            learned.append(session.learned_tokens()[0].vectors[0])
    assert moved == [False, False, False, True, True], "the third step is its warm-up's first"
    assert rates == [0.0, 0.0, 0.0, 1e-2, 1e-2]
    assert token_rates[0] == 0
    assert min(token_rates[1:]) > 0, "their learning rate is reported from the first steps"
    assert all(not torch.equal(one, two) for one, two in pairwise(learned))


@pytest.mark.parametrize("base", ["epsilon", "xl"])
def test_a_pivotal_run_is_pushed_verified_and_read_by_diffusers(
    settings, base: str, bases: Path, tmp_path: Path
) -> None:
    repo = f"me/pivotal-run-{base}"
    config = settings(
        method="pivotal", **WORDS, base__model=f"bases/{base}", tokens__first_steps=1,
        validation__prompts=[PROMPT], validation__num_images=1, hub__push=True,
        validation__num_inference_steps=1, hub__model_id=repo, schedule__max_train_steps=3,
    )  # fmt: skip
    result = hublora.train(config)  # verified: the pushed adapter generates the same image
    name = f"embeddings/pivotal-run-{base}.safetensors"
    keys = ["clip_l"] if base == "epsilon" else ["clip_l", "clip_g"]
    learned = load_file(result.folder / name)
    assert {key: len(rows) for key, rows in learned.items()} == dict.fromkeys(keys, 2)
    card = (result.folder / "README.md").read_text()
    assert f'instance_prompt: "{WORD}"' in card
    assert f'pipe(pipe.hublora.prompt("{PROMPT}"))' in card
    plain = _as_the_card_says(card)
    pipe = hublora.load(repo)
    text = pipe.hublora.prompt("a hill")
    assert text == "<a1-my-cat-0><a1-my-cat-1>, a hill"
    assert torch.equal(encode(pipe, text), encode(plain, f"{WORD}, a hill"))


def encode(pipe: Any, prompt: str) -> torch.Tensor:
    with torch.no_grad():
        return pipe.encode_prompt(
            prompt=prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
        )[0]


def _as_the_card_says(card: str) -> Any:
    """Return the pipeline that the card's lines for plain diffusers make."""
    code = card.split("### With diffusers")[1].split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code.split("pipe.to(")[0], names)
    return names["pipe"]


@pytest.mark.parametrize(("base", "words"), [("epsilon", 1), ("epsilon", 2), ("xl", 1)])
def test_token_embeddings_are_a_repo_of_their_own(settings, base: str, words: int) -> None:
    placeholders = [WORD, "<other>"][:words]
    repo = f"me/words-{base}-{words}"
    config = settings(
        method="textual-inversion", **WORDS | {"tokens__placeholders": placeholders},
        base__model=f"bases/{base}", validation__prompts=[PROMPT], validation__num_images=1,
        validation__num_inference_steps=1, hub__push=True, hub__model_id=repo,
        schedule__max_train_steps=2,
    )  # fmt: skip
    folder = hublora.train(config).folder
    assert [path.name for path in folder.glob("*.safetensors")] == ["learned_embeds.safetensors"]
    assert not (folder / "comfyui").exists()
    card = (folder / "README.md").read_text()
    assert "textual_inversion" in card
    assert "- lora" not in card.split("---")[1]
    (facts,) = hublora.inspect(repo)
    assert (facts.methods, facts.base_model) == (("textual-inversion",), f"bases/{base}")
    assert facts.trigger_words == tuple(placeholders)
    plain = _as_the_card_says(card)
    pipe = hublora.load(repo)
    for word in placeholders:
        ours = encode(pipe, pipe.hublora.prompt(f"a {word}", "off"))
        assert torch.equal(ours, encode(plain, f"a {word}"))


def test_token_embeddings_and_adapters_compose(settings) -> None:
    """After the pushes above: words of one repo with the adapter and words of another."""
    pipe = hublora.load("me/words-epsilon-1", "me/pivotal-run-epsilon:0.5")
    text = pipe.hublora.prompt("<1> beside <2>")
    assert text == "<a1-my-cat-0><a1-my-cat-1> beside <a2-my-cat-0><a2-my-cat-1>"
    assert pipe.get_active_adapters()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokens__placeholders": ["cat"]}, "'cat' is a token of the base already"),
        ({"tokens__initializers": ["<|endoftext|>"]}, "has no token in the base"),
        ({"tokens__initializers": ["cat cat"], "tokens__num_vectors": 1}, "is 2 tokens"),
    ],
)
def test_placeholders_that_cannot_be_trained_are_refused_before_any_work(
    settings, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    config = settings(method="textual-inversion", **WORDS | changes)
    with pytest.raises(ConfigError, match=words):
        hublora.train(config)
    assert not list((tmp_path / "run").glob("checkpoint-*"))
