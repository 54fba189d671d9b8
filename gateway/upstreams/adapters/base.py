"""What differs between OpenAI-compatible engines: token counts, rendered chats, continuing from a prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from gateway.upstreams.base import ModelCard, Prompt

__all__ = ["EngineAdapter", "tokens_in"]

# Chat fields that `/v1/completions` doesn't know, or that mean something else there. Every other field
# that a client sent (sampling fields, vendors' extras) goes along.
_CHAT_ONLY = frozenset(
    {
        "add_generation_prompt",
        "audio",
        "chat_template",
        "chat_template_kwargs",
        "continue_final_message",
        "function_call",
        "functions",
        "include_reasoning",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "reasoning_effort",
        "store",
        "stream",
        "stream_options",
        "thinking_token_budget",
        "tool_choice",
        "tools",
        "top_logprobs",
        "verbosity",
        "web_search_options",
    }
)


def tokens_in(entry: Mapping[str, Any], name: str) -> int | None:
    """Return a positive number of tokens in a model's entry; None where it has none."""
    value = entry.get(name)
    return value if type(value) is int and value > 0 else None


class EngineAdapter:
    """An engine of an unknown kind: it speaks OpenAI's dialect, and nothing else is sure."""

    name: ClassVar[str] = "openai"
    render_path: ClassVar[str | None] = None
    """A route, below the server's root, that renders a chat without running it."""
    token_ids_field: ClassVar[str | None] = None
    """The request field that adds `prompt_token_ids` to a reply, and `token_ids` to its choices."""
    limit_field: ClassVar[str | None] = None
    """The request field by which the engine itself enforces a thinking limit."""
    notices_disconnect: ClassVar[bool] = True
    """Whether the engine also stops an unstreamed request when the connection closes."""
    keeps_connection: ClassVar[bool] = True
    """Whether the engine keeps a connection open after a streamed reply."""
    counts_in: ClassVar[Literal["usage", "timings"] | None] = None
    """The field of each streamed event that counts the tokens generated so far; None where none does."""
    stream_options: ClassVar[Mapping[str, Any]] = {"include_usage": True}
    """What `stream_options` holds in every streamed request, so that the engine counts tokens."""
    stream_fields: ClassVar[Mapping[str, Any]] = {}
    """Other fields of every streamed request, for the same purpose."""

    def card(self, entry: Mapping[str, Any]) -> ModelCard:
        """Read one entry of `/v1/models`."""
        base = entry.get("root")
        context = tokens_in(entry, "max_model_len") or tokens_in(entry, "context_length")
        return ModelCard(entry["id"], base if isinstance(base, str) else None, context, entry)

    def render_body(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the request to `render_path`."""
        keys = ("model", "messages", "tools", "chat_template", "chat_template_kwargs")
        return {key: body[key] for key in keys if key in body}

    def rendered(self, reply: Mapping[str, Any]) -> Prompt | None:
        """Return the prompt in a reply of `render_path`."""
        return None

    def tokenize(self, model: str, text: str) -> tuple[str, dict[str, Any], str]:
        """Return how to tokenize a bare text: path, request body, key of the reply."""
        return "/tokenize", {"model": model, "prompt": text, "add_special_tokens": False}, "tokens"

    def detokenize(self, model: str, tokens: list[int]) -> tuple[str, dict[str, Any], str]:
        """Return how to turn token ids into text, special tokens included (see `tokenize`)."""
        return "/detokenize", {"model": model, "tokens": tokens}, "prompt"

    def tokenize_prompt(self, model: str, prompt: str) -> tuple[str, dict[str, Any], str]:
        """Return how to tokenize a rendered chat, special tokens included (see `tokenize`)."""
        return "/tokenize", {"model": model, "prompt": prompt, "add_special_tokens": False}, "tokens"

    def completion(self, body: Mapping[str, Any], prompt: Prompt, max_tokens: int | None) -> dict[str, Any]:
        """Return the `/v1/completions` request that stands in for a chat request."""
        request = {key: value for key, value in body.items() if key not in _CHAT_ONLY}
        if body.get("logprobs"):
            request["logprobs"] = body.get("top_logprobs") or 1
        request["prompt"] = prompt
        request["max_tokens"] = max_tokens  # without the field, OpenAI's default is 16; null is no cap
        return request

    def chat_prefix(self, body: Mapping[str, Any], prefix: str, max_tokens: int | None) -> dict[str, Any]:
        """Return the chat request whose last message is what the assistant has said so far."""
        request = {**body, "messages": [*body["messages"], {"role": "assistant", "content": prefix}]}
        if max_tokens is not None:
            own = [name for name in ("max_completion_tokens", "max_tokens") if body.get(name) is not None]
            request |= dict.fromkeys(own or ["max_tokens"], max_tokens)
        return request
