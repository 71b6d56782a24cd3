"""The datasets library, unmodified, in a process that believes this Hub to be the Hub."""

from __future__ import annotations


def test_an_image_folder_loads_with_its_captions(hub, api, tmp_path, run_python):
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (8, 8), (i * 50, 0, 0)).save(folder / f"{i}.png")
    lines = [f'{{"file_name": "{i}.png", "text": "image {i}"}}\n' for i in range(3)]
    (folder / "metadata.jsonl").write_text("".join(lines))
    api.create_repo("me/image-folder", repo_type="dataset")
    api.upload_folder(folder_path=folder, repo_id="me/image-folder", repo_type="dataset")
    printed = run_python(
        """
        from datasets import load_dataset
        ds = load_dataset("me/image-folder", split="train")
        print(ds[1]["text"], ds[1]["image"].size, len(ds))
        """
    )
    assert printed.split("\n")[-2] == "image 1 (8, 8) 3"


def test_push_to_hub_loads_and_streams_as_parquet(run_python):
    printed = run_python(
        """
        from datasets import Dataset, load_dataset
        made = Dataset.from_dict({"text": [f"row {i}" for i in range(100)]})
        made.push_to_hub("me/rows", private=True)
        print(load_dataset("me/rows", split="train")[99]["text"])
        print(next(iter(load_dataset("me/rows", split="train", streaming=True)))["text"])
        """
    )
    assert printed.split("\n")[-3:-1] == ["row 99", "row 0"]


def test_hf_file_system_reads_and_writes(api, repo, run_python):
    printed = run_python(
        """
        import sys
        from huggingface_hub import HfFileSystem
        fs, repo = HfFileSystem(), sys.argv[1]
        with fs.open(f"{repo}/a/b.txt", "w") as file:
            file.write("hello")
        print(fs.read_text(f"{repo}/a/b.txt"), fs.exists(f"{repo}/nothing"))
        print([p.split("/", 2)[2] for p in fs.find(repo)])
        fs.mv(f"{repo}/a/b.txt", f"{repo}/c.txt")
        print(fs.glob(f"{repo}/*.txt"))
        """,
        repo,
    )
    assert printed.splitlines() == [
        "hello False",
        "['.gitattributes', 'a/b.txt']",
        f"['{repo}/c.txt']",
    ]
