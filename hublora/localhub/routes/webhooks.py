"""Webhooks by the API: a user's own ones, with a token that may write (they have secrets)."""

from __future__ import annotations

from typing import Any

from ..call import Call
from ..routing import Route
from ..store.errors import Forbidden
from ..store.webhooks import Webhook


def listing(call: Call) -> list[dict[str, Any]]:
    """GET /api/settings/webhooks: `list_webhooks`."""
    return [_wire(each) for each in call.store.webhooks.of(_user(call))]


def create(call: Call) -> dict[str, Any]:
    """POST /api/settings/webhooks: `create_webhook`."""
    return {"webhook": _wire(call.store.webhooks.create(_user(call), call.json()))}


def details(call: Call) -> dict[str, Any]:
    """GET /api/settings/webhooks/{name}: `get_webhook`."""
    return {"webhook": _wire(call.store.webhooks.find(_user(call), call.pieces["name"]))}


def update(call: Call) -> dict[str, Any]:
    """POST /api/settings/webhooks/{name}: `update_webhook`."""
    user, webhook_id = _user(call), call.pieces["name"]
    wanted = {key: value for key, value in call.json().items() if key != "disabled"}
    return {"webhook": _wire(call.store.webhooks.update(user, webhook_id, wanted))}


def enable(call: Call) -> dict[str, Any]:
    """POST …/enable: `enable_webhook`."""
    return _switch(call, disabled=False)


def disable(call: Call) -> dict[str, Any]:
    """POST …/disable: `disable_webhook`."""
    return _switch(call, disabled=True)


def delete(call: Call) -> dict[str, Any]:
    """DELETE /api/settings/webhooks/{name}: `delete_webhook`."""
    call.store.webhooks.delete(_user(call), call.pieces["name"])
    return {}


def _switch(call: Call, disabled: bool) -> dict[str, Any]:
    change = {"disabled": disabled}
    return {"webhook": _wire(call.store.webhooks.update(_user(call), call.pieces["name"], change))}


def _user(call: Call) -> int:
    user = call.user()
    if user.role != "write":
        raise Forbidden("Webhooks are looked after with a token of the role 'write'.")
    return user.user_id


def _wire(found: Webhook) -> dict[str, Any]:
    """Return a webhook as `WebhookInfo` of huggingface_hub reads it."""
    return {
        "id": found.id,
        "url": found.url,
        "watched": list(found.watched),
        "domains": list(found.domains),
        "secret": found.secret,
        "disabled": found.disabled,
    }


_ONE = "/api/settings/webhooks/{name}"
ROUTES = [
    Route("GET", "/api/settings/webhooks", listing),
    Route("POST", "/api/settings/webhooks", create),
    Route("GET", _ONE, details),
    Route("POST", _ONE, update),
    Route("DELETE", _ONE, delete),
    Route("POST", _ONE + "/enable", enable),
    Route("POST", _ONE + "/disable", disable),
]
