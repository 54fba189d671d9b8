"""Everything that can go wrong with a request, in OpenAI's error shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "BadRequest",
    "Conflict",
    "GatewayError",
    "ModelNotFound",
    "NotSupported",
    "Unauthorized",
    "Unavailable",
    "Unknown",
    "UpstreamError",
    "UpstreamUnreachable",
    "internal_error",
    "one_of",
]


class GatewayError(Exception):
    """An error a client is told of: `status`, and the fields of OpenAI's `error` object."""

    status = 500
    type = "server_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """The JSON body, `{"error": {"message", "type", "param", "code"}}`."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class BadRequest(GatewayError):
    """The client asked for something that can't be; `param` names the field or header."""

    status = 400
    type = "invalid_request_error"


class Conflict(BadRequest):
    """The request can be, but not with the settings that this gateway runs with."""

    status = 409


class Unknown(BadRequest):
    """What the request is about isn't there."""

    status = 404


class Unavailable(GatewayError):
    """It can't be done now; a later try may."""

    status = 503


class Unauthorized(BadRequest):
    """The gateway has keys, and none of them came with the request."""

    status = 401


class ModelNotFound(BadRequest):
    """No upstream serves the model."""

    status = 404

    def __init__(self, model: str, known: Iterable[str]) -> None:
        names = ", ".join(sorted(known)) or "none"
        super().__init__(
            f"The model {model!r} does not exist; available: {names}.", param="model", code="model_not_found"
        )


class NotSupported(GatewayError):
    """What was asked for can't be had from this upstream."""

    status = 501


class UpstreamError(GatewayError):
    """The engine answered with an error: its status and its own error body are passed on."""

    type = "upstream_error"

    def __init__(self, status: int, message: str, error: Mapping[str, Any] | None = None) -> None:
        error = error or {}
        param, code = error.get("param"), error.get("code")
        super().__init__(message, param=param, code=None if code is None else str(code))
        self.status = status
        self.error = error

    def body(self) -> dict[str, Any]:
        """The engine's own fields win over the gateway's."""
        return {"error": {**super().body()["error"], **self.error}}


class UpstreamUnreachable(UpstreamError):
    """The engine could not be reached, broke off, or took too long."""

    def __init__(self, message: str, *, status: int = 502) -> None:
        super().__init__(status, message)


def one_of(value: object, allowed: Iterable[str], *, param: str, kind: str = "value") -> BadRequest:
    """The error for a value outside a known set; names the field and what is allowed."""
    return BadRequest(
        f"{param}: unknown {kind} {value!r}; allowed: {', '.join(allowed)}.",
        param=param,
        code="invalid_value",
    )


def internal_error(error: BaseException) -> GatewayError:
    """A mistake of the gateway's own: the client learns that it happened, the log has the rest."""
    return GatewayError(f"The gateway failed on this request ({type(error).__name__}).")
