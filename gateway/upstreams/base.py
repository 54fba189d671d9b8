"""What the gateway asks of an upstream, whatever engine runs there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from gateway.errors import UpstreamError

__all__ = [
    "Chunk",
    "Completion",
    "Endpoint",
    "ModelCard",
    "ModelTraits",
    "Prompt",
    "Upstream",
    "UpstreamLimits",
    "UpstreamRequest",
]

Endpoint = Literal["chat/completions", "completions"]
Prompt = str | list[int]
"""A rendered chat: text, or the model's token ids."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One served model: `name` as clients call it, `base` the model it derives from, `context` in tokens."""

    name: str
    base: str | None = None
    context: int | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class ModelTraits:
    """What an engine offers for one model, and what it has shown so far; all requests share it.

    `limit_field` is the request field by which the engine itself enforces a thinking limit.
    `gives_token_ids`: chunks can carry their token ids. `keeps_limit`: the engine was seen to enforce a
    limit, or to ignore or refuse one (None: not seen yet). `splits_thinking`: it was seen to separate
    thinking from answer itself. `takes_stream_options`: it was not seen to refuse `stream_options`.
    """

    limit_field: str | None = None
    gives_token_ids: bool = False
    keeps_limit: bool | None = None
    splits_thinking: bool = False
    takes_stream_options: bool = True

    def observe_limit(self, kept: bool) -> None:
        """Remember that the engine kept a limit; after one that it ignored, never trust it again."""
        if not kept or self.keeps_limit is None:
            self.keeps_limit = kept


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """How much, and for how long, the gateway reads from an upstream.

    - `connect_timeout` is the seconds until the connection stands.
    - `first_token_timeout` is the seconds until the first token. None: as long as `idle_timeout`.
    - `idle_timeout` is the seconds between two tokens; comments and events without a token don't count.
    - `total_timeout` is the seconds for the whole reply (None: no limit).
    - `max_event_bytes` bounds one event of a stream.
    - `max_reply_bytes` bounds what each choice of a reply takes, `max_logprobs_reply_bytes` the same where
      log probabilities were asked for. Both count bytes after decompression.
    - `max_compression_ratio` bounds how many times larger a compressed reply may become.
    - `max_header_bytes` bounds all headers of a reply together.
    """

    connect_timeout: float = 10.0
    first_token_timeout: float | None = None
    idle_timeout: float = 600.0
    total_timeout: float | None = None
    max_event_bytes: int = 8 * 2**20
    max_reply_bytes: int = 64 * 2**20
    max_logprobs_reply_bytes: int = 128 * 2**20
    max_compression_ratio: int = 100
    max_header_bytes: int = 64 * 2**10


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One request to an engine: the endpoint and the JSON body, without `stream`.

    `ids`: the chunks of a streamed reply should carry their token ids, where the engine has them.
    `verbatim`: the body goes out as it is; no field is added so that the engine counts tokens.
    """

    body: Mapping[str, Any]
    endpoint: Endpoint = "chat/completions"
    ids: bool = False
    verbatim: bool = False


@dataclass(slots=True)
class Chunk:
    """One event of a streamed reply, for one choice (or for none: `index` is None, as with usage).

    `content` and `reasoning` are the new text; `reasoning` is set where the engine separates thinking
    itself. `tokens` counts the tokens that this choice has generated so far, where the engine says;
    `usage` is the engine's own, cumulative. `event` is the whole event, `choice` its one choice. Both are
    checked: every field that OpenAI's API reference names has that type, and tool calls have an index of
    their own. Fields that it doesn't name are as they came. `ids` are the new tokens, where they were asked
    for. `dropped` counts the tokens whose text the gateway has cut off.

    `failure` says that the choice can't be used: it is malformed, or its finish reason is none of an answer
    that is complete or cut at a token limit. `listed`, in the last chunk: the choice's
    content came as lists of parts, of which the texts are kept.
    """

    index: int | None
    content: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    tokens: int | None = None
    usage: Mapping[str, Any] | None = None
    event: Mapping[str, Any] = field(default_factory=dict)
    choice: Mapping[str, Any] = field(default_factory=dict)
    ids: Sequence[int] = ()
    dropped: int = 0
    failure: UpstreamError | None = None
    listed: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """One unstreamed reply: its JSON body, checked like a `Chunk`.

    `failures` holds the error of each choice that can't be used, by the choice's index. `headers` are those
    that a client should see (rate limits). `listed` holds the indices of the choices whose content came as a
    list of parts.
    """

    body: dict[str, Any]
    failures: Mapping[int, UpstreamError] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    listed: frozenset[int] = frozenset()


class Upstream(Protocol):
    """One engine at one address. Methods raise `gateway.errors.UpstreamError` where the engine fails."""

    def stream(self, request: UpstreamRequest) -> AsyncGenerator[Chunk, None]:
        """Stream the reply. Closing the iterator aborts the generation upstream."""
        ...

    async def complete(self, request: UpstreamRequest) -> Completion:
        """Return the whole reply at once. Cancelling aborts the generation upstream."""
        ...

    async def render(self, body: Mapping[str, Any]) -> Prompt | None:
        """Return a chat request's prompt, ready to continue; None where the engine can't render it."""
        ...

    async def prompt_text(self, body: Mapping[str, Any]) -> str | None:
        """Return a chat request's prompt as text, special tokens included; None where nothing tells it."""
        ...

    async def resume(
        self, body: Mapping[str, Any], prompt: Prompt | None, prefix: str, max_tokens: int | None
    ) -> UpstreamRequest:
        """Return the request that continues the reply to `body` after `prefix`, the text so far."""
        ...

    def relay(
        self,
        endpoint: Endpoint,
        payload: bytes,
        on_headers: Callable[[Mapping[str, str]], None] | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Send a payload as it is, and pass on the reply's body as it comes, in whole events.

        `on_headers` gets the reply's headers that a client should see, before the first piece. Closing the
        iterator aborts the generation upstream.
        """
        ...

    async def count(self, body: Mapping[str, Any]) -> int | None:
        """Count the tokens of a chat request's prompt; None where the engine can't tell."""
        ...

    def traits(self, model: str) -> ModelTraits:
        """Return what is known of a model here; the same object every time, so that all requests learn."""
        ...

    def refuses_limit(self, model: str, error: UpstreamError) -> bool:
        """Tell whether an error means that the engine can't enforce limits after all; remember it if so."""
        ...

    async def token_ids(self, model: str, text: str) -> Sequence[int] | None:
        """Return a text's token ids, remembered: for texts that recur only. None where nothing tells them."""
        ...

    async def text_of(self, model: str, ids: Sequence[int]) -> str | None:
        """Return token ids as text, special tokens included; None where the engine can't tell."""
        ...

    async def models(self, *, refresh: bool = False) -> Mapping[str, ModelCard]:
        """Return the served models by name; remembered unless `refresh`."""
        ...

    async def healthy(self) -> bool:
        """Tell whether the engine answers now."""
        ...

    def notices(self) -> Mapping[str, Any]:
        """Return what an operator should know of the engine, for `/health`; usually nothing."""
        ...

    async def start(self) -> None:
        """Get ready to serve."""
        ...

    async def close(self) -> None:
        """Free what is held."""
        ...
