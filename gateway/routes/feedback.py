"""`POST /v1/feedback`: record what a client says about an answer, next to the answer."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from gateway.errors import BadRequest, Conflict, NotFound, Unavailable
from gateway.http.auth import owner_of
from gateway.http.raw_routes import raw_router
from gateway.http.streaming import json_response
from gateway.routes.openapi import feedback_openapi
from gateway.routes.runner import CLIENT_CLOSED_REQUEST
from gateway.service import Service

__all__ = ["Feedback", "feedback_router"]

_REMARKS = ("rating", "correct", "answer", "comment")


class Feedback(BaseModel):
    """A client's feedback on an answer: its id, and at least one of the other four fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Annotated[str, StringConstraints(min_length=1, max_length=256)] = Field(
        description="The completion's own id, or its reply's X-Request-Id."
    )
    rating: Literal[1, -1] | None = Field(None, description="1: good, -1: bad.")
    correct: StrictBool | None = Field(None, description="Whether the returned answer was right.")
    answer: Annotated[str, StringConstraints(min_length=1, max_length=10_000)] | None = Field(
        None, description="The right answer."
    )
    comment: Annotated[str, StringConstraints(max_length=10_000)] | None = Field(
        None, description="Free text."
    )


def feedback_router(service: Service) -> APIRouter:
    """Return the route for this service."""
    router = raw_router()

    @router.post(
        "/v1/feedback",
        openapi_extra=feedback_openapi(Feedback.model_json_schema()),
        summary="Give feedback on an answer",
    )
    async def feedback(request: Request) -> Response:
        """Append feedback on a recently recorded answer to the recording, for training and replay."""
        try:
            remarks = read_feedback(await request.body())
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        recorder = service.recorder
        if recorder is None:
            raise Conflict(
                "Feedback needs a recording, and this gateway keeps none; its operator can set record_to.",
                param="id",
            )
        recorded = recorder.find(remarks.id, owner_of(request))
        if recorded is None:
            message = f"id: no recently recorded answer has the id {remarks.id!r}."
            raise NotFound(message, param="id", code="unknown_id")
        fields = {field: value for field in _REMARKS if (value := getattr(remarks, field)) is not None}
        if not recorder.remark(recorded, fields):
            raise Unavailable("The recorder can't keep up; try again later.")
        return json_response({"object": "feedback", "id": recorded})

    return router


def read_feedback(payload: bytes) -> Feedback:
    """Parse the feedback in a request's body. Raises `BadRequest`, which names the field."""
    try:
        feedback = Feedback.model_validate_json(payload)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, problem["loc"]))
        if problem["type"] == "json_invalid" or not field:
            raise BadRequest(f"The request body is not a feedback object: {problem['msg']}.") from error
        allowed = f"; known: id, {', '.join(_REMARKS)}" if problem["type"] == "extra_forbidden" else ""
        raise BadRequest(f"{field}: {problem['msg']}{allowed}.", param=field, code="invalid_value") from error
    if all(getattr(feedback, field) is None for field in _REMARKS):
        raise BadRequest(f"The request body says nothing about the answer; allowed: {', '.join(_REMARKS)}.")
    return feedback
