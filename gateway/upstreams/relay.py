"""Replies of `/v1/completions` that pass on byte for byte, except for what fails in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.errors import UpstreamError, UpstreamUnreachable
from gateway.upstreams.blackout import KeyBlackout
from gateway.upstreams.checks import checked_index, json_object
from gateway.upstreams.failures import error_of, failed_finish, finish_of, malformed, unfinished
from gateway.upstreams.sse import ErrorPayload, EventCutter, EventParser
from gateway.upstreams.wire import MOST_CHOICES, named_error

__all__ = ["RelayedStream", "check_whole", "choices_of"]

_DONE = b"[DONE]"
_DONE_EVENT = b"data: [DONE]\n\n"


def choices_of(body: Mapping[str, Any]) -> int:
    """Return how many choices a text completion has: `n` for each of its prompts."""
    n, prompt = body.get("n"), body.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
    return min(prompts * (n if type(n) is int and n > 0 else 1), MOST_CHOICES)


class RelayedStream:
    """Checks a stream on its way: whole events pass unchanged, and a failure is raised in place of its event.

    A choice has failed where its finish reason is none of an answer, or missing at the end; the stream has
    where all have. `done` says that nothing more will pass.
    """

    def __init__(self, choices: int, blackout: KeyBlackout, max_event_bytes: int) -> None:
        self.done = False
        self._open = set(range(choices))
        self._failures: list[UpstreamError] = []
        self._choices = choices
        self._blackout = blackout
        self._cutter = EventCutter(max_event_bytes)
        self._parser = EventParser(max_event_bytes)

    def feed(self, block: bytes) -> bytes:
        """Take the next bytes; return those that may pass. Raises `UpstreamError`."""
        events = self._cutter.feed(block)
        return self._checked(events, self._parser.feed(events)) if events else b""

    def end(self) -> bytes:
        """End the stream; return the last bytes that may pass. Raises `UpstreamError`."""
        events = self._cutter.end()
        checked = self._checked(events, [*self._parser.feed(events), *self._parser.end()])
        self._check_complete()
        return checked

    def _checked(self, events: bytes, payloads: list[bytes]) -> bytes:
        plain = [self._without_key(payload) for payload in payloads] if self._blackout.hides else payloads
        for payload in plain:
            if payload.strip() == _DONE:
                self._check_complete()
                self.done = True
                break
            self._check(payload)
        if plain != payloads:  # the key was in one of them
            return b"".join(b"data: " + payload + b"\n\n" for payload in plain)
        if self.done:
            before, done, _ = events.partition(_DONE_EVENT)
            events = before + done
        return self._blackout.payload(events)

    def _without_key(self, payload: bytes) -> bytes:
        plain = self._blackout.payload(payload)
        return ErrorPayload(plain) if type(payload) is ErrorPayload else plain

    def _check(self, payload: bytes) -> None:
        if not self._open:
            return
        if isinstance(payload, ErrorPayload):
            raise named_error(payload)
        event = json_object(payload)
        choices = event.get("choices")
        if (not choices or "error" in event) and (error := error_of(event)) is not None:
            raise error
        for choice in choices if isinstance(choices, list) else ():
            self._check_choice(choice)

    def _check_choice(self, choice: object) -> None:
        if not isinstance(choice, dict):
            raise malformed("it is no object")
        reason = choice.get("finish_reason")
        index = checked_index(choice.get("index"), self._choices == 1)
        if reason in (None, "") or index not in self._open:
            return
        self._open.discard(index)
        if not isinstance(reason, str) or finish_of(reason) is None:
            self._failures.append(failed_finish(reason))
        if len(self._failures) == self._choices:
            raise self._failures[0]

    def _check_complete(self) -> None:
        if len(self._open) + len(self._failures) == self._choices:
            raise self._failures[0] if self._failures else unfinished()


def check_whole(reply: Mapping[str, Any]) -> None:
    """Check a whole reply. Raises `UpstreamError` where it is an error, or none of its choices is usable."""
    choices = reply.get("choices")
    if (not choices or "error" in reply) and (error := error_of(reply)) is not None:
        raise error
    if not isinstance(choices, list) or not choices:
        raise UpstreamUnreachable("The upstream's reply has no choices.")
    failures = [error for choice in choices if (error := _failure_of(choice)) is not None]
    if len(failures) == len(choices):
        raise failures[0]


def _failure_of(choice: object) -> UpstreamError | None:
    if not isinstance(choice, dict):
        return malformed("it is no object")
    reason = choice.get("finish_reason")
    if reason in (None, ""):
        return UpstreamUnreachable("The upstream's reply has no finish reason.")
    return None if isinstance(reason, str) and finish_of(reason) else failed_finish(reason)
