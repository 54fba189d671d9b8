"""Logs a bug once, with its traceback and the request's id."""

from __future__ import annotations

import logging

from starlette.types import Scope

__all__ = ["REQUEST_ID", "log_bug"]

REQUEST_ID = "thinkgate.request_id"
"""The key in a request's scope that holds its id."""
_log = logging.getLogger(__name__)


def log_bug(scope: Scope, error: BaseException) -> None:
    """Log an error that no client has caused."""
    _log.error(
        "request %s: %s %s failed", scope.get(REQUEST_ID), scope["method"], scope["path"], exc_info=error
    )
