"""Chat completions for a request that asks for nothing: the engine's own reply, with few edits.

Text is changed only where the gateway has read it otherwise than the engine: a `<think>` block that was
really closed, or an answer that the engine filed as reasoning. The thinking comes under both names that
clients read, or not at all where the client excludes it. `scaling` is added. All else is as it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dialects.base import encode
from gateway.dialects.scaling import reported
from gateway.dialects.sse import COMMENT, DONE, event
from gateway.dialects.thinking_fields import (
    answer_logprobs,
    both_names,
    engine_reasoning,
    names_of,
    without_thinking,
)
from gateway.errors import GatewayError
from gateway.runs.events import Aside, Delta, Progress, RunResult
from gateway.runs.request import ReplyOptions, RunRequest

__all__ = ["VerbatimStream", "verbatim_body"]

_TOKENS = frozenset({"logprobs", "token_ids"})  # fields of a choice that spell out its text
_NO_HEAD = frozenset({"choices", "timings", "usage"})
Json = dict[str, Any]


def verbatim_body(request: RunRequest, result: RunResult, reply: Mapping[str, Any]) -> Json:
    """Return the engine's unstreamed reply with the text of the result's samples."""
    samples = {sample.index: sample for sample in result.chosen}
    choices = []
    for position, choice in enumerate(reply["choices"]):
        sample = samples.get(choice.get("index", position))
        if sample is None:  # the engine did not finish this one
            continue
        message = choice.get("message") or {}
        edited = _edited(message, sample.reasoning, sample.content, request.reply)
        fields: Json = {} if edited is message else {"message": edited}
        if request.reply.exclude_reasoning and sample.reasoning:
            if choice.get("logprobs"):
                fields["logprobs"] = answer_logprobs(choice["logprobs"], sample.content)
            choice = {key: value for key, value in choice.items() if key != "token_ids"}  # noqa: PLW2901
        choices.append({**choice, **fields})
    return {**reply, "choices": choices, **reported(request, result)}


def _edited(
    message: Mapping[str, Any], reasoning: str, content: str, options: ReplyOptions
) -> Mapping[str, Any]:
    """Return a message or a delta with this text, all other fields as they are."""
    changes: Json = {}
    if content != (message.get("content") or ""):
        changes["content"] = content or (None if message.get("tool_calls") else "")
    if options.exclude_reasoning:
        visible = without_thinking(message)
        return {**visible, **changes} if changes or len(visible) < len(message) else message
    names = names_of(message)
    if not reasoning:
        if names:  # the answer stood there
            message = {key: value for key, value in message.items() if key not in names}
    elif not options.plain:
        changes |= both_names(reasoning)
    elif not names:
        changes["reasoning_content"] = reasoning
    elif reasoning != engine_reasoning(message):
        changes |= dict.fromkeys(names, reasoning)
    return {**message, **changes} if changes else message


class VerbatimStream:
    """Writes the engine's own chunks (a `gateway.dialects.base.Writer`).

    Chunks without text wait for the first one with text, so that an early failure keeps its own status. The
    chunks that end the choices, and what follows the first of them, wait for the run's result.
    """

    def __init__(self, request: RunRequest) -> None:
        self._request = request
        self._options = request.reply
        self._hides = request.reply.exclude_reasoning
        self._event: Mapping[str, Any] = {}  # the last one
        self._gathered: list[Mapping[str, Any]] = []  # choices of the last event, where it has several
        self._missing = 0  # its choices that are still to come
        self._answering: set[int] = set()  # choices whose answer has begun
        self._has_text = False
        self._waiting: list[bytes] = []
        self._ends: list[Json] = []
        self.id = ""

    def delta(self, delta: Delta) -> bytes:
        """Write one choice of an event, or text that the gateway had held back."""
        if self._has_text and not (self._hides or self._ends or self._gathered):
            chunk = self._usual_chunk(delta)
            if chunk is not None:
                return b"data: %b\n\n" % encode(chunk)
        if not delta.choice:
            return self._flush() + self._late_text(delta)
        start = b""
        if delta.event is not self._event:
            start = self._flush()
            self._event = delta.event
            self._missing = len(delta.event.get("choices") or ())
            self.id = self.id or str(delta.event.get("id") or "")
        self._missing -= 1
        choice = self._choice(delta)
        if choice is not None:
            self._gathered.append(choice)
        return start if self._missing > 0 else start + self._flush()

    def aside(self, aside: Aside) -> bytes:
        """Write an event without a choice as it came."""
        start = self._flush()
        if self._ends:
            self._ends.append(dict(aside.event))
            return start
        return start + self._write(aside.event, has_text=False)

    def progress(self, progress: Progress) -> bytes:
        """Write nothing: no vote is held."""
        return b""

    def heartbeat(self) -> bytes:
        """Write a comment."""
        return COMMENT

    def finish(self, result: RunResult) -> bytes:
        """Write what has waited, with `scaling` in the chunk that ends the last choice."""
        parts = [self._flush(), *self._waiting]
        if not any(map(_ends_choice, self._ends)):
            self._ends += [
                self._own_chunk({"index": sample.index, "delta": {}, "finish_reason": sample.finish_reason})
                for sample in result.chosen
            ]
        last = max(place for place, chunk in enumerate(self._ends) if _ends_choice(chunk))
        self._ends[last] = {**self._ends[last], **reported(self._request, result)}
        return b"".join([*parts, *(event(encode(chunk)) for chunk in self._ends), DONE])

    def error(self, error: GatewayError) -> bytes:
        """Write the failure of a stream that had begun; no `[DONE]` follows."""
        return event(encode(error.body()))

    def _usual_chunk(self, delta: Delta) -> Mapping[str, Any] | None:
        """Return the chunk of an event with one choice that goes on, in few steps; None for any other."""
        raw, choice = delta.event, delta.choice
        choices, fields = raw.get("choices"), choice.get("delta")
        if not choices or len(choices) > 1 or not fields or choice.get("finish_reason") is not None:
            return None
        self._event = raw
        reasoning, content, plain = delta.reasoning, delta.content, self._options.plain
        same = reasoning == engine_reasoning(fields) and content == (fields.get("content") or "")
        if same and (plain or not reasoning) and choices[0] is choice:
            return raw
        if reasoning and not content and not plain:  # thinking, whoever has told it apart
            fields = {**fields, "reasoning_content": reasoning, "reasoning": reasoning}
            if fields.get("content"):
                fields["content"] = ""
        elif not same:
            fields = _edited(fields, reasoning, content, self._options)
        return {**raw, "choices": [{**choice, "delta": fields}]}

    def _choice(self, delta: Delta) -> Mapping[str, Any] | None:
        """Return a delta's choice with the text as the client gets it; None where all of it is hidden."""
        choice = delta.choice
        fields = choice.get("delta") or {}
        edited = _edited(fields, delta.reasoning, delta.content, self._options)
        if delta.content:
            self._answering.add(delta.index)
        if self._hides:
            if delta.reasoning and not any(edited.values()) and choice.get("finish_reason") is None:
                return None
            if delta.reasoning or delta.index not in self._answering:
                choice = {key: value for key, value in choice.items() if key not in _TOKENS}
        return choice if edited is fields else {**choice, "delta": edited}

    def _late_text(self, delta: Delta) -> bytes:
        """Write text without a chunk of its own; it goes into the choice's end where that has text too."""
        for place, chunk in enumerate(self._ends):
            for choice in chunk.get("choices") or ():
                fields = choice.get("delta") or {}
                reasoning, content = engine_reasoning(fields), fields.get("content") or ""
                if choice.get("index") == delta.index and (reasoning or content):
                    edited = _edited(
                        fields, reasoning + delta.reasoning, content + delta.content, self._options
                    )
                    end = {**choice, "delta": edited}
                    choices = [end if other is choice else other for other in chunk["choices"]]
                    self._ends[place] = {**chunk, "choices": choices}
                    return b""
        fields = _edited({}, delta.reasoning, delta.content, self._options)
        if not fields:
            return b""
        choice = {"index": delta.index, "delta": fields, "finish_reason": None}
        return self._write(self._own_chunk(choice), has_text=True)

    def _own_chunk(self, choice: Json) -> Json:
        """Return a chunk that the engine hasn't sent."""
        head = {key: value for key, value in self._event.items() if key not in _NO_HEAD}
        return {**head, "choices": [choice]}

    def _flush(self) -> bytes:
        """Write the gathered choices as the one event that they came in."""
        choices, self._gathered = self._gathered, []
        if not choices:
            return b""
        own = self._event.get("choices") or ()
        unchanged = len(own) == len(choices) and all(map(_is, own, choices))
        chunk = self._event if unchanged else {**self._event, "choices": choices}
        has_text = any(map(_has_text, choices))
        if _ends_choice(chunk) or (self._ends and not has_text):
            self._ends.append(dict(chunk))
            return b""
        return self._write(chunk, has_text=has_text)

    def _write(self, chunk: Mapping[str, Any], *, has_text: bool) -> bytes:
        block = event(encode(chunk))
        if self._has_text:
            return block
        self._waiting.append(block)
        if not has_text:
            return b""
        self._has_text = True
        blocks, self._waiting = self._waiting, []
        return b"".join(blocks)


def _has_text(choice: Mapping[str, Any]) -> bool:
    """Tell whether a choice holds something of the reply: text, a tool call, a vendor's field."""
    fields = choice.get("delta") or {}
    return any(value for key, value in fields.items() if key != "role")


def _ends_choice(chunk: Mapping[str, Any]) -> bool:
    return any(choice.get("finish_reason") is not None for choice in chunk.get("choices") or ())


def _is(one: object, other: object) -> bool:
    return one is other
