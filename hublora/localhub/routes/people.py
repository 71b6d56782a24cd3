"""People: who am I, who is that; and whether the server is well."""

from __future__ import annotations

from typing import Any

from ..call import Call
from ..routing import Route
from ..store.errors import NotThere


def health(call: Call) -> dict[str, Any]:
    """GET /health: the server and its database answer."""
    call.store.database.row("SELECT 1")
    return {"status": "ok"}


health.always = True  # type: ignore[attr-defined]


def whoami(call: Call) -> dict[str, Any]:
    """GET /api/whoami-v2: `whoami`, `hf auth whoami`."""
    user = call.user()
    return {
        "type": "user",
        "id": str(user.user_id),
        "name": user.name,
        "fullname": user.fullname,
        "email": None,
        "emailVerified": True,
        "canPay": False,
        "periodEnd": None,
        "isPro": False,
        "avatarUrl": "",
        "orgs": [
            {
                "type": "org",
                "name": name,
                "fullname": call.store.people.find(name)["fullname"],
                "roleInOrg": role,
                "isEnterprise": False,
                "avatarUrl": "",
            }
            for name, role in user.organisations.items()
        ],
        "auth": {
            "type": "access_token",
            "accessToken": {
                "displayName": user.token_label,
                "role": user.role,
                "createdAt": user.token_created_at,
            },
        },
    }


def user_overview(call: Call) -> dict[str, Any]:
    """GET /api/users/{name}/overview: `get_user_overview`."""
    row = call.store.people.find(call.pieces["name"])
    if row["kind"] != "user":
        raise NotThere(f"There is no user '{row['name']}'.")
    return {
        "user": row["name"],
        "fullname": row["fullname"],
        "avatarUrl": "",
        "type": "user",
        "isPro": False,
        "createdAt": row["created_at"],
        "orgs": [
            {"name": name, "fullname": call.store.people.find(name)["fullname"], "avatarUrl": ""}
            for name in call.store.people.organisations(row["id"])
        ],
        **_counts(call, row["name"]),
    }


def organisation_overview(call: Call) -> dict[str, Any]:
    """GET /api/organizations/{name}/overview: `get_organization_overview`."""
    row = call.store.people.find(call.pieces["name"])
    if row["kind"] != "org":
        raise NotThere(f"There is no organisation '{row['name']}'.")
    return {
        "name": row["name"],
        "fullname": row["fullname"],
        "avatarUrl": "",
        "type": "org",
        "numUsers": len(call.store.people.members(row["name"])),
        **_counts(call, row["name"]),
    }


def members(call: Call) -> list[dict[str, Any]]:
    """GET /api/organizations/{name}/members: `list_organization_members`."""
    rows = call.store.people.members(call.pieces["name"])
    return [
        {"user": row["name"], "fullname": row["fullname"], "avatarUrl": "", "type": "user"}
        for row in rows
    ]


def _counts(call: Call, owner: str) -> dict[str, int]:
    """Return how many public repos somebody has."""
    rows = call.store.database.rows(
        "SELECT kind, COUNT(*) AS n FROM repos WHERE owner = ? AND private = 0 GROUP BY kind", owner
    )
    counts = {row["kind"]: row["n"] for row in rows}
    return {f"num{kind.title()}s": counts.get(kind, 0) for kind in ("model", "dataset", "space")}


ROUTES = [
    Route("GET", "/health", health),
    Route("GET", "/api/whoami-v2", whoami),
    Route("GET", "/api/users/{name}/overview", user_overview),
    Route("GET", "/api/organizations/{name}/overview", organisation_overview),
    Route("GET", "/api/organizations/{name}/members", members),
]
