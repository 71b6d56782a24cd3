"""`hublora hub --tls-cert --tls-key`: the clients verify the certificate, and everything works."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from hublora.cli.hub import hub as command

ENTRY = [sys.executable, "-c", "from hublora.cli.hub import hub; hub()"]
pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    made = f"-x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=hub -addext {NAMES}".split()
    subprocess.run(
        ["openssl", "req", *made, "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem", folder / "key.pem"


NAMES = "subjectAltName=IP:127.0.0.1,DNS:localhost"


@pytest.fixture(scope="module")
def server(
    certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """`hublora hub` with that certificate; what it tells people to set."""
    folder = tmp_path_factory.mktemp("https")
    flags = ["--data", folder / "data", "--port", "0", "--env", folder / "env"]
    flags += ["--tls-cert", certificate[0], "--tls-key", certificate[1]]
    with subprocess.Popen([*ENTRY, *flags], stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (folder / "env").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        lines = (folder / "env").read_text().split("export ")[1:]
        yield dict(line.strip().split("=", 1) for line in lines) | {"home": str(folder)}
        process.kill()


def test_the_address_is_https_and_an_unknown_certificate_is_refused(server, certificate):
    url = server["HF_ENDPOINT"]
    assert url.startswith("https://127.0.0.1:")
    known = ssl.create_default_context(cafile=certificate[0])
    assert httpx.get(f"{url}/health", verify=known).json() == {"status": "ok"}
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{url}/health")
    plain = url.replace("https:", "http:")
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{plain}/health")


def test_the_client_and_git_verify_it_and_work(server, certificate, tmp_path):
    environment = os.environ | server | {"HF_HOME": str(tmp_path / "hf")}
    environment |= {"SSL_CERT_FILE": str(certificate[0]), "GIT_SSL_CAINFO": str(certificate[0])}
    script = """
import os
from huggingface_hub import HfApi
api, content = HfApi(), os.urandom(100_000)
repo = api.create_repo("lora").repo_id
done = api.upload_file(path_or_fileobj=content, path_in_repo="w.safetensors", repo_id=repo)
assert done.commit_url.startswith("https://"), done
assert open(api.hf_hub_download(repo, "w.safetensors"), "rb").read() == content
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    address = server["HF_ENDPOINT"] + "/me/lora"
    listed = subprocess.run(
        ["git", "ls-remote", address], env=environment, capture_output=True, text=True, timeout=60
    )
    assert "refs/heads/main" in listed.stdout, listed.stderr


def test_one_flag_without_the_other_is_wrong_usage(certificate, tmp_path):
    told = CliRunner().invoke(
        command, ["--data", str(tmp_path / "data"), "--tls-cert", str(certificate[0])]
    )
    assert (told.exit_code, "belong together" in told.output) == (2, True)
