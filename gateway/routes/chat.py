"""`POST /v1/chat/completions`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.dialects.chat import ChatExchange
from gateway.http.raw_routes import raw_router
from gateway.routes.openapi import CHAT_OPENAPI
from gateway.routes.runner import answer
from gateway.service import Service

__all__ = ["chat_router"]


def chat_router(service: Service) -> APIRouter:
    """Return the route for this service."""
    router = raw_router()

    @router.post("/v1/chat/completions", openapi_extra=CHAT_OPENAPI, summary="Create a chat completion")
    async def chat_completions(request: Request) -> Response:
        """Answer OpenAI's chat completions, with a reasoning budget, samples and a vote on top."""
        return await answer(service, request, ChatExchange)

    return router
