"""`POST /v1/responses`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.dialects.responses import ResponsesExchange
from gateway.http.raw_routes import raw_router
from gateway.routes.openapi import RESPONSES_OPENAPI
from gateway.routes.runner import answer
from gateway.service import Service

__all__ = ["responses_router"]


def responses_router(service: Service) -> APIRouter:
    """Return the route for this service."""
    router = raw_router()

    @router.post("/v1/responses", openapi_extra=RESPONSES_OPENAPI, summary="Create a response")
    async def responses(request: Request) -> Response:
        """Answer OpenAI's Responses without stored state, with the budgets, samples and votes of chat."""
        return await answer(service, request, ResponsesExchange)

    return router
