"""Keys: who may use the routes under /v1. A key's settings say what it may spend."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.config import KeySettings
from gateway.errors import Unauthorized
from gateway.http.error_bodies import error_response

__all__ = ["Keys", "add_security", "key_digest", "key_name_of", "key_of", "new_key", "owner_of"]

_KEY = "thinkgate.key"
_KEY_NAME = "thinkgate.key_name"
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "As OpenAI's clients send a key."},
    "x-api-key": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "As Anthropic's clients send a key.",
    },
}


def new_key() -> str:
    """Return a new key of 256 random bits."""
    return f"tg-{secrets.token_urlsafe(32)}"


def key_digest(key: str) -> str:
    """Return the hash of a key. Plain SHA-256 is enough, because nobody can try out 256 random bits."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_of(request: Request) -> KeySettings | None:
    """Return the settings of the request's key, or None if the gateway has no keys."""
    key: KeySettings | None = request.scope.get(_KEY)
    return key


def key_name_of(request: Request) -> str:
    """Return the name of the request's key in the settings, or "" if the gateway has no keys."""
    return str(request.scope.get(_KEY_NAME, ""))


def owner_of(request: Request) -> str:
    """Return the digest of the request's key, which owns the answers, or "" if the gateway has no keys."""
    key = key_of(request)
    return key.secret_sha256 if key else ""


class Keys:
    """ASGI middleware that answers 401 to a request under /v1 without a known key."""

    def __init__(self, app: ASGIApp, keys: Mapping[str, KeySettings]) -> None:
        self._app = app
        self._keys = [(key.secret_sha256.encode(), name, key) for name, key in keys.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its key's settings, or refuse it."""
        if scope["type"] == "http" and (scope["path"] == "/v1" or scope["path"].startswith("/v1/")):
            keys = _keys_in(HTTPConnection(scope))
            known = next((entry for key in keys if (entry := self._find(key)) is not None), None)
            if known is None:
                error, headers = _refusal(bool(keys)).body()["error"], {"WWW-Authenticate": "Bearer"}
                await error_response(scope["path"], error, 401, headers)(scope, receive, send)
                return
            scope[_KEY_NAME], scope[_KEY] = known
        await self._app(scope, receive, send)

    def _find(self, key: str) -> tuple[str, KeySettings] | None:
        """Return the name and settings of a key. Compare it with all, so that the time reveals nothing."""
        key_hash, match = key_digest(key).encode(), None
        for known_hash, name, settings in self._keys:
            if hmac.compare_digest(known_hash, key_hash):
                match = name, settings
        return match


def _keys_in(request: HTTPConnection) -> list[str]:
    """Return the keys that a request carries: first OpenAI's way, then Anthropic's."""
    schemes = (value.partition(" ") for value in request.headers.getlist("authorization"))
    bearers = [key.strip() for scheme, _, key in schemes if scheme.lower() == "bearer"]
    return [key for key in (*bearers, *request.headers.getlist("x-api-key")) if key]


def _refusal(has_key: bool) -> Unauthorized:
    problem = "unknown key" if has_key else "the request has no key"
    return Unauthorized(
        f"Authorization: {problem}; send one as `Authorization: Bearer <key>` or `x-api-key: <key>`.",
        param="Authorization",
        code="invalid_api_key",
    )


def add_security(document: dict[str, Any]) -> dict[str, Any]:
    """Add to an OpenAPI document which paths need a key, and the error for requests without one."""
    document.setdefault("components", {})["securitySchemes"] = _SCHEMES
    for path, operations in document["paths"].items():
        if path.startswith("/v1/"):
            for operation in operations.values():
                operation["security"] = [{name: []} for name in _SCHEMES]
                failure = operation["responses"].get("400", {"content": {"application/json": {}}})
                operation["responses"]["401"] = {
                    **failure,
                    "description": "The request has no known key.",
                }
    return document
