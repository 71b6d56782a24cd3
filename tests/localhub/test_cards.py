"""What a card says, what of it is refused, and what lists make of it."""

from __future__ import annotations

import re

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, ModelCard

from hublora.localhub.store import cards

BASE = "hublora/tiny-sd"


def commit(api, repo, card: str, **files: bytes) -> None:
    """Commit a card, and files beside it."""
    operations = [CommitOperationAdd("README.md", card.encode())]
    operations += [CommitOperationAdd(name, content) for name, content in files.items()]
    api.create_commit(repo, operations, commit_message="card")


@pytest.mark.parametrize(
    ("metadata", "value"),
    [
        ("license: asdf", '"license" must be one of [afl-3.0, agpl-3.0, apache-2.0'),
        ("license: [mit, MIT]", '"license" must be one of'),
        ("license: 3", '"license" must be a string'),
        ("model-index: foo", '"model-index" must be an array'),
        ("model-index: [{name: x}]", 'model-index[0].results" must be an array'),
        (
            "model-index: [{name: x, results: [{task: {type: t}, dataset: {name: d}}]}]",
            'results[0].dataset.type" must be a string',
        ),
        ("base_model: {a: b}", '"base_model" must be a string or a list of strings'),
        ("base_model_relation: child", '"base_model_relation" must be one of [adapter'),
    ],
)
def test_a_card_is_refused_before_anything_is_uploaded(api, repo, metadata, value):
    card = f"---\n{metadata}\n---\nwords\n"
    with pytest.raises(ValueError, match=re.escape(value)):
        commit(api, repo, card)
    assert api.list_repo_files(repo) == [".gitattributes"]


@pytest.mark.parametrize(
    "license",
    ["mit", "openrail++", "bsd-3-clause-clear", "cc-by-nc-4.0", "cdla-sharing-1.0", "other"],
)
def test_licenses_of_the_hub_are_taken(api, repo, license):
    commit(api, repo, f"---\nlicense: {license}\nlicense_name: x\n---\n")
    assert f"license:{license}" in api.model_info(repo).tags


def test_evaluation_results_of_the_clients_own_card_are_taken(api, repo):
    result = {
        "task": {"type": "text-to-image"},
        "dataset": {"type": "me/images", "name": "Images"},
        "metrics": [{"type": "clip_score", "value": 0.3}],
    }
    card = ModelCard("---\nlicense: mit\n---\n")
    card.data["model-index"] = [{"name": "x", "results": [result]}]
    commit(api, repo, str(card))
    assert api.model_info(repo).model_index[0]["results"][0]["metrics"][0]["value"] == 0.3


def test_lines_may_end_as_on_windows_and_no_is_norwegian(api, repo):
    card = "---\ntags: &t [lora, anime]\nlanguage: no\ndatasets: *t\n---\n# Words\n"
    commit(api, repo, card.replace("\n", "\r\n"))
    info = api.model_info(repo)
    assert {"lora", "anime", "no", "dataset:anime"} <= set(info.tags)
    assert info.card_data.language == "no"


@pytest.mark.parametrize(
    ("metadata", "files", "relation"),
    [
        ("tags: [lora]", {}, "adapter"),
        ("tags: [LoRA, template:sd-lora]", {}, "adapter"),
        ("library_name: peft", {}, "adapter"),
        ("", {"adapter_config.json": b"{}"}, "adapter"),
        ("tags: [x]", {}, "finetune"),
        ("tags: [merge]", {}, "merge"),
        ("", {"x.gguf": b"x"}, "quantized"),
        ("base_model_relation: merge\ntags: [lora]", {}, "merge"),
    ],
)
def test_the_relation_to_the_base_is_inferred_as_the_hub_does(api, repo, metadata, files, relation):
    commit(api, repo, f"---\nbase_model: {BASE}\n{metadata}\n---\n", **files)
    assert f"base_model:{relation}:{BASE}" in api.model_info(repo).tags
    asked = api.model_info(repo, expand=["baseModels"])
    assert asked.base_models["relation"] == relation
    found = [model.id for model in api.list_models(filter=f"base_model:{relation}:{BASE}")]
    assert repo in found


def test_two_bases_make_a_merge():
    assert cards.relation({"base_model": ["a/b", "c/d"]}, []) == "merge"
    assert cards.relation({}, ["adapter_config.json"]) is None


def test_a_new_space_has_a_readme_of_its_sdk(api):
    made = api.create_repo("a-nice_space", repo_type="space", space_sdk="gradio").repo_id
    info = api.space_info(made)
    assert [each.rfilename for each in info.siblings] == [".gitattributes", "README.md"]
    assert (info.card_data.sdk, info.card_data.title) == ("gradio", "A Nice Space")
    api.delete_repo(made, repo_type="space")


def test_spaces_are_found_by_the_models_that_they_name(api, repo):
    made = api.create_repo("shows-a-model", repo_type="space", space_sdk="static").repo_id
    card = f"---\nsdk: static\nmodels: [{repo}]\ndatasets: [me/images]\n---\n".encode()
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=made, repo_type="space")
    assert [space.id for space in api.list_spaces(models=repo)] == [made]
    assert [space.id for space in api.list_spaces(datasets="me/images")] == [made]
    assert list(api.list_spaces(models="me/another")) == []
    api.delete_repo(made, repo_type="space")


def test_a_card_is_judged_in_plain_text_for_who_asks_for_it(hub):
    card = "---\nlicense: asdf\n---\n"
    answer = httpx.post(
        f"{hub.url}/api/validate-yaml",
        json={"repoType": "model", "content": card},
        headers={"authorization": f"Bearer {hub.token}", "accept": "text/plain"},
    )
    assert answer.status_code == 400
    assert answer.text.startswith('- Error: "license" must be one of [afl-3.0, ')
