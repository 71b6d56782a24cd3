"""What is wrong with a command line is said before the libraries are imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# Commands -> part of the sentence; `empty` is a folder, `notes.txt` a file, `nowhere` neither.
WRONG = {
    "run nonsense a": "Name its owner, too: OWNER/nonsense",
    "run ./nowhere.safetensors a": "There is no file or folder nowhere.safetensors",
    "run notes.txt a": "notes.txt is not a .safetensors file",
    "run --base nonsense a": "'nonsense' is not of the form owner/name",
    "run --base ./empty a": "is not a diffusers pipeline",
    "run a/b a -o a.jpg": "not as .jpg",
    "run a/b a --weight 3=0.5": "matches none of the 1 adapters",
    "inspect ./nowhere": "There is no file or folder nowhere",
    "train --base ./empty --folder images": "is not a diffusers pipeline",
    "train --base a/b --folder nowhere": "The folder nowhere does not exist",
    "train --base a/b --folder images --rank 0": "'adapter.rank' cannot be 0",
    "train --resume nowhere": "There is no run folder or checkpoint 'nowhere'",
    "train --from nonsense": "Name its owner, too",
    "compose a/b": "Add -o FOLDER, --push-to-hub owner/name or both",
    "compose a/b ./nowhere -o mix": "There is no file or folder nowhere",
    "compose a/b -o images": "exists and is not an empty folder",
    "compose a/b --push-to-hub a/b/c": "not of the form owner/name",
    "push empty a/b": "empty has no pytorch_lora_weights.safetensors",
    "push images a/b/c": "has no pytorch_lora_weights.safetensors",
    "verify nonsense": "Name its owner, too",
    "verify ./nowhere": "There is no file or folder nowhere",
    "replay notes.txt": "notes.txt is not a PNG image",
    "caption empty": "empty has no images",
    "caption nowhere": "'nowhere' is not of the form owner/name",
    "outdated nonsense": "Name its owner, too",
    "update ./nowhere": "There is no file or folder nowhere",
}
PROGRAM = """
import contextlib, io, json, sys
from hublora.cli.main import run

found = {}
for command in sys.argv[1:]:
    sys.argv = ["hublora", *command.split()]
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.suppress(SystemExit):
        run()
    heavy = [name for name in ("torch", "diffusers", "transformers") if name in sys.modules]
    found[command] = said.getvalue(), heavy
print(json.dumps(found))
"""


def test_it_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no adapter")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *WRONG],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = json.loads(done.stdout)
    assert {
        command: words in found[command][0] for command, words in WRONG.items()
    } == dict.fromkeys(WRONG, True), found
    assert [command for command, (_, heavy) in found.items() if heavy] == []
