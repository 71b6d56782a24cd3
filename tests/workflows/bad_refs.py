"""Refs that are wrong in one part of the grammar each, or name what is not there.

What is typed -> words of the refusal.
"""

from __future__ import annotations

REFS: dict[str, str] = {
    # nothing to name
    "": "empty",
    "   ": "empty",
    "me/x|": "empty",
    "|me/x": "empty",
    "hf://": "not an adapter ref",
    # owner and name
    "pokemon": "not an adapter ref",
    "-me/x": "not an adapter ref",
    "me/-x": "not an adapter ref",
    "me//x": "not an adapter ref",
    "me/x--y": "owner/name",
    "me/x..y": "owner/name",
    "me/x.git": "owner/name",
    "mé/é": "not an adapter ref",
    "me/x y": "not an adapter ref",
    "me/x\0": "not an adapter ref",
    "me/" + "x" * 300: "not an adapter ref",
    "ftp://me/x": "not an adapter ref",
    "hf://spaces/me/x": "no",
    # revision
    "me/x@": "not an adapter ref",
    "me/x@-v": "not a revision",
    "me/x@a..b": "not a revision",
    "me/x@v1.lock": "not a revision",
    "me/x@v%201": "not a revision",
    "me/x@%2Fetc": "not a revision",
    # path
    "me/x/../y.safetensors": "leaves the repo",
    "me/x/%2E%2E/y.safetensors": "leaves the repo",
    "me/x/a\\b.safetensors": "leaves the repo",
    "me/x/a%00b.safetensors": "leaves the repo",
    "me/x/model.bin": "pickle",
    "me/x@main/model.ckpt": "pickle",
    # weight
    "me/x:strong": "not a number",
    "me/x:": "not a number",
    "me/x:nan": "not a number",
    "me/x:inf": "not a number",
    "me/x:1e999": "between -1000 and 1000, got",
    "me/x:0,5": "not a number",
    "me/x:٣": "not a number",
    "./a.safetensors:half": "not a number",
    # URL
    "https://": "not a URL",
    "https://[::1/a.safetensors": "not a URL",
    "http://example.com/a.safetensors": "not an https URL",
    "https://example.com/a.bin": "does not end in .safetensors",
    "https://me:secret@example.com/a.safetensors": "a user name or password",
    "https://huggingface.co/datasets/me/x": "page of a dataset",
    "https://huggingface.co/me/x/commits/main": "not the page of a repo",
    # this machine
    "./nowhere": "no file or folder",
    "../nowhere.safetensors": "no file or folder",
    "~nobody-is-called-so/x": "no file or folder",
    "/dev/null": "no file or folder",
    # the Hub
    "me/nowhere-to-be-found": "There is no model",
    "bases/images": "There is no model",
    "bases/epsilon@v9": "no revision",
    "bases/epsilon@" + "0" * 40: "no revision",
    "bases/epsilon": "is a base model, not an adapter",
    "bases/epsilon/x.safetensors": "no file 'x.safetensors'",
    "bases/epsilon/README.md": "not a .safetensors file",
}
