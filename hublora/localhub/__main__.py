"""`python -m hublora.localhub`: the server process behind `LocalHub`.

Prints one JSON line `{"url", "token"}` when it answers, and stops when its stdin closes.
"""

from __future__ import annotations

import argparse
import json
import sys

from hublora.errors import HubloraError

from .app import Settings
from .serve import serve, set_up_logs


def main() -> int:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m hublora.localhub")
    parser.add_argument("--data", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--user", default="me")
    parser.add_argument("--read-only", action="store_true")
    parser.add_argument("--part-bytes", type=int, default=Settings.part_bytes)
    parser.add_argument("--patience", type=float, default=Settings.header_seconds)
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    set_up_logs(args.verbose)
    settings = Settings(
        host=args.host,
        port=args.port,
        user=args.user,
        read_only=args.read_only,
        part_bytes=args.part_bytes,
        header_seconds=args.patience,
        body_seconds=3 * args.patience,
    )
    try:
        serve(args.data, settings, ready=_tell, stop_with_stdin=True)
    except HubloraError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


def _tell(url: str, token: str | None) -> None:
    print(json.dumps({"url": url, "token": token}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
