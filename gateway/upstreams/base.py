"""What the gateway asks of an engine, whatever it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from gateway.errors import UpstreamError

__all__ = ["Chunk", "Completion", "Endpoint", "ModelCard", "Prompt", "Upstream", "UpstreamRequest"]

Endpoint = Literal["chat/completions", "completions"]
Prompt = str | list[int]
"""A rendered chat: text, or the model's token ids."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One served model: `name` as clients call it, `base` what it was made from, `context` in tokens."""

    name: str
    base: str | None = None
    context: int | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One request to an engine: the endpoint and the JSON body, without `stream`.

    `ids`: a streamed reply's chunks should come with their token ids, where the engine has them.
    """

    body: Mapping[str, Any]
    endpoint: Endpoint = "chat/completions"
    ids: bool = False


@dataclass(slots=True)
class Chunk:
    """One event of a streamed reply, for one choice (or none: `index` None, as with a usage event).

    `content` and `reasoning` are the new text, the latter where the engine splits thinking
    itself. `tokens` counts the tokens this choice has generated so far, where the engine
    says; `usage` is the engine's own, cumulative. `ids` are the new tokens, where they were
    asked for; `dropped` counts those whose text has been cut off. `raw` is the whole event as it came and
    `choice` its one choice.
    """

    index: int | None
    content: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    tokens: int | None = None
    usage: Mapping[str, Any] | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)
    choice: Mapping[str, Any] = field(default_factory=dict)
    ids: Sequence[int] = ()
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """One unstreamed reply: the JSON body as it came."""

    body: dict[str, Any]


class Upstream(Protocol):
    """An engine. Every method raises `gateway.errors.UpstreamError` where the engine fails."""

    def stream(self, plan: UpstreamRequest) -> AsyncGenerator[Chunk, None]:
        """The reply as it is generated. Closing the iterator aborts the generation upstream."""
        ...

    async def complete(self, plan: UpstreamRequest) -> Completion:
        """The whole reply at once. Cancelling aborts the generation upstream."""
        ...

    async def render(self, body: Mapping[str, Any]) -> Prompt | None:
        """A chat request's rendered prompt, ready to be continued; None where the engine can't tell."""
        ...

    async def prompt_text(self, body: Mapping[str, Any]) -> str | None:
        """A chat request's rendered prompt as text, special tokens and all; None where it can't be told."""
        ...

    async def resume(
        self, body: Mapping[str, Any], prompt: Prompt | None, prefix: str, max_tokens: int | None
    ) -> UpstreamRequest:
        """A plan that has the reply to `body` go on after `prefix`, what the assistant has said so far."""
        ...

    def relay(self, endpoint: Endpoint, payload: bytes) -> AsyncGenerator[bytes, None]:
        """A request's payload sent as it is, and the reply's body as it comes, in pieces cut anywhere.

        Closing the iterator aborts the generation upstream.
        """
        ...

    async def count(self, body: Mapping[str, Any]) -> int | None:
        """The tokens of a chat request's prompt; None where the engine can't tell."""

    def native_limit(self, body: Mapping[str, Any], limit: int) -> Mapping[str, Any] | None:
        """The fields by which the engine is asked to keep a thinking limit itself; None where it can't."""
        ...

    def refuses_limit(self, body: Mapping[str, Any], error: UpstreamError) -> bool:
        """Whether an error means that it can't after all; remembered for the model."""
        ...

    def limit_kept(self, body: Mapping[str, Any], kept: bool) -> None:
        """Remembers that the engine was seen to keep a limit for this model, or to ignore it."""
        ...

    def proven_limit(self, body: Mapping[str, Any]) -> bool:
        """Whether the engine has been seen to keep a limit for this model, and never to ignore one."""
        ...

    async def token_ids(self, model: str, text: str) -> Sequence[int] | None:
        """A text's token ids; remembered, so for texts that recur only. None where the engine can't tell."""
        ...

    async def text_of(self, model: str, ids: Sequence[int]) -> str | None:
        """Token ids as text, special tokens and all; None where the engine can't tell."""
        ...

    def splits_thinking(self, body: Mapping[str, Any]) -> bool:
        """Whether the engine has been seen to tell this model's thinking from its answer itself."""
        ...

    async def models(self, *, refresh: bool = False) -> Mapping[str, ModelCard]:
        """The served models by name; remembered unless `refresh`."""
        ...

    async def healthy(self) -> bool:
        """Whether the engine answers now."""
        ...

    async def start(self) -> None:
        """Gets ready to serve."""
        ...

    async def close(self) -> None:
        """Frees what is held."""
        ...
