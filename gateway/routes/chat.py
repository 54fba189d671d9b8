"""`POST /v1/chat/completions`."""

from __future__ import annotations

from fastapi import APIRouter

from gateway.dialects.chat import ChatExchange
from gateway.http.raw_routes import raw_router
from gateway.routes.generation import generation_endpoint
from gateway.routes.openapi import CHAT_OPENAPI
from gateway.service import Service

__all__ = ["chat_router"]


def chat_router(service: Service) -> APIRouter:
    """Return the route for this service."""
    router = raw_router()

    router.add_api_route(
        "/v1/chat/completions",
        generation_endpoint(service, ChatExchange),
        methods=["POST"],
        name="chat_completions",
        summary="Create a chat completion",
        description="Answer OpenAI's chat completions, with a reasoning budget, samples and a vote on top.",
        openapi_extra=CHAT_OPENAPI,
    )

    return router
