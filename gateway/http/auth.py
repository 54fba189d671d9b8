"""Keys: who may ask. Checked ahead of every route under /v1; what a key may spend, its settings say."""

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

__all__ = ["Keys", "digest", "key_name_of", "key_of", "new_key", "owner_of", "secured"]

_KEY = "thinkgate.key"
_KEY_NAME = "thinkgate.key_name"
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "As OpenAI's clients send a key."},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "As Anthropic's do."},
}


def new_key() -> str:
    """A key that nobody can guess: 256 random bits."""
    return f"tg-{secrets.token_urlsafe(32)}"


def digest(key: str) -> str:
    """What the settings keep of a key. Plain SHA-256, as nobody can try 256 random bits one by one."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_of(request: Request) -> KeySettings | None:
    """The key that the request came with; None where the gateway has no keys."""
    found: KeySettings | None = request.scope.get(_KEY)
    return found


def key_name_of(request: Request) -> str:
    """The name of the request's key in the settings; "" where the gateway has no keys."""
    return str(request.scope.get(_KEY_NAME, ""))


def owner_of(request: Request) -> str:
    """Whose answers are the request's own: the digest of its key, "" where the gateway has no keys."""
    key = key_of(request)
    return key.secret_sha256 if key else ""


class Keys:
    """ASGI middleware: a request under /v1 without a known key is a 401; others carry its settings on."""

    def __init__(self, app: ASGIApp, keys: Mapping[str, KeySettings]) -> None:
        self._app = app
        self._keys = [(key.secret_sha256.encode(), name, key) for name, key in keys.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers it."""
        if scope["type"] == "http" and (scope["path"] == "/v1" or scope["path"].startswith("/v1/")):
            given = _keys_in(HTTPConnection(scope))
            found = next((own for each in given if (own := self._find(each)) is not None), None)
            if found is None:
                told, headers = _refusal(bool(given)).body()["error"], {"WWW-Authenticate": "Bearer"}
                await error_response(scope["path"], told, 401, headers)(scope, receive, send)
                return
            scope[_KEY_NAME], scope[_KEY] = found
        await self._app(scope, receive, send)

    def _find(self, key: str) -> tuple[str, KeySettings] | None:
        """A key's name and settings. All are compared, so that the time taken tells nothing."""
        known, found = digest(key).encode(), None
        for secret, name, own in self._keys:
            if hmac.compare_digest(secret, known):
                found = name, own
        return found


def _keys_in(request: HTTPConnection) -> list[str]:
    """The keys that a request carries: OpenAI's way, then Anthropic's."""
    schemes = (value.partition(" ") for value in request.headers.getlist("authorization"))
    bearers = [key.strip() for scheme, _, key in schemes if scheme.lower() == "bearer"]
    return [key for key in (*bearers, *request.headers.getlist("x-api-key")) if key]


def _refusal(given: bool) -> Unauthorized:
    problem = "the key is not known" if given else "no key came with the request"
    return Unauthorized(
        f"Authorization: {problem}; send one as `Authorization: Bearer <key>` or `x-api-key: <key>`.",
        param="Authorization",
        code="invalid_api_key",
    )


def secured(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document of a gateway with keys: which paths want one, and what comes without."""
    document.setdefault("components", {})["securitySchemes"] = _SCHEMES
    for path, operations in document["paths"].items():
        if path.startswith("/v1/"):
            for operation in operations.values():
                operation["security"] = [{name: []} for name in _SCHEMES]
                failure = operation["responses"].get("400", {"content": {"application/json": {}}})
                operation["responses"]["401"] = {**failure, "description": "No known key came along."}
    return document
