"""The gate for streams: what an upstream sends becomes typed chunks, or one `UpstreamError`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from gateway.errors import UpstreamError, UpstreamUnreachable
from gateway.upstreams.adapters import EngineAdapter
from gateway.upstreams.base import Chunk, ModelTraits, UpstreamRequest
from gateway.upstreams.blackout import KeyBlackout
from gateway.upstreams.checks import (
    PLAIN_DELTA,
    check_envelope,
    check_message,
    checked_finish,
    checked_index,
    checked_logprobs,
    checked_usage,
    count,
    json_object,
    legacy_logprobs,
    token_ids,
)
from gateway.upstreams.failures import error_of, failed_finish, malformed, passed_headers, unfinished
from gateway.upstreams.reply import Reply
from gateway.upstreams.sse import ErrorPayload, EventParser
from gateway.upstreams.tool_calls import Malformed, ToolCallReader
from gateway.upstreams.whole_replies import check_reply

__all__ = ["MOST_CHOICES", "ChunkReader", "choices_in", "named_error", "read_chunks"]

MOST_CHOICES = 4_096
"""Choices of one request that are kept apart; no engine gives as many."""
_AFTER_FINISH = 5.0
"""Seconds to wait for usage and `[DONE]` once all choices have finished."""
_DONE = b"[DONE]"
_SHORT = 16  # bytes; no JSON object of a reply is as short


def choices_in(request: UpstreamRequest) -> int:
    """Return how many choices a request asks for."""
    choices = request.body.get("n")
    return min(choices, MOST_CHOICES) if type(choices) is int and choices > 0 else 1


async def read_chunks(
    opening: AbstractAsyncContextManager[Reply], reader: ChunkReader, parser: EventParser
) -> AsyncGenerator[Chunk, None]:
    """Open a streamed reply and read its chunks.

    Raises `UpstreamError` where the whole stream fails. Once all choices have ended, no failure matters.
    """
    async with opening as reply:
        block = await reply.next()
        if block.lstrip()[:1] in (b"{", b"[", b"<"):  # no event begins so: a whole reply, or an error
            for chunk in reader.read_whole(block + await reply.whole(), reply.headers):
                yield chunk
            return
        silence, closing = reply.silence, False
        try:
            while True:
                for payload in parser.feed(block) if block else parser.end():
                    if len(payload) < _SHORT and payload.strip() == _DONE:
                        block = b""
                        break
                    for chunk in reader.read(payload):
                        if not (silence.token or closing):
                            silence.token = bool(chunk.content or chunk.reasoning) or _is_token(chunk)
                        yield chunk
                    if not reader.open_choices and not closing:
                        if reader.all_failed:
                            return
                        closing = True
                        silence.shorten(_AFTER_FINISH)
                if not block:
                    break
                block = await reply.next()
        except UpstreamError:
            if reader.open_choices:
                raise
        for chunk in reader.end():
            yield chunk


def _is_plain(delta: dict[str, Any]) -> bool:
    """Tell whether a delta holds nothing but texts."""
    if len(delta) == 1 and type(delta.get("content")) is str:
        return True
    for name, value in delta.items():
        if name not in PLAIN_DELTA or (type(value) is not str and value is not None):
            return False
    return True


def _is_token(chunk: Chunk) -> bool:
    """Tell whether a chunk without text is an answer's progress all the same."""
    return bool(chunk.finish_reason or (chunk.choice.get("delta") or {}).get("tool_calls"))


class ChunkReader:
    """Reads the events of one streamed reply, which has so many `choices`.

    `text`: the choices are `/v1/completions`' own. `hide_ids`: only the gateway asked for token ids, so they
    are removed from the events. `open_choices` are those that have not ended yet.
    """

    def __init__(
        self,
        adapter: EngineAdapter,
        traits: ModelTraits,
        choices: int = 1,
        *,
        text: bool = False,
        hide_ids: bool = False,
        blackout: KeyBlackout | None = None,
    ) -> None:
        self.open_choices = set(range(choices))
        self._traits = traits
        self._choices = choices
        self._failed = 0
        self._counts_in = adapter.counts_in
        self._text = text
        self._hide_ids = hide_ids
        self._blackout = blackout.payload if blackout is not None and blackout.hides else None
        self._calls: dict[int, ToolCallReader] = {}
        self._listed: set[int] = set()  # choices whose content comes as a list of parts

    @property
    def all_failed(self) -> bool:
        """Whether no choice can be used."""
        return self._failed == self._choices

    def read(self, payload: bytes) -> Sequence[Chunk]:
        """Return the chunks of one event. Raises `UpstreamError` where it fails the whole stream."""
        if type(payload) is ErrorPayload:
            raise named_error(ErrorPayload(self._blackout(payload) if self._blackout else payload))
        if self._blackout is not None:
            payload = self._blackout(payload)
        event = json_object(payload)
        choices = event.get("choices")
        if (not choices or "error" in event) and (error := error_of(event)) is not None:
            raise error
        check_envelope(event)
        usage, tokens = event.get("usage"), None
        if usage is not None or self._counts_in == "timings":
            usage, tokens = self._counts(event)
        if not choices:
            chunks: Sequence[Chunk] = (Chunk(None, usage=usage, event=event),)
        elif type(choices) is not list:
            raise malformed("its choices are no list")
        elif len(choices) == 1:
            chunk = self._chunk(choices[0], event, tokens, usage)
            chunks = self._none(event, usage) if chunk is None else (chunk,)
        else:
            chunks = self._several(choices, event, tokens, usage)
        if self._hide_ids:
            _remove_ids(event)
        return chunks

    def read_whole(self, body: bytes, headers: Mapping[str, str]) -> Sequence[Chunk]:
        """Return the chunks of an engine that sends its whole reply at once. Raises `UpstreamError`."""
        reply = json_object(body if self._blackout is None else self._blackout(body))
        passed = passed_headers(headers)
        if self._blackout is not None:
            passed = {name: self._blackout(value.encode()).decode() for name, value in passed.items()}
        completion = check_reply(reply, self._choices, text=self._text, headers=passed)
        chunks = []
        usage = reply.get("usage")
        for choice in reply["choices"]:
            index, message = choice["index"], choice.pop("message")
            choice["delta"] = message
            chunks.append(
                Chunk(
                    index,
                    message.get("content") or "",
                    message.get("reasoning_content") or message.get("reasoning") or "",
                    None if index in completion.failures else choice["finish_reason"],
                    usage=usage if self._choices == 1 else None,
                    event=reply,
                    choice=choice,
                    failure=completion.failures.get(index),
                    listed=index in completion.listed,
                )
            )
            self.open_choices.discard(index)
        chunks += [self._failure(index, unfinished(), reply, None) for index in sorted(self.open_choices)]
        if usage and self._choices > 1:
            chunks.append(Chunk(None, usage=usage, event={**reply, "choices": []}))
        return chunks

    def end(self) -> Sequence[Chunk]:
        """End the stream: each choice that has no finish reason has failed."""
        if len(self.open_choices) == self._choices:
            raise unfinished()
        return [self._failure(index, unfinished(), {}, None) for index in sorted(self.open_choices)]

    def _counts(self, event: dict[str, Any]) -> tuple[dict[str, Any] | None, int | None]:
        """Return an event's usage, and the tokens that its choice has generated so far."""
        usage = event.get("usage")
        if usage is not None:
            usage = checked_usage(usage)
            if usage is None:
                del event["usage"]
        if self._counts_in == "usage":
            return usage, usage.get("completion_tokens") if usage else None
        if self._counts_in != "timings" or not isinstance(timings := event.get("timings"), dict):
            return usage, None
        tokens = count(timings.get("predicted_n"))
        if not usage and tokens is not None:  # where a reply is cut, nothing else tells the prompt's length
            prompt = (count(timings.get("cache_n")) or 0) + (count(timings.get("prompt_n")) or 0)
            usage = {"prompt_tokens": prompt, "completion_tokens": tokens}
        return usage, tokens

    def _several(
        self, choices: list[Any], event: dict[str, Any], tokens: int | None, usage: dict[str, Any] | None
    ) -> Sequence[Chunk]:
        """Return the chunks of an event with several choices; of two for one index, the first counts."""
        chunks: dict[int | None, Chunk] = {}
        for choice in choices:
            chunk = self._chunk(choice, event, tokens, usage)
            if chunk is not None:
                chunks.setdefault(chunk.index, chunk)
        event["choices"] = [chunk.choice for chunk in chunks.values() if chunk.failure is None]
        return list(chunks.values()) or self._none(event, usage)

    def _none(self, event: dict[str, Any], usage: dict[str, Any] | None) -> Sequence[Chunk]:
        """Return what counts of an event whose choices have ended, or that nobody asked for: its usage."""
        said = any(map(_says, event["choices"]))
        if said:
            event["choices"] = []
        return () if said and usage is None else (Chunk(None, usage=usage, event=event),)

    def _chunk(
        self, choice: Any, event: dict[str, Any], tokens: int | None, usage: dict[str, Any] | None
    ) -> Chunk | None:
        """Return the chunk of one choice; None where the choice has ended, or nobody asked for it."""
        if type(choice) is not dict:
            return self._no_object(event, usage)
        index = choice.get("index")
        if type(index) is not int:
            index = choice["index"] = self._index(index)
        if index not in self.open_choices:
            return None
        delta = choice.get("delta")
        if self._text or not (type(delta) is dict and _is_plain(delta)):
            try:
                delta = self._delta(choice, index)
            except Malformed as problem:
                return self._failure(index, malformed(str(problem)), event, usage)
        finish = choice.get("finish_reason")
        if finish is not None:
            finish, usable = checked_finish(choice)
            if not usable:
                return self._failure(index, failed_finish(choice["finish_reason"]), event, usage)
            if finish is not None:
                self.open_choices.discard(index)
        if choice.get("logprobs") is not None:
            choice["logprobs"] = (legacy_logprobs if self._text else checked_logprobs)(choice["logprobs"])
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        if reasoning:
            self._traits.splits_thinking = True
        ids = token_ids(choice["token_ids"]) if "token_ids" in choice else ()
        chunk = Chunk(index, delta.get("content") or "", reasoning, finish, tokens, usage, event, choice, ids)
        if finish is not None and index in self._listed:
            chunk.listed = True
        return chunk

    def _no_object(self, event: dict[str, Any], usage: dict[str, Any] | None) -> Chunk:
        """Return the failure of the only choice; of several, nobody knows which it is."""
        if self._choices == 1 and self.open_choices:
            return self._failure(0, malformed("it is no object"), event, usage)
        raise malformed("it is no object")

    def _index(self, index: object) -> int:
        checked = checked_index(index, self._choices == 1)
        if checked is None:
            if self._choices > 1:
                raise malformed("it has no index")
            return -1  # nobody's
        return checked

    def _delta(self, choice: dict[str, Any], index: int) -> dict[str, Any]:
        """Return a choice's checked delta. Raises `Malformed`."""
        if self._text:
            text = choice.pop("text", None)
            if text is not None and not isinstance(text, str):
                raise Malformed("its text is no string")
            choice["delta"] = {}
            return {"content": text}
        delta = choice.get("delta")
        if delta is None:  # some engines stream `message`, or the `text` of /v1/completions
            delta = choice.pop("message", None)
            if delta is None:
                delta = {"content": choice.pop("text")} if choice.get("text") else {}
            choice["delta"] = delta
        if not isinstance(delta, dict):
            raise Malformed("its delta is no object")
        if check_message(delta, self._calls_at(index)):
            self._listed.add(index)
        return delta

    def _calls_at(self, index: int) -> Any:
        reader = self._calls.get(index)
        if reader is None:
            reader = self._calls[index] = ToolCallReader()
        return reader.read

    def _failure(
        self, index: int, error: UpstreamError, event: dict[str, Any], usage: dict[str, Any] | None
    ) -> Chunk:
        if index in self.open_choices:
            self.open_choices.discard(index)
            self._failed += 1
        return Chunk(index, usage=usage, event=event, failure=error)


def named_error(payload: ErrorPayload) -> UpstreamError:
    """Return the error of an event named `error`, whatever it holds."""
    try:
        value = json_object(payload)
    except UpstreamUnreachable:
        text = payload[:500].decode("utf-8", "replace")
        return UpstreamError(502, text or "The upstream failed.")
    return (
        error_of({"error": value} if not isinstance(value.get("error"), (dict, str)) else value)
        or unfinished()
    )


def _says(choice: object) -> bool:
    """Tell whether a choice holds text or calls."""
    if not isinstance(choice, dict):
        return True
    delta = choice.get("delta")
    parts = delta if isinstance(delta, dict) else choice
    return any(parts.get(name) for name in (*PLAIN_DELTA, "tool_calls", "refusal", "function_call", "text"))


def _remove_ids(event: dict[str, Any]) -> None:
    for part in (event, *(event.get("choices") or ())):
        if isinstance(part, dict):
            part.pop("token_ids", None)
            part.pop("prompt_token_ids", None)
