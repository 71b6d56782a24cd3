"""What the Hub reads of a card."""

from __future__ import annotations

import pytest
import yaml
from huggingface_hub import ModelCard

from hublora.cards import metadata
from hublora.cards.facts import GalleryImage, LicenseFacts, RepoFacts
from hublora.cards.write import render_card


def entries(card: str) -> dict:
    """Read the front matter as the Hub's own client does."""
    return ModelCard(card).data.to_dict()


def test_front_matter_names_everything_galleries_look_for(make_facts):
    found = entries(render_card(make_facts()))
    assert found == {
        "base_model": "someone/base",
        "base_model_relation": "adapter",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "instance_prompt": "sketchbook style",
        "license": "openrail",
        "images_license": "cc-by-4.0",
        "datasets": ["someone/images"],
        "tags": [
            "text-to-image",
            "diffusers",
            "diffusers-training",
            "lora",
            "template:sd-lora",
            "stable-diffusion",
            "stable-diffusion-diffusers",
            "hublora",
        ],
        "widget": [
            {
                "text": "a red cat",
                "parameters": {"negative_prompt": "blurry"},
                "output": {"url": "images/0.png"},
            },
            {"text": "a blue fish", "output": {"url": "images/1.png"}},
        ],
    }


def test_what_is_unknown_has_no_key(make_facts):
    facts = make_facts(base=RepoFacts(), dataset=RepoFacts(), trigger_words=(), gallery=())
    absent = {"base_model", "base_model_relation", "license", "datasets", "instance_prompt"}
    assert not absent & entries(render_card(facts)).keys()


def test_an_other_licence_keeps_its_name_and_link(make_facts):
    terms = LicenseFacts("other", "flux-1-dev-non-commercial-license", "https://example.org/terms")
    found = entries(render_card(make_facts(base=RepoFacts("a/b", None, terms))))
    assert found["license"] == "other"
    assert found["license_name"] == "flux-1-dev-non-commercial-license"
    assert found["license_link"] == "https://example.org/terms"


def test_an_own_licence_goes_before_the_bases(make_facts):
    card = render_card(make_facts(license=LicenseFacts("cc-by-nc-4.0")))
    assert entries(card)["license"] == "cc-by-nc-4.0"
    assert "images_license" not in entries(card)
    assert "The adapter's licence is **cc-by-nc-4.0**." in card


@pytest.mark.parametrize(
    "word", ["1e3", "0o17", "on", "null", "~", "12:30", "- a", "@x", "=", "#a"]
)
def test_a_trigger_stays_text_for_every_yaml_reader(make_facts, word):
    card = render_card(make_facts(trigger_words=(word,)))
    assert entries(card)["instance_prompt"] == word
    # PyYAML is a YAML 1.1 reader; for the Hub's 1.2 the value must not look like a number either.
    line = next(line for line in card.splitlines() if line.startswith("instance_prompt"))
    assert line.split(": ", 1)[1][0] in "'\""


def test_hostile_texts_stay_values(make_facts, hostile):
    facts = make_facts(trigger_words=(hostile,), gallery=(GalleryImage("images/0.png", hostile),))
    found = entries(render_card(facts))
    assert found["license"] == "openrail"
    shown = found["widget"][0]["text"]
    assert shown == found["instance_prompt"]
    assert "<script>alert(1)</script>" in shown
    assert "\n" not in shown


def test_equal_values_are_never_aliases(make_facts):
    same = "the same words"
    gallery = tuple(GalleryImage(f"images/{number}.png", same, same) for number in range(3))
    yaml_text, _ = metadata.split(render_card(make_facts(gallery=gallery)))
    assert not any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(yaml_text))


def test_a_licence_that_the_hub_does_not_list_is_named_as_other(hub, make_facts):
    """Otherwise the push after the training would be refused."""
    card = render_card(make_facts(license=LicenseFacts("studio-terms-2")))
    found = entries(card)
    assert (found["license"], found["license_name"]) == ("other", "studio-terms-2")
    ModelCard(card).validate()
