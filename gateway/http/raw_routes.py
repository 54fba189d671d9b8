"""Routes whose handlers read the request by hand, which saves FastAPI's own reading of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

__all__ = ["raw_router"]


class RawRoute(APIRoute):
    """A documented route whose endpoint takes the request and returns the response, nothing between."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """The endpoint itself."""
        return cast(Callable[[Request], Awaitable[Response]], self.endpoint)


def raw_router() -> APIRouter:
    """A router of such routes."""
    return APIRouter(route_class=RawRoute)
