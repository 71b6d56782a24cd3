"""A folder of captioned images is read, and what cannot be used is named."""

from __future__ import annotations

import json
import os

import pytest
from PIL import Image

from hublora.data import DataConfig, Skipped, open_source
from hublora.data.checked_json import read_checked, write_checked
from hublora.data.source import check_there
from hublora.errors import DataError


def names(source):
    return [example.name for example in source.examples]


def write_jsonl(folder, *rows):
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_images_with_text_beside_them(photos, configure):
    source = open_source(configure(folder=photos))
    assert names(source) == [f"{n}.png" for n in range(5)]
    assert [example.captions for example in source.examples][:4] == [
        ("image 0",),
        ("image 1",),
        ("image 2",),
        ("image 0",),
    ]
    assert [example.size for example in source.examples][:2] == [(40, 48), (50, 48)]
    assert (source.id, source.revision, source.license) == ("photos", None, None)
    assert source.examples[0].open().size == (40, 48)
    assert source.skipped_note() is None


def test_metadata_jsonl_in_its_own_order(photos, configure):
    write_jsonl(
        photos,
        {"file_name": "3.png", "text": "three  \n lines", "id": "x"},
        {"file_name": "1.png", "text": "one, \u2028two", "id": "y"},
    )
    source = open_source(configure(folder=photos))
    assert names(source) == ["3.png", "1.png"]
    assert source.examples[0].captions == ("three lines",)
    assert source.examples[1].captions == ("one, two",)
    assert source.caption_column == "text"


def test_metadata_csv_with_a_byte_order_mark(photos, configure):
    rows = 'file_name,prompt\n0.png,"a cat, sitting"\n1.png,\n'
    (photos / "metadata.csv").write_text(rows, encoding="utf-8-sig")
    source = open_source(configure(folder=photos))
    assert source.examples[0].captions == ("a cat, sitting",)
    assert source.caption_column == "prompt"
    assert source.skipped[0] == Skipped("1.png", "has no caption")


def test_a_list_of_captions(photos, configure):
    write_jsonl(photos, {"file_name": "0.png", "captions": ["one", "two", None]})
    assert open_source(configure(folder=photos)).examples[0].captions == ("one", "two")


def test_metadata_in_a_folder_within(photos, configure):
    inner = photos / "inner"
    inner.mkdir()
    (photos / "0.png").rename(inner / "0.png")
    write_jsonl(inner, {"file_name": "0.png", "text": "a"})
    assert names(open_source(configure(folder=photos))) == [
        "inner/0.png",
        *(f"{n}.png" for n in range(1, 5)),
    ]


def test_a_subfolder_named_as_the_split_is_taken(photos, configure):
    (photos / "test").mkdir()
    for name in ("4.png", "4.txt"):
        (photos / name).rename(photos / "test" / name)
    assert names(open_source(configure(folder=photos, split="test"))) == ["4.png"]


def test_hidden_files_are_left_alone(photos, configure):
    (photos / "._0.png").write_bytes(b"resource fork")
    (photos / "__MACOSX").mkdir()
    (photos / "__MACOSX" / "0.png").write_bytes(b"x")
    assert len(open_source(configure(folder=photos, strict=True)).examples) == 5


def test_images_without_a_caption_are_named(photos, configure):
    (photos / "3.txt").unlink()
    source = open_source(configure(folder=photos))
    assert len(source.examples) == 4
    assert source.skipped_note() == "1 of 5 images is skipped: 3.png has no caption"


def test_one_caption_for_all(photos, configure):
    (photos / "3.txt").unlink()
    source = open_source(configure(folder=photos, default_caption="a sks dog"))
    assert source.examples[3].captions == ("a sks dog",)
    assert source.examples[4].captions == ("image 1",)


def test_no_captions_at_all_says_how_to_write_them(photos, configure):
    for path in photos.glob("*.txt"):
        path.unlink()
    with pytest.raises(DataError) as caught:
        open_source(configure(folder=photos))
    assert caught.value.message.startswith("None of the 5 images of photos can be used")
    assert "metadata.jsonl" in caught.value.hint


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_images_are_skipped_and_named(photos, configure, workers):
    (photos / "0.png").write_bytes(b"")
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:500])
    (photos / "2.png").write_text("<html>404</html>")
    source = open_source(configure(folder=photos, num_workers=workers))
    assert names(source) == ["3.png", "4.png"]
    assert [one.name for one in source.skipped] == ["0.png", "1.png", "2.png"]
    assert source.skipped[0].reason == "is empty (0 bytes)"
    assert "damaged" in source.skipped[1].reason


def test_strict_refuses_a_damaged_image(photos, configure):
    (photos / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 image.* of photos cannot be used: 1\.png is empty"):
        open_source(configure(folder=photos, strict=True))


def test_only_damaged_images_are_an_error(photos, configure):
    for path in photos.glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"None of the 5 .* 4\.png is empty"):
        open_source(configure(folder=photos))


def test_an_absolute_name_inside_of_the_folder_says_how_to_write_it(photos, configure):
    write_jsonl(photos, {"file_name": str(photos.resolve() / "0.png"), "text": "a"})
    with pytest.raises(DataError, match="by its absolute path") as caught:
        open_source(configure(folder=photos))
    assert caught.value.hint == "Write it relative to the folder: '0.png'."


@pytest.mark.parametrize(
    "name",
    ["../outside.png", "/etc/passwd", "..\\outside.png", "C:\\a.png", "file:///a.png", "a/../../b"],
)
def test_names_that_lead_out_of_the_folder_are_refused(photos, configure, name):
    Image.new("RGB", (8, 8)).save(photos.parent / "outside.png")
    write_jsonl(photos, {"file_name": name, "text": "a"})
    with pytest.raises(DataError, match="outside of the folder"):
        open_source(configure(folder=photos))


@pytest.mark.parametrize(
    ("linked", "with_metadata"),
    [("0.png", True), ("metadata.jsonl", True), ("0.png", False), ("0.txt", False)],
)
def test_links_that_lead_out_of_the_folder_are_refused(photos, configure, linked, with_metadata):
    if with_metadata:
        write_jsonl(photos, {"file_name": "0.png", "text": "a"})
    (photos / linked).rename(photos.parent / linked)
    os.symlink(photos.parent / linked, photos / linked)
    with pytest.raises(DataError, match="link that leads out of the folder"):
        open_source(configure(folder=photos))


def test_a_folder_that_is_itself_a_link_is_fine(photos, configure):
    os.symlink(photos, photos.parent / "link")
    assert len(open_source(configure(folder=photos.parent / "link")).examples) == 5


def test_a_file_that_is_named_and_not_there_is_skipped(photos, configure):
    write_jsonl(photos, {"file_name": "0.png", "text": "a"}, {"file_name": "9.png", "text": "b"})
    source = open_source(configure(folder=photos))
    assert source.skipped[0] == Skipped("9.png", "cannot be read (No such file or directory)")


def test_images_that_the_metadata_does_not_name_are_named(photos, configure):
    write_jsonl(photos, *({"file_name": f"{n}.png", "text": "a"} for n in range(4)))
    source = open_source(configure(folder=photos, default_caption="a sks dog"))
    assert len(source.examples) == 4
    assert source.skipped_note() == (
        "1 of 5 images is skipped: 4.png is not named in metadata.jsonl"
    )


def test_progress_is_reported_while_images_are_read(photos, configure):
    reported = []
    open_source(configure(folder=photos), lambda *counts: reported.append(counts))
    assert reported == [(n, 5) for n in range(1, 6)]


def test_unknown_caption_column_lists_those_there_are(photos, configure):
    write_jsonl(photos, {"file_name": "0.png", "text": "a", "tags": "b"})
    with pytest.raises(DataError, match=r"no caption column 'prompt'; it has 'text', 'tags'"):
        open_source(configure(folder=photos, caption_column="prompt"))
    with pytest.raises(DataError, match=r"no image column 'img'"):
        open_source(configure(folder=photos, image_column="img"))
    open_source(configure(folder=photos, image_column="image", caption_column="tags"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"file_name": "0.png"', "Line 1 of metadata.jsonl is not JSON"),
        ("[]\n", "Line 1 of metadata.jsonl is not a JSON object"),
        ('{"name": "0.png", "text": "a"}', "has no column 'file_name'; it has name, text"),
        ('{"text": "a"}\n{"file_name": 3}', "metadata.jsonl has a line without a file_name"),
    ],
)
def test_broken_metadata_says_where(photos, configure, content, said):
    (photos / "metadata.jsonl").write_text(content)
    with pytest.raises(DataError, match=said):
        open_source(configure(folder=photos))


def test_an_unquoted_comma_in_csv_says_where(photos, configure):
    (photos / "metadata.csv").write_text("file_name,text\n0.png,a cat, a dog\n")
    with pytest.raises(DataError, match=r"Line 2 of metadata\.csv has more cells"):
        open_source(configure(folder=photos))


def test_text_in_another_encoding_is_named(photos, configure):
    (photos / "0.txt").write_bytes("ein Kätzchen".encode("latin-1"))
    source = open_source(configure(folder=photos))
    assert [(one.name, one.reason) for one in source.skipped] == [
        ("0.png", "has a caption that is not UTF-8 text")
    ]
    with pytest.raises(DataError, match=r"0\.png has a caption that is not UTF-8"):
        open_source(configure(folder=photos, strict=True))


def test_an_empty_folder_is_an_error(tmp_path, configure):
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="none has no images"):
        open_source(configure(folder=tmp_path / "none"))


def test_a_hub_id_given_as_a_folder_says_so(configure):
    with pytest.raises(DataError) as caught:
        open_source(configure(folder="me/pokemon-images"))
    assert caught.value.hint.endswith("--dataset me/pokemon-images")


def test_a_folder_given_as_a_hub_id_says_so(configure):
    with pytest.raises(DataError) as caught:
        open_source(configure(dataset="./photos"))
    assert caught.value.hint.endswith("--folder ./photos")
    with pytest.raises(DataError, match="is a folder, not a dataset"):
        check_there(configure(dataset="./photos"))


def test_exactly_one_of_dataset_and_folder(photos, configure):
    for config in (configure(), configure(folder=photos, dataset="me/images")):
        with pytest.raises(DataError, match=r'Give exactly one of data\.dataset="owner/name"'):
            open_source(config)


def test_a_subset_is_sampled_with_the_seed(photos, configure):
    parts = [
        names(open_source(configure(folder=photos, max_train_samples=3, seed=seed)))
        for seed in (0, 0, 1)
    ]
    assert parts[0] == parts[1] != parts[2]
    assert all(len(set(part)) == 3 for part in parts)


def test_fingerprints_follow_images_and_captions(photos, configure):
    config = configure(folder=photos)
    first = open_source(config)
    assert open_source(config).fingerprint == first.fingerprint
    (photos / "0.txt").write_text("another caption")
    recaptioned = open_source(config)
    assert recaptioned.fingerprint != first.fingerprint
    assert recaptioned.images_fingerprint == first.images_fingerprint
    (photos / "1.png").write_bytes((photos / "2.png").read_bytes())
    assert open_source(config).images_fingerprint != first.images_fingerprint


def test_what_was_seen_of_the_images_is_remembered(photos, configure):
    config = configure(folder=photos)
    first = open_source(config)
    [memory] = (config.cache_root / "image_checks").iterdir()
    remembered = read_checked(memory)
    remembered["seen"][0] = "is odd"
    write_checked(memory, remembered)
    again = open_source(config)
    assert [one.reason for one in again.skipped] == ["is odd"]
    for damaged in (memory.read_text().replace("odd", "off"), "not json"):
        memory.write_text(damaged)
        assert open_source(config) == first


def test_images_are_checked_again_once_pillow_opens_other_formats(photos, configure, monkeypatch):
    config = configure(folder=photos)
    Image.init()
    with monkeypatch.context() as without:
        without.delitem(Image.OPEN, "PNG")
        with pytest.raises(DataError):
            open_source(config)
    assert not open_source(config).skipped


def test_the_cache_folder_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("HUBLORA_CACHE", raising=False)
    assert DataConfig().cache_root == tmp_path / "xdg" / "hublora"
    monkeypatch.setenv("HUBLORA_CACHE", str(tmp_path / "mine"))
    assert DataConfig().cache_root == tmp_path / "mine"
    assert DataConfig(cache_dir=tmp_path / "set").cache_root == tmp_path / "set"
    assert DataConfig().cache_dir is None


def test_the_column_of_the_captions_is_told(photos, configure):
    assert open_source(configure(folder=photos)).captions_from == "the .txt beside each image"
    write_jsonl(photos, {"file_name": "0.png", "artist": "Ada", "prompt": "a cat"})
    source = open_source(configure(folder=photos))
    assert source.captions_from == "column 'prompt' of metadata.jsonl"


@pytest.mark.parametrize("column", ["artist", "image_name", "width", "label"])
def test_a_column_that_does_not_say_caption_is_asked_for(photos, configure, column):
    (photos / "metadata.csv").write_text(f"file_name,{column}\n0.png,7\n1.png,8\n")
    with pytest.raises(DataError, match=f"name says caption.*'{column}': '7', '8'"):
        open_source(configure(folder=photos))
    named = open_source(configure(folder=photos, caption_column=column))
    assert named.examples[0].captions == ("7",)
    filled = open_source(configure(folder=photos, default_caption="a cat"))
    assert [one.captions for one in filled.examples] == [("a cat",)] * 2
    assert filled.captions_from is None


def test_a_list_of_tags_is_one_caption(photos, configure):
    write_jsonl(photos, {"file_name": "0.png", "tags": ["1girl", "red hair", ""]})
    source = open_source(configure(folder=photos, caption_column="tags"))
    assert source.examples[0].captions == ("1girl, red hair",)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("join", ("a cat on a mat",)),
        ("first", ("a cat",)),
        ("any", ("a cat", "on a mat")),
    ],
)
def test_captions_of_several_lines(photos, configure, lines, expected):
    (photos / "0.txt").write_text("\n  a cat\r\n\non a  mat\n")
    settings = {"folder": photos, "caption_lines": lines}
    assert open_source(configure(**settings)).examples[0].captions == expected
    write_jsonl(photos, {"file_name": "0.png", "text": "a cat\non a mat"})
    assert open_source(configure(**settings)).examples[0].captions == expected


def test_metadata_is_about_its_own_folder_alone(photos, configure):
    """A folder with metadata somewhere below does not take the captions of all others away."""
    below = photos / "cats"
    below.mkdir()
    Image.new("RGB", (48, 48)).save(below / "a.png")
    Image.new("RGB", (48, 48), "red").save(below / "b.png")
    write_jsonl(below, {"file_name": "a.png", "text": "a cat"})
    source = open_source(configure(folder=photos))
    captions = {example.name: example.captions for example in source.examples}
    assert captions["cats/a.png"] == ("a cat",)
    assert captions["0.png"] == ("image 0",)
    assert len(captions) == 6
    assert [one.name for one in source.skipped] == ["cats/b.png"]
