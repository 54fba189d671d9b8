"""`POST /v1/messages` and `POST /v1/messages/count_tokens`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.dialects.base import json_object
from gateway.dialects.messages import MessagesExchange
from gateway.dialects.messages_input import chat_request, has_images
from gateway.errors import NotSupported
from gateway.http.auth import key_of
from gateway.http.raw_routes import raw_router
from gateway.http.streaming import json_response
from gateway.routes.generation import generation_endpoint, plan, run_while_connected
from gateway.routes.openapi import COUNT_OPENAPI, MESSAGES_OPENAPI
from gateway.service import Service

__all__ = ["messages_router"]


def messages_router(service: Service) -> APIRouter:
    """Return the routes for this service."""
    router = raw_router()

    router.add_api_route(
        "/v1/messages",
        generation_endpoint(service, MessagesExchange),
        methods=["POST"],
        name="messages",
        summary="Create a message",
        description="Answer Anthropic's Messages, with the budgets, samples and votes of chat.",
        openapi_extra=MESSAGES_OPENAPI,
    )

    @router.post("/v1/messages/count_tokens", openapi_extra=COUNT_OPENAPI, summary="Count a prompt's tokens")
    async def count_tokens(request: Request) -> Response:
        """Count the tokens of one sample's prompt as the engine reads it, with the budget's own text."""

        async def work(payload: bytes) -> Response:
            body = chat_request(json_object(payload), max_tokens_needed=False)
            if has_images(body):
                raise NotSupported("The gateway can't count the tokens of images.")
            run_request = await plan(service, request, body, key_of(request), translated=True)
            count = await service.upstream.count(service.runner.plan(run_request).body)
            if count is None:
                raise NotSupported(
                    "The upstream has no route that renders a prompt, so its tokens can't be counted."
                )
            return json_response({"input_tokens": count})

        return await run_while_connected(service, request, work)

    return router
