"""Routes whose handlers parse the request themselves, which saves the time of FastAPI's parsing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

__all__ = ["raw_router"]


class RawRoute(APIRoute):
    """A documented route whose endpoint takes the request and returns the response, without more steps."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """Return the endpoint itself."""
        return cast(Callable[[Request], Awaitable[Response]], self.endpoint)


def raw_router() -> APIRouter:
    """Return a router of raw routes."""
    return APIRouter(route_class=RawRoute)
