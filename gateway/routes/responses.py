"""`POST /v1/responses`."""

from __future__ import annotations

from fastapi import APIRouter

from gateway.dialects.responses import ResponsesExchange
from gateway.http.raw_routes import raw_router
from gateway.routes.generation import generation_endpoint
from gateway.routes.openapi import RESPONSES_OPENAPI
from gateway.service import Service

__all__ = ["responses_router"]


def responses_router(service: Service) -> APIRouter:
    """Return the route for this service."""
    router = raw_router()

    router.add_api_route(
        "/v1/responses",
        generation_endpoint(service, ResponsesExchange),
        methods=["POST"],
        name="responses",
        summary="Create a response",
        description="Answer OpenAI's stateless Responses, with the budgets, samples and votes of chat.",
        openapi_extra=RESPONSES_OPENAPI,
    )

    return router
