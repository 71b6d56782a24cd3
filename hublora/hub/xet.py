"""Xet, the storage that huggingface.co has large files sent to, at an address of its own."""

from __future__ import annotations

from urllib.parse import urlsplit

from huggingface_hub import constants
from huggingface_hub.utils import get_session
from huggingface_hub.utils._runtime import is_xet_available

from hublora.errors import HubError
from hublora.hub.client import api, translated
from hublora.hub.transport import reason_of, repeated
from hublora.refs import RepoId, parse_repo_id

_ADDRESS = "X-Xet-Cas-Url"  # header of the Hub's answer
_PATIENCE = 20.0  # seconds


def check_xet(*names: str | None) -> None:
    """Check, before any long work, that large files can be sent to where the Hub wants them.

    A Hub that says of none of the repos where that is, and a client without Xet, pass.

    Args:
        names: Repo ids of models, of which some may not exist yet; None is none.

    Raises:
        HubError: The storage cannot be reached, or the Hub itself.
    """
    if not is_xet_available():
        return
    for name in names:
        address = _address(parse_repo_id(name)) if name and "/" in name else None
        if address is None:
            continue
        try:
            get_session().head(address, timeout=_PATIENCE)
        except Exception as error:  # of httpx or httpx2, whichever huggingface_hub is built on
            raise HubError(
                f"The Hub has large files sent to {urlsplit(address).netloc} (Xet), which cannot "
                f"be reached: {reason_of(error)}.",
                "Allow that address in your network, or do without Xet: HF_HUB_DISABLE_XET=1",
            ) from error
        return


def _address(repo_id: RepoId) -> str | None:
    """Return where the Hub has large files of a repo sent, None where it does not say."""
    url = f"{constants.ENDPOINT}/api/models/{repo_id}/xet-read-token/main"
    with translated(f"model {repo_id}"):
        answer = repeated(lambda: get_session().get(url, headers=api()._build_hf_headers()))
    address = answer.headers.get(_ADDRESS)
    return str(address) if answer.status_code == 200 and address else None
