"""A mirror keeps what is pinned valid: one embedded Hub is the upstream of another."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from hublora.cli.hub import hub as command
from hublora.cli.output import out
from hublora.localhub import LocalHub
from hublora.localhub.store import Store
from tests.localhub.damage import flip_first_byte

WEIGHTS, OTHER = os.urandom(40_000), os.urandom(3000)


@pytest.fixture
def upstream(api: HfApi) -> Iterator[str]:
    """A model with a history, a tag, a branch and large files on the Hub that all tests share."""
    name = "me/base"
    api.create_repo(name)
    put(api, name, {"model_index.json": b"{}", "unet/w.safetensors": WEIGHTS, "w.ckpt": OTHER})
    api.create_tag(name, tag="v1", tag_message="first")
    api.create_branch(name, branch="fp16")
    put(api, name, {"unet/w.safetensors": OTHER * 2}, revision="fp16")
    put(api, name, {"README.md": b"---\nlicense: mit\n---\n# Base\n"})
    yield name
    api.delete_repo(name)


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[LocalHub]:
    """Another Hub, in which nobody has mirrored anything yet."""
    with LocalHub.start(tmp_path / "mine", user="ada", log_file=tmp_path / "log") as hub:
        yield hub


def put(api: HfApi, repo: str, files: dict[str, bytes], **where: str) -> None:
    """Make one commit."""
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    api.create_commit(repo, operations, commit_message="put", **where)


def mirror(tmp_path: Path, *args: str) -> Result:
    """Run `hublora hub mirror` on the folder of the other Hub, which runs meanwhile."""
    out.use(as_json=False, quiet=False)
    return CliRunner().invoke(command, ["mirror", *args, "--data", str(tmp_path / "mine")])


def download(url: str, repo: str, path: str, cache: Path, **where: str) -> Path:
    """Download one file as a client of that Hub."""
    found = hf_hub_download(repo, path, endpoint=url, token=False, cache_dir=cache, **where)
    return Path(found)


def test_over_the_network_everything_keeps_its_commit_id(hub, api, upstream, mine, tmp_path):
    first = api.list_repo_commits(upstream)[1].commit_id
    done = mirror(tmp_path, upstream, "--upstream", hub.url)
    assert done.exit_code == 0, done.output
    sha = api.model_info(upstream).sha
    assert done.stdout == f"me/base@{sha}\n"
    assert "organisation me" in done.stderr
    there = HfApi(endpoint=mine.url, token=False)
    assert there.model_info(upstream).sha == sha
    assert there.list_repo_commits(upstream) == api.list_repo_commits(upstream)
    tags = [(tag.name, tag.target_commit) for tag in there.list_repo_refs(upstream).tags]
    assert tags == [(tag.name, tag.target_commit) for tag in api.list_repo_refs(upstream).tags]
    assert there.model_info(upstream).card_data.license == "mit"
    for revision in (None, "v1", first):
        file = download(mine.url, upstream, "unet/w.safetensors", tmp_path / "c", revision=revision)
        assert file.read_bytes() == WEIGHTS
    # The tree of the other branch is here, its large file was not asked for.
    with pytest.raises(EntryNotFoundError, match="is not here"):
        download(mine.url, upstream, "unet/w.safetensors", tmp_path / "c", revision="fp16")
    assert mirror(tmp_path, upstream, "--upstream", hub.url, "--revision", "fp16").exit_code == 0
    file = download(mine.url, upstream, "unet/w.safetensors", tmp_path / "c", revision="fp16")
    assert file.read_bytes() == OTHER * 2


def test_again_it_brings_what_is_new_and_never_overwrites_what_is_ours(
    hub, api, upstream, mine, tmp_path
):
    assert mirror(tmp_path, upstream, "--upstream", hub.url).exit_code == 0
    put(api, upstream, {"new.txt": b"new"})
    again = mirror(tmp_path, upstream, "--upstream", hub.url)
    assert again.stdout == f"me/base@{api.model_info(upstream).sha}\n"
    assert "organisation" not in again.stderr
    store = Store(tmp_path / "mine")
    store.people.set_member("me", "ada", "write")
    put(HfApi(endpoint=mine.url, token=mine.token), upstream, {"ours.txt": b"ours"})
    put(api, upstream, {"newer.txt": b"newer"})
    refused = mirror(tmp_path, upstream, "--upstream", hub.url)
    assert "already here with commits" in str(refused.exception)
    assert "ours.txt" in HfApi(endpoint=mine.url, token=False).list_repo_files(upstream)


def test_patterns_leave_large_files_out_and_say_so(hub, upstream, mine, tmp_path):
    done = mirror(tmp_path, upstream, "--upstream", hub.url, "--exclude", "*.ckpt")
    assert "Left out: w.ckpt" in done.stderr
    with pytest.raises(EntryNotFoundError):
        download(mine.url, upstream, "w.ckpt", tmp_path / "c")
    assert download(mine.url, upstream, "unet/w.safetensors", tmp_path / "c").exists()


def test_what_upstream_does_not_have_or_give_leaves_nothing(hub, api, mine, tmp_path):
    api.create_repo("me/hidden", private=True)
    for name in ("me/hidden", "me/nothing"):
        assert "cannot be fetched" in str(mirror(tmp_path, name, "--upstream", hub.url).exception)
        with pytest.raises(RepositoryNotFoundError):
            HfApi(endpoint=mine.url, token=mine.token).model_info(name)
    assert [row["name"] for row in Store(tmp_path / "mine").people.everyone()] == ["ada"]
    done = mirror(tmp_path, "me/hidden", "--upstream", hub.url, "--token", hub.token)
    assert done.exit_code == 0, done.output
    api.delete_repo("me/hidden")


def test_an_interrupted_mirror_is_hidden_until_somebody_shows_it(
    hub, api, upstream, mine, tmp_path
):
    store = Store(tmp_path / "mine")
    (entry,) = api.get_paths_info(upstream, ["w.ckpt"])
    there = Store(hub.data_dir).large.path(entry.lfs.sha256)
    there.rename(there.with_name("away"))
    failed = mirror(tmp_path, upstream, "--upstream", hub.url)
    assert "w.ckpt" in str(failed.exception)
    there.with_name("away").rename(there)
    assert [repo.private for repo in store.repos.all()] == [True]
    again = mirror(tmp_path, upstream, "--upstream", hub.url)
    assert again.exit_code == 0, again.output
    assert "hublora hub repo settings me/base --public" in again.stderr
    store.repos.update(store.repos.all()[0], private=False)
    assert "--public" not in mirror(tmp_path, upstream, "--upstream", hub.url).stderr
    assert [repo.private for repo in store.repos.all()] == [False]


def test_a_cached_snapshot_is_served_under_the_id_of_its_commit(hub, upstream, mine, tmp_path):
    cache = tmp_path / "upstream-cache"
    folder = snapshot_download(
        upstream, endpoint=hub.url, token=False, cache_dir=cache, ignore_patterns="*.ckpt"
    )
    sha = Path(folder).name
    done = mirror(tmp_path, folder)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"me/base@{sha}\n"
    assert "the files alone" in done.stderr
    data = ("--data", str(tmp_path / "other"))
    imported = CliRunner().invoke(command, ["import", folder, "me/base", *data])
    assert f"to keep the id: hublora hub mirror {folder}" in imported.stderr
    there = HfApi(endpoint=mine.url, token=False)
    assert there.model_info(upstream).sha == there.model_info(upstream, revision=sha).sha == sha
    assert there.list_models(author="me").__next__().sha == sha
    (branch,) = there.list_repo_refs(upstream).branches
    assert branch.target_commit == there.list_repo_commits(upstream)[0].commit_id == sha
    for revision in (None, "main", sha):
        file = download(mine.url, upstream, "unet/w.safetensors", tmp_path / "c", revision=revision)
        assert file.read_bytes() == WEIGHTS
        assert file.parents[1].name == sha
    info = {e.path: e for e in there.list_repo_tree(upstream, recursive=True, expand=True)}
    assert info["README.md"].last_commit.oid == sha
    with pytest.raises(EntryNotFoundError):
        download(mine.url, upstream, "nothing.txt", tmp_path / "c", revision=sha)
    HfApi(endpoint=mine.url, token=mine.token).duplicate_repo(upstream, "ada/twin")
    twin = HfApi(endpoint=mine.url, token=mine.token).model_info("ada/twin", revision=sha)
    assert twin.sha == sha
    # What was cached from upstream is good here too: not a byte travels again.
    blobs = {path.name for path in cache.rglob("blobs/*")}
    again = download(mine.url, upstream, "model_index.json", tmp_path / "c")
    assert again.resolve().name in blobs
    assert mirror(tmp_path, folder).stdout == done.stdout
    # With the git objects the alias is no longer needed, and nothing changes for anybody.
    shutil.rmtree(cache / "models--me--base" / "refs")
    put(HfApi(endpoint=hub.url, token=hub.token), upstream, {"new.txt": b"new"}, parent_commit=sha)
    later = snapshot_download(upstream, endpoint=hub.url, token=False, cache_dir=cache)
    assert mirror(tmp_path, later).stdout == f"me/base@{Path(later).name}\n"
    assert there.model_info(upstream, revision=sha).sha == sha
    assert there.model_info(upstream).sha == Path(later).name


def test_a_damaged_snapshot_is_refused(hub, upstream, mine, tmp_path):
    folder = snapshot_download(upstream, endpoint=hub.url, token=False, cache_dir=tmp_path / "c")
    for name in ("model_index.json", "unet/w.safetensors"):
        blob = (Path(folder) / name).resolve()
        content = blob.read_bytes()
        flip_first_byte(blob)
        assert mirror(tmp_path, folder).exit_code == 1
        blob.write_bytes(content)
    store = Store(tmp_path / "mine")
    assert store.repos.all() == []
    assert [row["name"] for row in store.people.everyone()] == ["ada"]
    assert mirror(tmp_path, folder).exit_code == 0


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_a_clone_on_a_disk_keeps_its_history(hub, api, upstream, mine, tmp_path):
    env = {**os.environ, "GIT_LFS_SKIP_SMUDGE": "1", "HOME": str(tmp_path)}
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", f"{hub.url}/{upstream}", clone], env=env, check=True)
    # As git-lfs keeps it.
    (entry,) = api.get_paths_info(upstream, ["unet/w.safetensors"])
    oid = entry.lfs.sha256
    kept = clone / ".git" / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
    kept.parent.mkdir(parents=True)
    kept.write_bytes(WEIGHTS)
    done = mirror(tmp_path, str(clone), upstream)
    assert done.exit_code == 0, done.output
    assert "Left out: w.ckpt" in done.stderr
    assert done.stdout == f"me/base@{api.model_info(upstream).sha}\n"
    file = download(mine.url, upstream, "unet/w.safetensors", tmp_path / "c")
    assert file.read_bytes() == WEIGHTS
    unnamed = mirror(tmp_path, str(clone))
    assert "OWNER/NAME" in str(unnamed.exception) + unnamed.output


def test_a_data_folder_on_a_disk_is_carried_to_another_hub(hub, api, upstream, mine, tmp_path):
    out.use(as_json=False, quiet=False)
    disk, sha = tmp_path / "disk", api.model_info(upstream).sha
    command_line = ["mirror", upstream, "--upstream", hub.url, "--data", str(disk)]
    done = CliRunner().invoke(command, command_line)
    assert done.exit_code == 0, done.output
    assert "A new Hub" in done.stderr
    assert mirror(tmp_path, str(disk), upstream).stdout == f"me/base@{sha}\n"
    file = download(mine.url, upstream, "unet/w.safetensors", tmp_path / "c", revision=sha)
    assert file.read_bytes() == WEIGHTS
    assert "not found" in str(mirror(tmp_path, str(disk), "me/nothing").exception)


def test_an_alias_is_carried_along(hub, upstream, mine, tmp_path):
    out.use(as_json=False, quiet=False)
    folder = snapshot_download(upstream, endpoint=hub.url, token=False, cache_dir=tmp_path / "u")
    disk = str(tmp_path / "disk")
    assert CliRunner().invoke(command, ["mirror", folder, "--data", disk]).exit_code == 0
    sha = Path(folder).name
    assert mirror(tmp_path, disk, upstream).stdout == f"me/base@{sha}\n"
    assert HfApi(endpoint=mine.url, token=False).model_info(upstream).sha == sha
    # The real history comes later, over the network, and takes the alias' place.
    done = mirror(tmp_path, upstream, "--upstream", hub.url)
    assert done.stdout == f"me/base@{sha}\n", done.exception
    there = HfApi(endpoint=mine.url, token=False)
    assert len(there.list_repo_commits(upstream, revision=sha)) == 3
