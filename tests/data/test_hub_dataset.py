"""Datasets on a real Hub: found, pinned, read without decoding, and there offline afterwards."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hublora.data import Source, open_source
from hublora.errors import DataError, NotFoundError
from tests.data.images import png
from tests.data.tables import IMAGES, parquet, row

# Places outside of a dataset's own repo, as `data_files` may name them.
FOREIGN = (
    "http://127.0.0.1:9/a.parquet",
    "hf://datasets/me/parquet/data/*.parquet",
    "zip://a.txt::data.zip",
    "/etc/hostname",
    "~/a.csv",
    "../parquet/a.csv",
    "file:///etc/hostname",
)

CONFIGS = """---
configs:
- config_name: small
  data_files: small.parquet
- config_name: large
  data_files: large.parquet
---
"""
CAPTIONED = [{"file_name": f"{n}.png", "captions": [f"a {n}", "b"]} for n in range(2)]


def configs_naming(path: str, name: str) -> bytes:
    """Return metadata whose second configuration names `path`."""
    text = json.dumps({"configs": [
        {"config_name": "a", "data_files": "a.csv"},
        {"config_name": "b", "data_files": [{"split": "train", "path": ["a.csv", path]}]},
    ]})  # fmt: skip
    return (f"---\n{text}\n---\n" if name == "README.md" else text).encode()


def repos() -> dict[str, dict[str, bytes]]:
    """Return what each dataset repo holds."""
    metadata = "".join(json.dumps(line) + "\n" for line in CAPTIONED).encode()
    folder = {"metadata.jsonl": metadata, "0.png": png(0), "1.png": png(1)}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writing:
        for name, content in folder.items():
            writing.writestr(name, content)
    unusable = [
        row(9, None),
        {"image": {"bytes": b"junk", "path": "junk.png"}, "text": "a"},
        {"image": {"bytes": None, "path": "/etc/hostname"}, "text": "a"},
        {"image": {"bytes": None, "path": "http://127.0.0.1/a.png"}, "text": "a"},
        {"image": None, "text": "a"},
    ]
    many = [row(n, f"cap {n}", url="http://x") for n in range(4)]
    return {
        "me/parquet": {
            "data/train-00000-of-00001.parquet": parquet(many, **IMAGES, url="string"),
            "data/test-00000-of-00001.parquet": parquet(many[:1], **IMAGES, url="string"),
            "README.md": b"---\nlicense: cc0-1.0\n---\n",
        },
        "me/unusable": {"train.parquet": parquet([row(0, "a"), *unusable], **IMAGES)},
        "me/folder": folder,
        "me/zipped": {"train.zip": archive.getvalue()},
        "me/configs": {
            "README.md": CONFIGS.encode(),
            "small.parquet": parquet(many[:1], **IMAGES),
            "large.parquet": parquet(many, **IMAGES),
        },
        "me/texts": {"train.parquet": parquet([{"text": "a"}], text="string")},
        "me/artists": {
            "train.parquet": parquet(
                [row(n, None, artist=f"artist {n}", tags=["red", "cat"]) for n in range(5)],
                image="Image",
                artist="string",
                tags="strings",
            )
        },
        "me/pairs": {
            "README.md": b"---\nlicense: cc0-1.0\n---\n",
            **{f"cats/{n}[a].png": png(n) for n in range(2)},
            **{f"cats/{n}[a].txt": f"a {n}".encode() for n in range(2)},
        },
        **{
            f"me/foreign-{n}": {name: configs_naming(path, name), "a.csv": b"text\na\n"}
            for n, (path, name) in enumerate(
                [*((path, "README.md") for path in FOREIGN), (FOREIGN[0], ".huggingface.yaml")]
            )
        },
        "me/bomb": {"train.parquet": parquet([row(0, "a" * (1 << 20))] * 160, **IMAGES)},
        "me/no-captions": {"train.parquet": parquet([row(0, "a")], image="Image")},
        "me/no-rows": {"train.parquet": parquet([], **IMAGES)},
        "me/no-files": {},
    }


@pytest.fixture(scope="module", autouse=True)
def seeded(hub) -> None:
    """Put the repos on the session's Hub."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    for repo, files in repos().items():
        api.create_repo(repo, repo_type="dataset")
        adding = [CommitOperationAdd(name, content) for name, content in files.items()]
        if adding:
            api.create_commit(repo, adding, commit_message="Add", repo_type="dataset")


@pytest.fixture
def read(configure):
    """Open a dataset, given settings."""

    def open_dataset(dataset: str, **settings: object) -> Source:
        return open_source(configure(dataset=dataset, **settings))

    return open_dataset


def listed(source: Source) -> list[tuple[str, tuple[str, ...], tuple[int, int]]]:
    return [(one.name, one.captions, one.open().size) for one in source.examples]


def test_a_parquet_dataset_is_pinned_and_read(read):
    source = read("me/parquet")
    assert (source.id, source.license) == ("me/parquet", "cc0-1.0")
    assert len(source.revision) == 40
    assert (source.image_column, source.caption_column) == ("image", "text")
    assert listed(source) == [(f"row {n} ({n}.png)", (f"cap {n}",), (48, 32)) for n in range(4)]
    assert source.examples[0].size == (48, 32)
    assert not source.skipped
    assert read("me/parquet", revision=source.revision).fingerprint == source.fingerprint


@pytest.mark.parametrize("repo", ["me/folder", "me/zipped"])
def test_an_imagefolder_dataset_is_read(read, repo):
    source = read(repo)
    assert (source.image_column, source.caption_column) == ("image", "captions")
    assert listed(source) == [(f"row {n} ({n}.png)", (f"a {n}", "b"), (48, 32)) for n in range(2)]
    assert source.license is None


def test_images_with_text_beside_them_are_read(read, configure):
    from huggingface_hub import snapshot_download

    source = read("me/pairs")
    expected = [(f"cats/{n}[a].png", (f"a {n}",), (48, 32)) for n in range(2)]
    assert listed(source) == expected
    assert (source.id, source.license) == ("me/pairs", "cc0-1.0")
    assert len(source.revision) == 40
    assert source.captions_from == "the .txt beside each image"
    folder = snapshot_download("me/pairs", repo_type="dataset")
    assert listed(open_source(configure(folder=folder))) == expected
    with pytest.raises(DataError, match="is not streamed"):
        read("me/pairs", streaming=True, max_train_samples=1)


def test_a_folder_that_is_not_on_the_hub_is_hinted(read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toys" / "car").mkdir(parents=True)
    with pytest.raises(NotFoundError) as caught:
        read("toys/car")
    assert caught.value.hint == "For the folder, use: --folder toys/car"


def test_rows_that_cannot_be_used_are_named(read):
    source = read("me/unusable")
    assert [one.name for one in source.examples] == ["row 0 (0.png)"]
    assert [(one.name, one.reason) for one in source.skipped] == [
        ("row 2 (junk.png)", "is not an image of a known format"),
        ("row 3 (hostname)", "is only a link (/etc/hostname)"),
        ("row 4 (a.png)", "is only a link (http://127.0.0.1/a.png)"),
        ("row 5", "is missing"),
        ("row 1 (9.png)", "has no caption"),
    ]
    with pytest.raises(DataError, match=r"5 images of me/unusable cannot be used: row 2 "):
        read("me/unusable", strict=True)


def test_splits_and_parts_of_them(read):
    assert len(read("me/parquet", split="test").examples) == 1
    assert len(read("me/parquet", split="train[1:3]").examples) == 2
    sampled = read("me/parquet", max_train_samples=2)
    assert len(sampled.examples) == 2
    assert sampled.fingerprint != read("me/parquet").fingerprint


def test_a_subset_is_the_one_that_datasets_samples(read):
    import datasets

    whole = datasets.load_dataset("me/parquet", split="train")
    expected = whole.shuffle(seed=3).select(range(2))["text"]
    sampled = read("me/parquet", max_train_samples=2, seed=3)
    assert [one.captions[0] for one in sampled.examples] == list(expected)


def test_an_unknown_split_lists_those_there_are(read):
    with pytest.raises(DataError) as caught:
        read("me/parquet", split="validation")
    assert caught.value.message == (
        "The dataset me/parquet has no split 'validation'; choose from 'train', 'test'."
    )
    assert caught.value.hint == "Name one with --split train."


@pytest.mark.parametrize(
    ("name", "problem"), [(None, "has several configurations"), ("x", "has no configuration 'x'")]
)
def test_an_unknown_configuration_lists_those_there_are(read, name, problem):
    with pytest.raises(DataError) as caught:
        read("me/configs", config_name=name)
    assert caught.value.message == (
        f"The dataset me/configs {problem}; choose from 'small', 'large'."
    )
    assert len(read("me/configs", config_name="small").examples) == 1


def test_an_unknown_column_lists_those_there_are(read):
    with pytest.raises(DataError, match="no caption column 'txt'; it has 'text', 'url'"):
        read("me/parquet", caption_column="txt")
    with pytest.raises(DataError, match="no image column 'img'; it has 'image'"):
        read("me/parquet", image_column="img")


def test_a_dataset_without_images_says_so(read):
    with pytest.raises(DataError, match="has no column with images, only 'text'"):
        read("me/texts")


@pytest.mark.parametrize("settings", [{}, {"streaming": True, "max_train_samples": 2}])
def test_a_column_that_does_not_say_caption_is_asked_for(read, settings):
    with pytest.raises(DataError, match=r"'artist 0', 'artist [1-9]'.*'tags': 'red, cat'"):
        read("me/artists", **settings)
    named = read("me/artists", caption_column="tags", **settings)
    assert named.examples[0].captions == ("red, cat",)
    assert named.captions_from == "column 'tags'"
    filled = read("me/artists", default_caption="a cat", **settings)
    assert filled.examples[0].captions == ("a cat",)
    assert filled.captions_from is None


def test_a_dataset_without_captions_can_be_given_one(read):
    with pytest.raises(DataError, match="has no column with captions, only 'image'") as caught:
        read("me/no-captions")
    assert "default_caption" in caught.value.hint
    one = read("me/no-captions", default_caption="a sks dog")
    assert listed(one) == [("row 0 (0.png)", ("a sks dog",), (48, 32))]


@pytest.mark.parametrize("repo", ["me/no-rows", "me/no-files"])
def test_an_empty_dataset_says_so(read, repo):
    with pytest.raises(DataError, match=f"The dataset {repo} has no images"):
        read(repo)


def test_what_is_not_on_the_hub_is_not_found(read):
    with pytest.raises(NotFoundError):
        read("me/nothing")
    with pytest.raises(NotFoundError):
        read("me/parquet", revision="nothing")
    with pytest.raises(NotFoundError) as caught:
        read("lambdalabs/pokemon-blip-captions")
    assert "lambdalabs/naruto-blip-captions" in caught.value.hint


def test_a_folder_of_the_same_name_is_not_mistaken_for_the_dataset(read, tmp_path, monkeypatch):
    (tmp_path / "me" / "parquet").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert len(read("me/parquet").examples) == 4


# The libraries look at HF_HUB_OFFLINE when they are imported, so offline is another process.
OFFLINE = """
import json, sys
from hublora.data import DataConfig, open_source
from hublora.errors import HubloraError
for settings in json.load(sys.stdin):
    try:
        source = open_source(DataConfig(**settings))
        images = [list(one.open().size) for one in source.examples]
        answer = [source.revision, source.fingerprint, source.license, images]
    except HubloraError as error:
        answer = [type(error).__name__, str(error)]
    print("@" + json.dumps(answer))
"""


def test_what_was_read_once_is_there_offline(read, tmp_path: Path):
    known = [
        {"dataset": "me/parquet"},
        {"dataset": "me/folder"},
        {"dataset": "me/configs", "config_name": "small"},
        {
            "dataset": "me/parquet",
            "streaming": True,
            "max_train_samples": 2,
            "cache_dir": str(tmp_path / "cache"),
        },
    ]
    expected = [
        [one.revision, one.fingerprint, one.license, [list(e.size) for e in one.examples]]
        for one in (read(**settings) for settings in known)
    ]
    unknown = [
        {"dataset": "me/never"},
        {"dataset": "me/parquet", "revision": "0" * 40},
        {**known[-1], "max_train_samples": 3},
    ]
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        input=json.dumps([*known, *unknown]),
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HUBLORA_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [json.loads(line[1:]) for line in done.stdout.splitlines() if line[0] == "@"]
    assert answers[:4] == expected
    for kind, message in answers[4:]:
        assert kind == "HubError"
        assert "HF_HUB_OFFLINE" in message


@pytest.mark.parametrize("number", range(len(FOREIGN) + 1))
@pytest.mark.parametrize("streaming", [False, True])
def test_files_outside_of_the_dataset_are_refused(read, number, streaming):
    settings = {"streaming": True, "max_train_samples": 1} if streaming else {}
    with pytest.raises(DataError, match="names a file outside of itself in") as caught:
        read(f"me/foreign-{number}", config_name="a", **settings)
    assert repr((*FOREIGN, FOREIGN[0])[number]) in str(caught.value)


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(read):
    with pytest.raises(
        DataError, match=r"train\.parquet .* unpacks to over 128 MiB, more than 200"
    ):
        read("me/bomb")


def test_bars_of_the_libraries_stay_away_and_stay_on(hub, read, capfd, monkeypatch):
    from datasets.utils import are_progress_bars_disabled, enable_progress_bars
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo("me/without-bars", repo_type="dataset")
    table = parquet([row(0, "a")], **IMAGES)
    api.upload_file(
        path_or_fileobj=table,
        path_in_repo="train.parquet",
        repo_id="me/without-bars",
        repo_type="dataset",
    )
    monkeypatch.setenv("TQDM_POSITION", "-1")  # bars without a terminal
    # A command line that ran in this process before has set it, and it has priority.
    bars = sys.modules["datasets.utils.tqdm"]
    monkeypatch.setattr(bars, "HF_DATASETS_DISABLE_PROGRESS_BARS", None)
    enable_progress_bars()
    capfd.readouterr()
    read("me/without-bars")
    assert "it/s" not in (said := capfd.readouterr().err)
    assert "Generating" not in said
    assert not are_progress_bars_disabled()
