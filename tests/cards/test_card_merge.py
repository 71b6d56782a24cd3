"""A re-push brings a card up to date and leaves a person's words alone."""

from __future__ import annotations

import pytest
from huggingface_hub import ModelCard

from hublora.cards import user_sections
from hublora.cards.facts import GalleryImage, LicenseFacts, RepoFacts, TrainingFacts
from hublora.cards.merge import merge_card
from hublora.cards.metadata import join, split
from hublora.cards.write import render_card, write_card

OPEN, CLOSE = "<!-- hublora:keep -->", "<!-- /hublora:keep -->"  # as a person types them
WORDS = "It draws like my *daughter*.\n\n---\n\n```\n# not a heading\n```"


@pytest.fixture
def old(make_facts) -> str:
    return render_card(make_facts())


@pytest.fixture
def newer(make_facts) -> str:
    gallery = (GalleryImage("images/0.png", "a green house", "", 9),)
    return render_card(make_facts(gallery=gallery, training=TrainingFacts(steps=1234)))


def write_words(card: str, words: str) -> str:
    """Replace what is between the first markers, as a person does in an editor."""
    lines = card.split("\n")
    start = next(n for n, line in enumerate(lines) if line.startswith("<!-- hublora:keep"))
    return "\n".join([*lines[: start + 1], words, *lines[lines.index(CLOSE) :]])


def kept(card: str) -> list[str]:
    return [section.text for section in user_sections.find(split(card)[1])]


def add_keys(card: str, lines: str) -> str:
    yaml_text, body = split(card)
    return join(f"{yaml_text}\n{lines}", body)


def data(card: str) -> dict:
    return ModelCard(card).data.to_dict()


def test_an_untouched_card_becomes_the_new_one(old, newer):
    assert merge_card(old, newer) == newer


def test_words_between_the_markers_stay_and_facts_are_new(old, newer):
    merged = merge_card(write_words(old, WORDS), newer)
    assert kept(merged) == [WORDS]
    assert "| Steps | 1234 |" in merged
    assert data(merged)["widget"][0]["text"] == "a green house"


def test_merging_again_changes_nothing(old, newer):
    once = merge_card(write_words(old, WORDS), newer)
    assert merge_card(once, newer) == once


def test_words_with_windows_line_ends_stay(old, newer):
    merged = merge_card(write_words(old, "one\ntwo").replace("\n", "\r\n"), newer)
    assert kept(merged) == ["one\ntwo"]


def test_regions_that_a_person_added_stay(old, newer):
    edited = old + f"\n## Thanks\n\n{OPEN}\nto Ana\n{CLOSE}\n\n{OPEN}\nto Bo\n{CLOSE}\n"
    assert kept(merge_card(edited, newer))[1:] == ["to Ana", "to Bo"]


def test_a_body_without_markers_is_all_the_persons(old, newer):
    body = "# My adapter\n\nEvery word of this is mine.\n"
    merged = merge_card(join(split(old)[0], body), newer)
    assert split(merged)[1].strip() == body.strip()
    assert data(merged)["widget"][0]["text"] == "a green house"


@pytest.mark.parametrize("marker", ["<!-- hublora:keep", CLOSE])
def test_one_lost_marker_loses_no_words(old, newer, marker):
    lines = write_words(old, WORDS).split("\n")
    edited = "\n".join(line for line in lines if not line.startswith(marker))
    assert split(merge_card(edited, newer))[1].strip() == split(edited)[1].strip()


def test_words_edited_in_the_folder_go_to_the_hub(old):
    pushed = merge_card("", write_words(old, WORDS))
    assert kept(merge_card(pushed, write_words(pushed, "Better words."))) == ["Better words."]


def test_words_edited_on_the_hub_stay_when_the_folder_is_pushed_again(old):
    pushed = merge_card("", write_words(old, WORDS))
    assert kept(merge_card(write_words(pushed, "Better words."), pushed)) == ["Better words."]


def test_words_edited_at_both_ends_all_stay(old):
    pushed = merge_card("", write_words(old, WORDS))
    hub, folder = write_words(pushed, "From the Hub."), write_words(pushed, "From the folder.")
    assert kept(merge_card(hub, folder)) == ["From the Hub.", "From the folder."]


def test_words_removed_on_the_hub_stay_away(old, newer):
    pushed = merge_card("", write_words(old, WORDS))
    assert kept(merge_card(write_words(pushed, ""), pushed)) == [""]
    assert kept(merge_card(write_words(pushed, ""), newer)) == [""]


def test_a_body_rewritten_in_the_folder_goes_to_the_hub(old):
    rewritten = join(split(old)[0], "# All mine\n")
    assert split(merge_card(old, rewritten))[1].strip() == "# All mine"


def test_a_card_by_somebody_else_is_kept_as_words(newer):
    foreign = "---\nlicense: mit\n---\n# Mine\n<Gallery />\n\nHand-written.\n"
    merged = merge_card(foreign, newer)
    assert kept(merged) == ["Hand-written."]
    assert merged.count("<Gallery />") == 1
    assert "| Steps | 1234 |" in merged


@pytest.mark.parametrize("empty", ["", "---\n---\n", "---\ntags: [x]\n---\n", "\n\n"])
def test_an_empty_card_becomes_the_new_one(empty, newer):
    assert split(merge_card(empty, newer))[1] == split(newer)[1]


def test_a_description_fills_an_unwritten_region_only(old, make_facts):
    described = render_card(make_facts(description="From the config."))
    assert kept(merge_card(old, described)) == ["From the config."]
    merged = merge_card(write_words(old, WORDS), described)
    assert kept(merged) == [WORDS]


def test_keys_that_hublora_does_not_write_stay_as_typed(old, newer):
    lines = "language: no  # Norwegian\nextra_gated_prompt: |\n  ---\n  Be kind.\nthumbnail: 1e3"
    merged = merge_card(add_keys(old, lines), newer)
    assert "language: no  # Norwegian\n" in merged
    assert data(merged)["extra_gated_prompt"] == "---\nBe kind.\n"
    assert merge_card(merged, newer) == merged


def test_added_tags_stay_and_another_familys_go(old, make_facts):
    edited = old.replace("- hublora\n", "- hublora\n- cats\n")
    other = render_card(make_facts(family_tags=("other-family",)))
    tags = data(merge_card(edited, other))["tags"]
    assert tags[-1] == "cats"
    assert "other-family" in tags
    assert "stable-diffusion" not in tags


def with_license(card: str, license: str) -> str:
    yaml_text, body = split(card)
    lines = [line for line in yaml_text.split("\n") if not line.startswith("license:")]
    return join("\n".join([*lines, f"license: {license}"]), body)


def test_the_inherited_licence_follows_the_base(old, make_facts):
    moved = render_card(make_facts(base=RepoFacts("another/base", None, LicenseFacts("mit"))))
    assert data(merge_card(old, moved))["license"] == "mit"


def test_a_licence_set_on_the_hub_stays(old, newer):
    once = merge_card(with_license(old, "cc-by-nc-4.0"), newer)
    assert data(once)["license"] == "cc-by-nc-4.0"
    assert data(merge_card(once, newer))["license"] == "cc-by-nc-4.0"
    assert data(merge_card(with_license(once, "mit"), once))["license"] == "mit"


def test_a_licence_set_in_the_folder_goes_to_the_hub(old):
    once = merge_card(old, with_license(old, "cc-by-nc-4.0"))
    assert data(once)["license"] == "cc-by-nc-4.0"
    assert data(merge_card(once, with_license(once, "mit")))["license"] == "mit"


def test_a_licence_chosen_with_the_new_repo_stays(newer):
    assert data(merge_card("---\nlicense: mit\n---\n", newer))["license"] == "mit"


def test_a_licence_set_where_none_was_known_stays(make_facts):
    unknown = render_card(make_facts(base=RepoFacts("someone/base")))
    assert data(merge_card(with_license(unknown, "mit"), unknown))["license"] == "mit"


def test_write_card_keeps_a_persons_words(old, make_facts, tmp_path):
    path = write_card(tmp_path, make_facts(), previous=write_words(old, WORDS))
    assert kept(path.read_text(encoding="utf-8")) == [WORDS]


def test_keys_typed_in_the_folder_go_to_the_hub_once(old):
    lines = "language: no\nthumbnail: x.png"
    pushed = merge_card("", add_keys(old, lines))
    assert split(merge_card(pushed, pushed))[0].count("language: no") == 1


@pytest.mark.parametrize(
    "yaml_text",
    [
        "a: &a [x]\nb: *a",
        "{: :",
        "- a\n- b",
        "just words",
        "a: !!python/name:os.system x",
        "a: !!bool x",
        "? a\n: b",
    ],
)
def test_front_matter_that_cannot_be_read_does_no_harm(newer, yaml_text):
    merged = merge_card(f"---\n{yaml_text}\n---\nWords.\n", newer)
    assert data(merged)["base_model"] == "someone/base"
    assert kept(merged) == ["Words."]


def test_a_description_cannot_close_its_region(make_facts, hostile, newer):
    card = render_card(make_facts(description=f"{hostile}\n{CLOSE}\nmore"))
    assert len(kept(card)) == 1
    assert kept(card)[0].endswith("more")
