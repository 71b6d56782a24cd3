"""Every public method of `HfApi`, and what happens here: the table behind docs/hub-conformance.md.

Needs nothing but huggingface_hub, so that any version of it can be put to the test:

    python -m tests.localhub.conformance URL TOKEN EVES_TOKEN     prints one JSON object

Each method is either tried (`TRIED`: a function that fails when the method does not do its work)
or belongs to a part of the Hub that is not here (`ELSEWHERE`), where a clear refusal is all.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, HfApi, __version__

ORGANISATION = "guild"

ELSEWHERE = {
    "Jobs": "run_job has_job_finished fetch_job_logs fetch_job_metrics list_jobs list_jobs_hardware"
    " inspect_job wait_for_job rerun_job cancel_job update_job_expose update_job_labels run_uv_job"
    " create_scheduled_job list_scheduled_jobs inspect_scheduled_job delete_scheduled_job"
    " suspend_scheduled_job resume_scheduled_job update_scheduled_job_schedule"
    " trigger_scheduled_job update_scheduled_job_labels create_scheduled_uv_job sync_job_volume",
    "Buckets (Xet storage)": "create_bucket bucket_info list_buckets delete_bucket move_bucket"
    " update_bucket_settings list_bucket_tree get_bucket_paths_info copy_files batch_bucket_files"
    " get_bucket_file_metadata download_bucket_files sync_bucket",
    "Inference Endpoints": "list_inference_endpoints create_inference_endpoint"
    " create_inference_endpoint_from_catalog list_inference_catalog get_inference_endpoint"
    " update_inference_endpoint delete_inference_endpoint pause_inference_endpoint"
    " resume_inference_endpoint scale_to_zero_inference_endpoint"
    " list_inference_endpoints_hardware",
    "Running Spaces": "add_space_secret delete_space_secret get_space_secrets get_space_variables"
    " add_space_variable delete_space_variable list_spaces_hardware get_zero_gpu_quota"
    " request_space_hardware set_space_sleep_time pause_space enable_space_dev_mode"
    " disable_space_dev_mode restart_space fetch_space_logs wait_for_space set_space_volumes"
    " delete_space_volumes list_space_templates search_spaces duplicate_space"
    " request_space_storage delete_space_storage",
    "Papers": "list_papers paper_info read_paper list_daily_papers",
    "Kernels": "kernel_info list_kernels",
    "The website": "get_dataset_leaderboard list_dataset_parquet_files"
    " update_collection_resource_group list_organization_followers list_user_followers"
    " list_user_following upload_attachment",
}
# Helpers of the client that ask no server.
LOCAL = "run_as_future url"


class World:
    """One client, a stranger's client, and a repo with something in it."""

    def __init__(self, url: str, token: str, eves_token: str) -> None:
        self.api = HfApi(endpoint=url, token=token)
        self.eve = HfApi(endpoint=url, token=eves_token)
        self.folder = Path(tempfile.mkdtemp(prefix="conformance-"))
        self.number = 0
        self.repo = self.fresh()
        self.api.create_commit(
            self.repo,
            [
                CommitOperationAdd("README.md", b"---\ntags: [lora]\nlicense: mit\n---\n# Hi\n"),
                CommitOperationAdd("a.txt", b"a"),
                CommitOperationAdd("d/b.bin", os.urandom(2000)),
                CommitOperationAdd("model.safetensors", _tensors()),
            ],
            commit_message="fill",
        )

    def fresh(self, **settings: Any) -> str:
        """Return the name of a new repo."""
        self.number += 1
        name = f"me/conformance-{os.getpid()}-{self.number}"
        self.api.create_repo(name, **settings)
        return name

    def put(self, repo: str, path: str = "x.txt", content: bytes = b"x", **where: Any) -> Any:
        """Commit one file."""
        return self.api.upload_file(
            path_or_fileobj=content, path_in_repo=path, repo_id=repo, **where
        )


def _tensors() -> bytes:
    header = (
        b'{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'
    )
    return len(header).to_bytes(8, "little") + header + b"\0" * 24


def check(condition: object, what: str = "") -> None:
    """Fail unless the condition holds."""
    if not condition:
        raise AssertionError(what or "not as expected")


TRIED: dict[str, tuple[str, Callable[[World], None]]] = {}


def tries(area: str, *methods: str) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Register a function as the trial of some methods."""

    def register(function: Callable[[World], None]) -> Callable[[World], None]:
        for method in methods:
            TRIED[method] = (area, function)
        return function

    return register


@tries("People", "whoami", "auth_check", "get_user_overview", "get_full_repo_name")
def _people(w: World) -> None:
    check(w.api.whoami()["name"] == "me")
    w.api.auth_check(w.repo)
    w.api.auth_check(w.repo, write=True)
    check(w.api.get_user_overview("me").username == "me")
    check(w.api.get_full_repo_name("x") == "me/x")


@tries("People", "get_organization_overview", "list_organization_members")
def _organisations(w: World) -> None:
    check(w.api.get_organization_overview(ORGANISATION).name == ORGANISATION)
    check([user.username for user in w.api.list_organization_members(ORGANISATION)] == ["me"])


@tries("Lists", "list_models", "get_model_tags")
def _models(w: World) -> None:
    found = list(w.api.list_models(author="me", filter="lora", sort="last_modified", full=True))
    check(w.repo in [model.id for model in found])
    check("license" in w.api.get_model_tags())


@tries("Lists", "list_datasets", "dataset_info", "get_dataset_tags")
def _datasets(w: World) -> None:
    name = w.fresh(repo_type="dataset")
    check(name in [each.id for each in w.api.list_datasets(author="me", search="conformance")])
    check(w.api.dataset_info(name, files_metadata=True).id == name)
    check(isinstance(w.api.get_dataset_tags(), dict))


@tries("Lists", "list_spaces", "space_info", "get_space_runtime")
def _spaces(w: World) -> None:
    name = w.fresh(repo_type="space", space_sdk="gradio")
    check(name in [each.id for each in w.api.list_spaces(author="me")])
    check(w.api.space_info(name).sdk == "gradio")
    check(w.api.get_space_runtime(name).stage == "STOPPED")


@tries("Lists", "list_user_repos")
def _own(w: World) -> None:
    check(w.repo in [each.id for each in w.api.list_user_repos()])


@tries("Lists", "unlike", "list_liked_repos", "list_repo_likers")
def _likes(w: World) -> None:
    w.api.unlike(w.repo)
    check(w.repo not in w.api.list_liked_repos("me").models)
    check(list(w.api.list_repo_likers(w.repo)) == [])


@tries("Repos", "create_repo", "repo_exists", "delete_repo", "move_repo", "update_repo_settings")
def _repos(w: World) -> None:
    name = w.fresh(private=True)
    check(w.api.repo_exists(name))
    check(not w.eve.repo_exists(name))
    w.api.update_repo_settings(name, private=False)
    check(w.eve.repo_exists(name))
    w.api.move_repo(name, name + "-moved")
    w.api.delete_repo(name + "-moved")
    check(not w.api.repo_exists(name))


@tries("Repos", "duplicate_repo")
def _duplicate(w: World) -> None:
    url = w.api.duplicate_repo(w.repo, f"me/copy-{os.getpid()}")
    check(sorted(w.api.list_repo_files(url.repo_id)) == sorted(w.api.list_repo_files(w.repo)))


@tries(
    "Webhooks",
    "create_webhook",
    "get_webhook",
    "list_webhooks",
    "update_webhook",
    "enable_webhook",
    "disable_webhook",
    "delete_webhook",
)
def _webhooks(w: World) -> None:
    watched = [{"type": "user", "name": "nobody-here"}]
    made = w.api.create_webhook(url="https://hooks.example/x", watched=watched, secret="s")
    check(w.api.get_webhook(made.id).url == "https://hooks.example/x")
    check(w.api.update_webhook(made.id, url="https://hooks.example/y", watched=watched).secret)
    check(w.api.disable_webhook(made.id).disabled and not w.api.enable_webhook(made.id).disabled)
    w.api.delete_webhook(made.id)
    check(made.id not in [each.id for each in w.api.list_webhooks()])


@tries("Reading", "model_info", "repo_info", "revision_exists", "file_exists", "resolve_revision")
def _info(w: World) -> None:
    info = w.api.model_info(w.repo, files_metadata=True)
    check(info.sha == w.api.repo_info(w.repo).sha)
    check("lora" in (info.tags or []))
    check(info.safetensors and info.safetensors.total == 6)
    check(w.api.model_info(w.repo, expand=["downloads"]).downloads is not None)
    check(w.api.revision_exists(w.repo, "main") and not w.api.revision_exists(w.repo, "nothing"))
    check(w.api.file_exists(w.repo, "a.txt") and not w.api.file_exists(w.repo, "nothing"))
    if hasattr(w.api, "resolve_revision"):
        check(w.api.resolve_revision(w.repo))


@tries("Reading", "list_repo_files", "list_repo_tree", "get_paths_info", "list_repo_commits")
def _trees(w: World) -> None:
    check("d/b.bin" in w.api.list_repo_files(w.repo))
    tree = list(w.api.list_repo_tree(w.repo, recursive=True, expand=True))
    check("d/b.bin" in [entry.path for entry in tree])
    check(w.api.get_paths_info(w.repo, ["d", "d/b.bin"], expand=True)[1].lfs.size == 2000)
    check(w.api.list_repo_commits(w.repo, formatted=True)[0].title == "fill")


@tries("Reading", "list_repo_refs", "create_branch", "delete_branch", "create_tag", "delete_tag")
def _refs(w: World) -> None:
    w.api.create_branch(w.repo, branch="a/b")
    w.api.create_tag(w.repo, tag="v1", tag_message="one")
    refs = w.api.list_repo_refs(w.repo, include_pull_requests=True)
    check({branch.name for branch in refs.branches} == {"main", "a/b"})
    w.api.delete_branch(w.repo, branch="a/b")
    w.api.delete_tag(w.repo, tag="v1")
    check(w.api.list_repo_refs(w.repo).tags == [])


@tries("Reading", "hf_hub_download", "snapshot_download", "get_hf_file_metadata")
def _downloads(w: World) -> None:
    path = w.api.hf_hub_download(w.repo, "d/b.bin", cache_dir=w.folder / "cache")
    check(os.path.getsize(path) == 2000)
    w.api.snapshot_download(w.repo, local_dir=w.folder / "local")
    check((w.folder / "local" / "a.txt").read_bytes() == b"a")
    url = f"{w.api.endpoint}/{w.repo}/resolve/main/d/b.bin"
    check(w.api.get_hf_file_metadata(url=url).size == 2000)


@tries("Reading", "verify_repo_checksums")
def _checksums(w: World) -> None:
    w.api.snapshot_download(w.repo, local_dir=w.folder / "verified")
    result = w.api.verify_repo_checksums(w.repo, local_dir=w.folder / "verified")
    check(not result.mismatches, str(result))


@tries(
    "Reading",
    "get_safetensors_metadata",
    "parse_safetensors_file_metadata",
    "get_sharded_safetensors_metadata",
)
def _safetensors(w: World) -> None:
    check(w.api.get_safetensors_metadata(w.repo).parameter_count == {"F32": 6})
    found = w.api.parse_safetensors_file_metadata(w.repo, "model.safetensors")
    check(found.tensors["w"].shape == [2, 3])
    name, index = w.fresh(), {"metadata": {}, "weight_map": {"w": "model-1.safetensors"}}
    w.put(name, "model-1.safetensors", _tensors())
    w.put(name, "model.safetensors.index.json", json.dumps(index).encode())
    check(w.api.get_safetensors_metadata(name).sharded)


@tries("Writing", "create_commit", "preupload_lfs_files")
def _commits(w: World) -> None:
    name, big = w.fresh(), CommitOperationAdd("big.bin", os.urandom(5000))
    w.api.preupload_lfs_files(name, [big])
    w.api.create_commit(name, [big], commit_message="big")
    copy = CommitOperationCopy("big.bin", "copy.bin")
    w.api.create_commit(name, [copy], commit_message="copy")
    check(w.api.get_paths_info(name, ["copy.bin"])[0].lfs.size == 5000)


@tries("Writing", "upload_file", "upload_folder", "delete_file", "delete_files", "delete_folder")
def _uploads(w: World) -> None:
    name, folder = w.fresh(), w.folder / f"up-{w.number}"
    (folder / "d").mkdir(parents=True)
    for path in ("a.txt", "b.txt", "d/c.bin"):
        (folder / path).write_bytes(b"\0" * 10)
    w.api.upload_folder(folder_path=folder, repo_id=name)
    w.put(name, "e.txt")
    w.api.delete_file("e.txt", name)
    w.api.delete_files(name, ["a*"])
    w.api.delete_folder("d", name)
    check(sorted(w.api.list_repo_files(name)) == [".gitattributes", "b.txt"])


@tries("Writing", "upload_large_folder")
def _large_folder(w: World) -> None:
    name, folder = w.fresh(), w.folder / "large"
    folder.mkdir()
    for i in range(5):
        (folder / f"{i}.bin").write_bytes(os.urandom(1000))
    w.api.upload_large_folder(name, folder, repo_type="model", print_report=False)  # type: ignore[attr-defined]
    check(len(w.api.list_repo_files(name)) == 6)


@tries("Writing", "super_squash_history", "list_lfs_files", "permanently_delete_lfs_files")
def _history(w: World) -> None:
    name = w.fresh()
    w.put(name, "a.bin", os.urandom(999))
    w.put(name)
    (found,) = w.api.list_lfs_files(name)
    w.api.permanently_delete_lfs_files(name, [found])
    check(sorted(w.api.list_repo_files(name)) == [".gitattributes", "x.txt"])
    w.api.super_squash_history(name)
    check(len(w.api.list_repo_commits(name)) == 1)


@tries(
    "Pull requests and discussions",
    "create_pull_request",
    "create_discussion",
    "get_discussion_details",
    "get_repo_discussions",
    "comment_discussion",
    "edit_discussion_comment",
    "hide_discussion_comment",
    "rename_discussion",
    "change_discussion_status",
    "merge_pull_request",
)
def _discussions(w: World) -> None:
    name = w.fresh()
    talk = w.eve.create_discussion(name, "A question", description="Why?")
    comment = w.api.comment_discussion(name, talk.num, "Because")
    w.api.edit_discussion_comment(name, talk.num, comment.id, "Because!")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(w.api.hide_discussion_comment(name, talk.num, comment.id).hidden)
    w.api.rename_discussion(name, talk.num, "A good question")
    w.api.change_discussion_status(name, talk.num, "closed")
    proposal = w.eve.create_pull_request(name, "Better")
    w.eve.upload_file(
        path_or_fileobj=b"x", path_in_repo="x", repo_id=name, revision=proposal.git_reference
    )
    check("+x" in str(w.api.get_discussion_details(name, proposal.num).diff))
    w.api.merge_pull_request(name, proposal.num)
    check(w.api.get_discussion_details(name, proposal.num).status == "merged")
    check(len(list(w.api.get_repo_discussions(name))) == 2)


@tries(
    "Collections",
    "create_collection",
    "get_collection",
    "list_collections",
    "update_collection_metadata",
    "add_collection_item",
    "update_collection_item",
    "delete_collection_item",
    "delete_collection",
)
def _collections(w: World) -> None:
    made = w.api.create_collection(f"Best {os.getpid()}", description="of all")
    full = w.api.add_collection_item(made.slug, w.repo, "model", note="good")
    w.api.update_collection_item(made.slug, full.items[0].item_object_id, note="better")
    check(w.api.get_collection(made.slug).items[0].note == "better")
    check(w.api.update_collection_metadata(made.slug, theme="blue").theme == "blue")
    check(made.slug in [each.slug for each in w.api.list_collections(owner="me")])
    w.api.delete_collection_item(made.slug, full.items[0].item_object_id)
    w.api.delete_collection(made.slug)


@tries(
    "Gated access",
    "list_pending_access_requests",
    "list_accepted_access_requests",
    "list_rejected_access_requests",
    "accept_access_request",
    "reject_access_request",
    "cancel_access_request",
    "grant_access",
)
def _gates(w: World) -> None:
    name = w.fresh()
    w.api.update_repo_settings(name, gated="manual")
    w.api.grant_access(name, "eve")
    check(w.eve.list_repo_files(name))
    w.api.reject_access_request(name, "eve", rejection_reason="no")
    check([r.username for r in w.api.list_rejected_access_requests(name)] == ["eve"])
    w.api.cancel_access_request(name, "eve")
    check([r.username for r in w.api.list_pending_access_requests(name)] == ["eve"])
    w.api.accept_access_request(name, "eve")
    check([r.username for r in w.api.list_accepted_access_requests(name)] == ["eve"])


def methods() -> list[str]:
    """Return the public methods of this version's `HfApi`."""
    return [n for n in dir(HfApi) if not n.startswith("_") and callable(getattr(HfApi, n))]


def area_of(method: str) -> str | None:
    """Return the part of the Hub, not here, that a method belongs to."""
    return next((area for area, names in ELSEWHERE.items() if method in names.split()), None)


def run(world: World) -> dict[str, str]:
    """Try every method; return `works`, or why not, for each."""
    outcomes: dict[Callable[[World], None], str] = {}
    results = {}
    for method in methods():
        if method in TRIED:
            trial = TRIED[method][1]
            if trial not in outcomes:
                outcomes[trial] = _outcome(trial, world)
            results[method] = outcomes[trial]
        elif method not in LOCAL.split():
            results[method] = f"not here: {area_of(method)}" if area_of(method) else "unknown"
    return results


def _outcome(trial: Callable[[World], None], world: World) -> str:
    try:
        trial(world)
    except Exception as problem:
        return f"{type(problem).__name__}: {str(problem)[:300]}"
    return "works"


if __name__ == "__main__":
    found = run(World(*sys.argv[1:4]))
    print(json.dumps({"version": __version__, "results": found}))
