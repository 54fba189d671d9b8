"""`POST /v1/feedback`: record what a client says about an answer, next to the answer."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field, StringConstraints, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from gateway.errors import BadRequest, Conflict, NotFound, Unavailable
from gateway.http.auth import owner_of
from gateway.http.raw_routes import raw_router
from gateway.http.streaming import json_response
from gateway.routes.generation import CLIENT_CLOSED_REQUEST
from gateway.routes.openapi import feedback_openapi
from gateway.service import Service
from policies.recordings import Feedback

__all__ = ["FeedbackBody", "feedback_router", "read_feedback"]

_STATEMENTS = ("rating", "correct", "answer", "comment")


class FeedbackBody(Feedback):
    """The body of a request: an id, and at least one statement about its answer."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, title="Feedback", coerce_numbers_to_str=False
    )

    id: Annotated[str, StringConstraints(min_length=1, max_length=256)] = Field(
        description="The completion's own id, or its reply's X-Request-Id."
    )
    answer: Annotated[str, StringConstraints(min_length=1, max_length=10_000)] | None = Field(
        None, description="The right answer."
    )
    comment: Annotated[str, StringConstraints(max_length=10_000)] | None = Field(
        None, description="Anything else."
    )


def feedback_router(service: Service) -> APIRouter:
    """Return the router of the feedback route."""
    router = raw_router()

    @router.post(
        "/v1/feedback",
        openapi_extra=feedback_openapi(FeedbackBody.model_json_schema()),
        summary="Give feedback on an answer",
    )
    async def feedback(request: Request) -> Response:
        """Append the feedback to the recording, for training and replay. Recent answers only."""
        try:
            body = read_feedback(await request.body())
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        recorder = service.recorder
        if recorder is None:
            raise Conflict(
                "id: this gateway records no answers, so it takes no feedback. Set record_to to record them.",
                param="id",
            )
        completion_id = recorder.find(body.id, owner_of(request))
        if completion_id is None:
            message = f"id: no recent answer of yours has the id {body.id!r}."
            raise NotFound(message, param="id", code="unknown_id")
        statements = body.model_dump(exclude_none=True, exclude={"id"})
        if not recorder.add_feedback(Feedback(id=completion_id, **statements)):
            raise Unavailable("The recorder can't keep up; try again later.")
        return json_response({"object": "feedback", "id": completion_id})

    return router


def read_feedback(payload: bytes) -> FeedbackBody:
    """Return the feedback in a request's body. Raises `BadRequest`, which names the field."""
    try:
        body = FeedbackBody.model_validate_json(payload)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, problem["loc"]))
        if problem["type"] == "json_invalid" or not field:
            raise BadRequest(f"The request body is not a feedback object: {problem['msg']}.") from error
        allowed = f"; known: id, {', '.join(_STATEMENTS)}" if problem["type"] == "extra_forbidden" else ""
        raise BadRequest(f"{field}: {problem['msg']}{allowed}.", param=field, code="invalid_value") from error
    if all(getattr(body, name) is None for name in _STATEMENTS):
        raise BadRequest(
            f"The request body says nothing about the answer; allowed: {', '.join(_STATEMENTS)}."
        )
    return body
