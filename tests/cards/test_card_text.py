"""What a person reads on a card."""

from __future__ import annotations

import ast
import re
import shlex

import pytest
from markdown_it import MarkdownIt

from hublora.cards import markdown
from hublora.cards.facts import (
    GalleryImage,
    LicenseFacts,
    RepoFacts,
    TokenEmbeddingFacts,
    TrainingFacts,
)
from hublora.cards.format import format_size
from hublora.cards.metadata import split
from hublora.cards.write import render_card, write_card
from hublora.progress import format_duration
from hublora.quoting import one_line


def html(card: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(split(card)[1])


def code_blocks(card: str, language: str) -> list[str]:
    tokens = MarkdownIt().parse(split(card)[1])
    return [token.content for token in tokens if token.type == "fence" and token.info == language]


def structure(card: str) -> list[str]:
    """Return every tag of the rendered card in order: what a reader's browser builds."""
    return re.findall(r"</?[a-zA-Z!][^\s/>]*", html(card))


def test_write_card_writes_the_readme(make_facts, tmp_path):
    path = write_card(tmp_path, make_facts())
    assert path == tmp_path / "README.md"
    assert path.read_text(encoding="utf-8") == render_card(make_facts())


def test_python_on_the_card_compiles(make_facts):
    blocks = code_blocks(render_card(make_facts()), "python")
    assert len(blocks) == 2
    for block in blocks:
        ast.parse(block)


def test_the_diffusers_code_names_the_file_and_both_revisions(make_facts):
    block = code_blocks(render_card(make_facts()), "python")[1]
    calls = {
        node.func.attr: {
            word.arg: word.value.value
            for word in node.keywords
            if isinstance(word.value, ast.Constant)
        }
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert calls["from_pretrained"] == {"revision": "a" * 40}
    assert calls["load_lora_weights"] == {
        "weight_name": "pytorch_lora_weights.safetensors",
        "revision": "main",
    }


def test_hostile_texts_add_nothing_to_the_page(make_facts, hostile):
    plain, evil = (
        make_facts(
            title=text,
            trigger_words=(text,),
            gallery=(GalleryImage("images/0.png", text, text, 1),),
            training=TrainingFacts(settings={text: text}),
        )
        for text in ("plain words", hostile)
    )
    assert structure(render_card(evil)) == structure(render_card(plain))
    assert "<script" not in html(render_card(evil))
    assert "evil.example" not in "".join(re.findall(r'href="[^"]*"', html(render_card(evil))))


def test_hostile_prompts_stay_one_word_of_the_command_line(make_facts, hostile):
    facts = make_facts(gallery=(GalleryImage("images/0.png", hostile),))
    first = code_blocks(render_card(facts), "sh")[0].splitlines()[0]
    assert shlex.split(first) == ["hublora", "run", "me/sketchbook", one_line(hostile)]
    for block in code_blocks(render_card(facts), "python"):
        assert one_line(hostile) in [
            node.value for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Constant)
        ]


@pytest.mark.parametrize("text", ["`", "``a", "a`", "` `", "a|b", "\\", "\\|", "<b>", "&amp;", "*"])
def test_code_and_inline_show_the_text_itself(text):
    for shown in (markdown.code(text), markdown.inline(text)):
        page = MarkdownIt("commonmark").enable("table").render(f"x {shown}")
        words = re.sub(r"</?(p|code)>", "", page)[2:].rstrip("\n")
        unescaped = words.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        assert unescaped == text


def test_a_folder_without_a_repo_is_used_where_it_lies(make_facts):
    card = render_card(make_facts(repo_id=None))
    assert 'hublora run . "a red cat"' in card
    assert "hf download" not in card
    assert "None" not in card


def test_unknown_licences_are_said_to_be_unknown(make_facts):
    facts = make_facts(base=RepoFacts("a/b"), dataset=RepoFacts("c/d"))
    text = split(render_card(facts))[1]
    assert "The licence of [`a/b`](/a/b) is unknown" in text
    assert "names no licence" in text
    for dataset in (RepoFacts("c/d"), RepoFacts()):
        card = render_card(make_facts(dataset=dataset))
        text = split(card)[1]
        assert "images_license: unknown" in card
        assert "Whether commercial use is allowed is therefore unknown." in text
    assert "The images are not published, and their licence is unknown here." in text


def test_unpublished_images_are_said_to_be_unpublished(make_facts):
    assert "60 images that are not published" in render_card(make_facts(dataset=RepoFacts()))


def test_a_licence_link_cannot_leave_its_link(make_facts):
    terms = LicenseFacts("other", "x](https://evil.example)", "https://a.example/> <script>")
    page = html(render_card(make_facts(base=RepoFacts("a/b", None, terms))))
    assert "<script" not in page
    assert 'href="https://evil.example' not in page


def test_the_least_that_can_be_known_makes_a_card(make_facts):
    facts = make_facts(
        base=RepoFacts(),
        dataset=RepoFacts(),
        dtype=None,
        kohya_path=None,
        rank=None,
        alpha=None,
        size=None,
        components=(),
        targets=(),
        gallery=(),
        before_after=None,
        training=TrainingFacts(config_path=None),
        environment={},
    )
    card = render_card(facts)
    assert "None" not in card
    assert "Make it again" not in card


def test_the_command_line_makes_it_again_where_it_is_known(make_facts):
    command = "hublora train --base a/b \\\n  --dataset c/d"
    card = render_card(make_facts(training=TrainingFacts(command=command)))
    assert code_blocks(card, "sh")[1].strip() == command


@pytest.mark.parametrize(
    ("count", "text"),
    [(999, "999 bytes"), (187_000, "187 kB"), (3_227_000, "3.2 MB")],
)
def test_sizes_read_as_people_write_them(count, text):
    assert format_size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.2, "3 s"), (60, "1 min"), (97.3, "1 min 37 s"), (5025, "1 h 23 min"), (7200, "2 h")],
)
def test_durations_read_as_people_write_them(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize("repo_id", ["me/dog", None])
def test_what_is_not_published_is_asked_for_where_the_adapter_is_made_again(make_facts, repo_id):
    training = TrainingFacts(unpublished=("data.folder",))
    card = render_card(make_facts(dataset=RepoFacts(), training=training, repo_id=repo_id))
    commands = code_blocks(card, "sh")[1]
    start = "--from me/dog" if repo_id else "--config training/config.yaml"
    assert f"hublora train {start} --folder ./your-images\n" in commands
    command = "hublora verify me/dog --reproduce --set data.folder=./your-images\n"
    assert (command in commands) == bool(repo_id)
    assert "Not published, but needed to train it again: the images. Replace" in card
    assert "your-images" not in render_card(make_facts())


def test_everything_that_may_be_unpublished_is_asked_for(make_facts):
    from hublora.workflows.train.recipe import unpublished

    keys = unpublished(
        {
            "base.model": "my-base",
            "data.folder": "dogs",
            "data.archive": "dogs.zip",
            "adapter.start_from": "./other.safetensors",
            "dreambooth.class_folder": "cats",
        }
    )
    assert len(keys) == 5
    commands = code_blocks(render_card(make_facts(training=TrainingFacts(unpublished=keys))), "sh")[
        1
    ]
    for argument in ("--base ./your-base", "--archive ./your-images.zip"):
        assert f" {argument}" in commands
    assert all(f" --set {key}=./your-" in commands for key in keys)
    open_again = {"data.archive": "https://x.example/a.zip", "base.model": "a/b"}
    assert unpublished({**open_again, "adapter.start_from": "c/d@main"}) == ()


def test_the_token_embedding_file_beside_the_adapter_is_counted(make_facts):
    words = TokenEmbeddingFacts("embeddings/dog.safetensors", {"<dog>": 1}, ("clip_l",), 1_000)
    card = render_card(make_facts(token_embeddings=words, size=149_000))
    assert (
        "The adapter and the token embedding are two files of 150 kB together; the base model"
        in card
    )
    assert "It is one file of 149 kB; the" in render_card(make_facts(size=149_000))


def test_the_column_of_the_captions_is_in_the_table(make_facts) -> None:
    training = TrainingFacts(captions_from="column 'prompt' of metadata.csv")
    assert "| Captions | column 'prompt' of metadata.csv |" in render_card(
        make_facts(training=training)
    )


def test_a_base_that_is_not_published_is_named_in_every_call(make_facts):
    card = render_card(make_facts(base=RepoFacts()))
    commands = [line for line in card.splitlines() if line.startswith("hublora run")]
    assert commands
    assert all(line.endswith(" --base path/to/the/base") for line in commands)
    block = code_blocks(card, "python")[0]
    ast.parse(block)
    assert 'base="path/to/the/base")' in block
    assert "names its base model" not in card
