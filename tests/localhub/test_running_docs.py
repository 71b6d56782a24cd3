"""The commands of docs/running-a-hub.md are run, in their order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from hublora.localhub import import_folder
from hublora.localhub.store import Store
from tests.localhub.test_people import run

DOCS = Path(__file__).parents[2] / "docs" / "running-a-hub.md"


def commands(text: str) -> list[str]:
    """Return the `hublora hub` lines of a page's shell blocks, without `hublora hub`."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    return [
        line.removeprefix("hublora hub ")
        for line in lines
        if line.startswith("hublora hub ") and not line.startswith("hublora hub --data")
    ]


def test_a_team_s_hub_is_run_as_the_page_says(tmp_path: Path) -> None:
    data, model = tmp_path / "hub", tmp_path / "my-model"
    model.mkdir()
    (model / "README.md").write_text("# A model\n")
    Store(data).first_user("me")
    places = {
        "~/hub": str(data),
        "/srv/hub": str(data),
        "/mnt/backup/hub": str(tmp_path / "backup"),
        "/media/disk/my-model": str(model),
    }
    found = commands(DOCS.read_text(encoding="utf-8"))
    assert len(found) > 14
    for line in found:
        if line.startswith("repo move"):  # what people have made meanwhile
            commit = import_folder(data, "ada/lora", model)
            import_folder(data, "studio/old", model)
        if line.startswith("repo revert"):
            line = line.replace("1f3c9a2", commit[:7])
        if line.startswith("repo delete"):
            line = line.replace("repo delete", "repo delete --yes")  # it asks
        for place, own in places.items():
            line = line.replace(place, own)
        done = run(*shlex.split(line, comments=True))
        assert done.exit_code == 0, (line, done.output, done.exception)
    assert Store(tmp_path / "backup").repos.find("model", "studio/my-model")
