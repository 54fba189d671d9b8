"""`POST /v1/completions`: relayed to the upstream and back without changes, except for failures."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.dialects.base import json_object, refuse, string
from gateway.dialects.sse import COMMENT, event
from gateway.errors import GatewayError
from gateway.http.auth import key_of
from gateway.http.raw_routes import raw_router
from gateway.routes.generation import resolve, run_while_connected, stream_response
from gateway.routes.openapi import COMPLETIONS_OPENAPI
from gateway.service import ResolvedModel, Service

__all__ = ["completions_router"]

_BUDGET_HEADERS = ("X-Reasoning-Budget", "X-Samples", "X-Vote", "X-Scorer", "X-Stop")
_REASON = (
    "/v1/completions has no budgets, samples or votes; "
    "use /v1/chat/completions, /v1/responses or /v1/messages for them."
)


def completions_router(service: Service) -> APIRouter:
    """Return the route for this service."""
    router = raw_router()

    @router.post("/v1/completions", openapi_extra=COMPLETIONS_OPENAPI, summary="Create a completion")
    async def completions(request: Request) -> Response:
        """Relay a text completion. If the client disconnects, the engine stops generating."""

        async def work(payload: bytes) -> Response:
            body = json_object(payload)
            resolved = await _check(service, request, body)
            if resolved.route is not None:
                payload = orjson.dumps({**body, "model": resolved.name})
            headers: dict[str, str] = {}  # complete with the first piece
            source = service.upstream.relay("completions", payload, headers.update)
            if body.get("stream"):
                return stream_response(
                    service, request, source, headers, heartbeat=lambda: COMMENT, fail=_error_event
                )
            async with aclosing(source):
                reply = b"".join([block async for block in source])
            return Response(reply, headers=headers, media_type="application/json")

        return await run_while_connected(service, request, work)

    return router


async def _check(service: Service, request: Request, body: Mapping[str, Any]) -> ResolvedModel:
    """Refuse budgets, however the client sends them, because the upstream would silently ignore them."""
    for header in _BUDGET_HEADERS:
        if header in request.headers:
            raise refuse(header, _REASON)
    if "scaling" in body:
        raise refuse("scaling", _REASON)
    if (model := body.get("model")) is not None:
        string(model, "model")
    resolved = await resolve(service, request, body, key_of(request))
    if resolved.level is not None or resolved.samples is not None:
        raise refuse("model", f"{model}: {_REASON}")
    return resolved


def _error_event(error: GatewayError) -> bytes:
    """Return the event that ends a stream which has begun and then failed."""
    return event(orjson.dumps(error.body()))
