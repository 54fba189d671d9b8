"""`POST /v1/completions`: to the upstream and back, untouched."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.auth import key_of
from gateway.backends.sse import event
from gateway.dialects.base import json_object, refuse, string
from gateway.errors import GatewayError
from gateway.routes.raw import raw_router
from gateway.routes.runner import CLIENT_CLOSED_REQUEST, attended, start_stream
from gateway.routes.schemas import COMPLETIONS_OPENAPI
from gateway.service import Service

__all__ = ["completions_router"]

_BUDGET_HEADERS = ("X-Reasoning-Budget", "X-Samples", "X-Vote", "X-Scorer", "X-Stop")
_WHY = (
    "/v1/completions goes to the upstream as it is, without budgets, samples or votes; "
    "those are for /v1/chat/completions, /v1/responses and /v1/messages."
)


def completions_router(service: Service) -> APIRouter:
    """The route, working on this service."""
    router = raw_router()

    @router.post("/v1/completions", openapi_extra=COMPLETIONS_OPENAPI, summary="Create a completion")
    async def completions(request: Request) -> Response:
        """Text completions, passed through; a client that hangs up ends the generation."""

        async def work(payload: bytes) -> Response:
            body = json_object(payload)
            await _check(service, request, body.get("model"), "scaling" in body)
            source = service.backend.relay("completions", payload)
            if body.get("stream"):
                return await _stream(service, source)
            async with aclosing(source):
                reply = b"".join([block async for block in source])
            return Response(reply, media_type="application/json")

        return await attended(service, request, work)

    return router


async def _check(service: Service, request: Request, model: object, scaling: bool) -> None:
    """Refuses what would be silently ignored: budgets, in any of the ways to say them."""
    for header in _BUDGET_HEADERS:
        if header in request.headers:
            raise refuse(header, _WHY)
    if scaling:
        raise refuse("scaling", _WHY)
    key = key_of(request)
    name = "" if model is None else string(model, "model")
    resolved = await service.resolve(name, key.models if key else ("*",))
    if resolved.level is not None or resolved.samples is not None:
        raise refuse("model", f"{model}: {_WHY}")


async def _stream(service: Service, source: AsyncGenerator[bytes, None]) -> Response:
    status = CLIENT_CLOSED_REQUEST

    async def relayed() -> AsyncGenerator[bytes, None]:
        nonlocal status
        begun = False
        async with aclosing(source):
            try:
                async for block in source:
                    begun = True
                    yield block
                status = 200
            except GatewayError as error:
                if not begun:
                    raise
                status = error.status
                yield event(orjson.dumps(error.body()))

    return await start_stream(relayed(), {}, lambda: service.metrics.end(status))
