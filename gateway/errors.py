"""The errors that a client can see, in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "BadRequest",
    "Conflict",
    "GatewayError",
    "ModelNotFound",
    "NotFound",
    "NotSupported",
    "Unauthorized",
    "Unavailable",
    "UpstreamError",
    "UpstreamUnreachable",
    "internal_error",
    "unknown_value",
]


class GatewayError(Exception):
    """An error that reaches the client: an HTTP `status`, and the fields of OpenAI's `error` object."""

    status = 500
    type = "server_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.headers: Mapping[str, str] = {}
        """HTTP headers of the reply, such as `Retry-After`."""

    def body(self) -> dict[str, Any]:
        """Return the JSON body, `{"error": {"message", "type", "param", "code"}}`."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class BadRequest(GatewayError):
    """The request is invalid; `param` names the field or header."""

    status = 400
    type = "invalid_request_error"


class Conflict(BadRequest):
    """The request is valid, but this gateway's settings rule it out."""

    status = 409


class NotFound(BadRequest):
    """The request names something that does not exist."""

    status = 404


class Unavailable(GatewayError):
    """The gateway can't do it now; a later try may succeed."""

    status = 503


class Unauthorized(BadRequest):
    """The gateway has keys, and the request carries none of them."""

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
    """The upstream can't do what the request needs."""

    status = 501


class UpstreamError(GatewayError):
    """The engine answered with an error; the client gets its status and its own error body."""

    type = "upstream_error"

    def __init__(
        self,
        status: int,
        message: str,
        error: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        error = error or {}
        param, code = error.get("param"), error.get("code")
        super().__init__(message, param=param, code=None if code is None else str(code))
        self.status = status
        self.error = error
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """Return the JSON body, in which the engine's own fields beat the gateway's."""
        return {"error": {**super().body()["error"], **self.error}}


class UpstreamUnreachable(UpstreamError):
    """The engine can't be reached, stopped within its reply, or took too long."""

    def __init__(self, message: str, *, status: int = 502) -> None:
        super().__init__(status, message)


def unknown_value(value: object, allowed: Iterable[str], *, param: str, kind: str = "value") -> BadRequest:
    """Return the error for a value outside a known set; it names the field and the allowed values."""
    return BadRequest(
        f"{param}: unknown {kind} {value!r}; allowed: {', '.join(allowed)}.",
        param=param,
        code="invalid_value",
    )


def internal_error(error: BaseException) -> GatewayError:
    """Return the error for a bug of the gateway: the client gets its kind, the log has the rest."""
    return GatewayError(f"The gateway failed on this request ({type(error).__name__}).")
