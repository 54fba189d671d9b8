"""`POST /v1/feedback`: what became of an answer, recorded beside it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from gateway.errors import BadRequest, Conflict, Unavailable, Unknown
from gateway.http.auth import owner_of
from gateway.http.raw_routes import raw_router
from gateway.http.streaming import json_response
from gateway.routes.openapi import feedback_openapi
from gateway.routes.runner import CLIENT_CLOSED_REQUEST
from gateway.service import Service

__all__ = ["Feedback", "feedback_router"]

_WORDS = ("rating", "correct", "answer", "comment")


class Feedback(BaseModel):
    """What a client may say of an answer; at least one of the four words beside the id."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Annotated[str, StringConstraints(min_length=1, max_length=256)] = Field(
        description="The completion's own id, or its reply's X-Request-Id."
    )
    rating: Literal[1, -1] | None = Field(None, description="Liked or not.")
    correct: StrictBool | None = Field(None, description="Whether the answer returned was right.")
    answer: Annotated[str, StringConstraints(min_length=1, max_length=10_000)] | None = Field(
        None, description="The right answer."
    )
    comment: Annotated[str, StringConstraints(max_length=10_000)] | None = Field(
        None, description="Anything else."
    )


def feedback_router(service: Service) -> APIRouter:
    """The route, working on this service."""
    router = raw_router()

    @router.post(
        "/v1/feedback",
        openapi_extra=feedback_openapi(Feedback.model_json_schema()),
        summary="Say what became of an answer",
    )
    async def feedback(request: Request) -> Response:
        """Appends a line to the recording, for training and replay; for answers recorded lately."""
        try:
            said = read_feedback(await request.body())
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        recorder = service.recorder
        if recorder is None:
            raise Conflict(
                "Feedback on an id needs a recording, and this gateway keeps none (record_to).", param="id"
            )
        recorded = recorder.find(said.id, owner_of(request))
        if recorded is None:
            told = f"id: no answer recorded lately has the id {said.id!r}."
            raise Unknown(told, param="id", code="unknown_id")
        words = {word: value for word in _WORDS if (value := getattr(said, word)) is not None}
        if not recorder.remark(recorded, words):
            raise Unavailable("The recorder can't keep up; try again.")
        return json_response({"object": "feedback", "id": recorded})

    return router


def read_feedback(payload: bytes) -> Feedback:
    """The feedback in a request's body. Raises `BadRequest`, which names the field."""
    try:
        said = Feedback.model_validate_json(payload)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, problem["loc"]))
        if problem["type"] == "json_invalid" or not field:
            raise BadRequest(f"The request body is no JSON object of feedback: {problem['msg']}.") from error
        allowed = f"; known: id, {', '.join(_WORDS)}" if problem["type"] == "extra_forbidden" else ""
        raise BadRequest(f"{field}: {problem['msg']}{allowed}.", param=field, code="invalid_value") from error
    if all(getattr(said, word) is None for word in _WORDS):
        raise BadRequest(f"The request body says nothing of the answer: give {', '.join(_WORDS)}.")
    return said
