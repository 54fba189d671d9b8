"""Where OpenAI-compatible engines differ: counting tokens, rendering a chat, going on from a prefix.

To add an engine: a subclass of `EngineAdapter`, and one line in `ENGINES` under the name that its
`/v1/models` gives as `owned_by`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from gateway.upstreams.base import Chunk, ModelCard, Prompt

__all__ = ["ENGINES", "EngineAdapter", "LlamaCppAdapter", "VLLMAdapter", "adapter_for", "with_parents"]

# What a chat request holds that `/v1/completions` doesn't know or means otherwise. Whatever
# else a client sent, sampling fields and vendor extras, goes along.
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


class EngineAdapter:
    """An engine of which nothing is known but that it speaks OpenAI's dialect."""

    name: ClassVar[str] = "openai"
    render_path: ClassVar[str | None] = None
    """A route, below the server's root, that renders a chat without running it."""
    token_ids_field: ClassVar[str | None] = None
    """The request field that has a reply come with `prompt_token_ids`, and its choices with `token_ids`."""
    notices_hang_up: ClassVar[bool] = True
    """Whether it stops an unstreamed request, too, when the connection is closed."""

    def native_limit(self, limit: int) -> Mapping[str, Any] | None:
        """The fields that have the engine keep a thinking limit; None where it has no such fields."""
        return None

    def card(self, entry: Mapping[str, Any]) -> ModelCard:
        """A `/v1/models` entry."""
        context = entry.get("max_model_len") or entry.get("context_length")
        return ModelCard(entry["id"], entry.get("root"), context if isinstance(context, int) else None, entry)

    def counting(self, body: dict[str, Any]) -> dict[str, Any]:
        """The streamed request that also asks for counts of tokens."""
        options = body.get("stream_options") or {}
        body["stream_options"] = {**options, "include_usage": True}
        return body

    def chunks(self, event: Mapping[str, Any]) -> list[Chunk]:
        """One streamed event as chunks, one a choice; an event without choices gives one without index."""
        usage = event.get("usage")
        choices = event.get("choices")
        if not choices:
            return [Chunk(None, usage=usage, tokens=None, raw=event)]
        return [self._chunk(choice, event, usage) for choice in choices]

    def _chunk(self, choice: Mapping[str, Any], event: Mapping[str, Any], usage: Any) -> Chunk:
        delta = choice.get("delta")
        if delta is None:  # /v1/completions
            delta = {"content": choice.get("text")}
            choice = _as_chat_choice(choice, "delta")
        return Chunk(
            choice.get("index", 0),
            delta.get("content") or "",
            delta.get("reasoning_content") or delta.get("reasoning") or "",
            choice.get("finish_reason"),
            self.tokens_so_far(event, choice),
            usage,
            event,
            choice,
            choice.get("token_ids") or (),
        )

    def tokens_so_far(self, event: Mapping[str, Any], choice: Mapping[str, Any]) -> int | None:
        """Tokens this choice has generated up to this event; None where the engine doesn't say."""
        return None

    def chat_body(self, reply: dict[str, Any]) -> dict[str, Any]:
        """A `/v1/completions` reply in the shape of a chat reply."""
        choices = [
            {
                **_as_chat_choice(choice, "message"),
                "message": {"role": "assistant", "content": choice.get("text", "")},
            }
            for choice in reply.get("choices", ())
        ]
        return {**reply, "object": "chat.completion", "choices": choices}

    def render_body(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The request to `render_path`."""
        keys = ("model", "messages", "tools", "chat_template", "chat_template_kwargs")
        return {key: body[key] for key in keys if key in body}

    def rendered(self, reply: Mapping[str, Any]) -> Prompt | None:
        """The prompt in a reply from `render_path`."""
        return None

    def tokenize(self, model: str, text: str) -> tuple[str, dict[str, Any], str]:
        """How to have a bare text tokenized: path, request body, and the reply's key."""
        return "/tokenize", {"model": model, "prompt": text, "add_special_tokens": False}, "tokens"

    def detokenize(self, model: str, tokens: list[int]) -> tuple[str, dict[str, Any], str]:
        """How to have token ids turned into text, special tokens and all; as `tokenize`."""
        return "/detokenize", {"model": model, "tokens": tokens}, "prompt"

    def tokenize_prompt(self, model: str, prompt: str) -> tuple[str, dict[str, Any], str]:
        """How to have a rendered chat tokenized, special tokens and all; as `tokenize`."""
        return "/tokenize", {"model": model, "prompt": prompt, "add_special_tokens": False}, "tokens"

    def completion(self, body: Mapping[str, Any], prompt: Prompt, max_tokens: int | None) -> dict[str, Any]:
        """The `/v1/completions` request that stands in for a chat request."""
        request = {key: value for key, value in body.items() if key not in _CHAT_ONLY}
        if body.get("logprobs"):
            request["logprobs"] = body.get("top_logprobs") or 1
        request["prompt"] = prompt
        if max_tokens is not None:
            request["max_tokens"] = max_tokens
        return request

    def chat_prefix(self, body: Mapping[str, Any], prefix: str, max_tokens: int | None) -> dict[str, Any]:
        """The chat request whose last message is what the assistant has said so far."""
        request = {key: value for key, value in body.items() if key != "max_completion_tokens"}
        request["messages"] = [*body["messages"], {"role": "assistant", "content": prefix}]
        if max_tokens is not None:
            request["max_tokens"] = max_tokens
        return request


class VLLMAdapter(EngineAdapter):
    """vLLM: counts with every chunk, renders by `/tokenize`, goes on from an open message by two flags."""

    name = "vllm"
    render_path = "/tokenize"
    token_ids_field = "return_token_ids"

    def counting(self, body: dict[str, Any]) -> dict[str, Any]:
        options = body.get("stream_options") or {}
        body["stream_options"] = {**options, "include_usage": True, "continuous_usage_stats": True}
        return body

    def native_limit(self, limit: int) -> Mapping[str, Any] | None:
        return {"thinking_token_budget": limit}

    def tokens_so_far(self, event: Mapping[str, Any], choice: Mapping[str, Any]) -> int | None:
        usage = event.get("usage")
        return usage.get("completion_tokens") if usage else None

    def render_body(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {**super().render_body(body), "add_generation_prompt": True}

    def rendered(self, reply: Mapping[str, Any]) -> Prompt | None:
        tokens = reply.get("tokens")
        return tokens if isinstance(tokens, list) and tokens else None

    def chat_prefix(self, body: Mapping[str, Any], prefix: str, max_tokens: int | None) -> dict[str, Any]:
        request = super().chat_prefix(body, prefix, max_tokens)
        return {**request, "add_generation_prompt": False, "continue_final_message": True}


class LlamaCppAdapter(EngineAdapter):
    """llama.cpp's server, the embedded engine: counts in `timings`, renders by `/apply-template`."""

    name = "llamacpp"
    render_path = "/apply-template"
    notices_hang_up = False

    def card(self, entry: Mapping[str, Any]) -> ModelCard:
        meta = entry.get("meta") or {}
        context = meta.get("n_ctx") or meta.get("n_ctx_train")
        return ModelCard(entry["id"], None, context if isinstance(context, int) else None, entry)

    def counting(self, body: dict[str, Any]) -> dict[str, Any]:
        return {**super().counting(body), "timings_per_token": True}

    def chunks(self, event: Mapping[str, Any]) -> list[Chunk]:
        chunks = super().chunks(event)
        if not event.get("usage") and (timings := event.get("timings")):
            prompt = timings.get("cache_n", 0) + timings.get("prompt_n", 0)
            for chunk in chunks:  # the only word of the prompt's length in a reply that is cut
                chunk.usage = {"prompt_tokens": prompt, "completion_tokens": timings.get("predicted_n")}
        return chunks

    def tokens_so_far(self, event: Mapping[str, Any], choice: Mapping[str, Any]) -> int | None:
        timings = event.get("timings")
        return timings.get("predicted_n") if timings else None

    def rendered(self, reply: Mapping[str, Any]) -> Prompt | None:
        prompt = reply.get("prompt")
        return prompt if isinstance(prompt, str) and prompt else None

    def completion(self, body: Mapping[str, Any], prompt: Prompt, max_tokens: int | None) -> dict[str, Any]:
        request = super().completion(body, prompt, max_tokens)
        form = request.pop("response_format", None)  # only its chat route reads that
        if isinstance(form, dict) and form.get("type") in ("json_schema", "json_object"):
            wrapped = form.get("json_schema")
            own = wrapped.get("schema") if isinstance(wrapped, dict) else form.get("schema")
            request["json_schema"] = own or {"type": "object"}
        return request

    def tokenize_prompt(self, model: str, prompt: str) -> tuple[str, dict[str, Any], str]:
        return "/tokenize", {"content": prompt, "add_special": True, "parse_special": True}, "tokens"


ENGINES: Mapping[str, EngineAdapter] = {engine.name: engine for engine in (VLLMAdapter(), LlamaCppAdapter())}


def adapter_for(owned_by: str | None) -> EngineAdapter:
    """The engine that names itself so in its model list; the plain one for all others."""
    return ENGINES.get(owned_by or "") or EngineAdapter()


def with_parents(cards: Mapping[str, ModelCard]) -> dict[str, ModelCard]:
    """The cards; one that names a parent (in vLLM an adapter) was made from the same and holds as much."""
    return {name: _inheriting(card, cards.get(str(card.raw.get("parent")))) for name, card in cards.items()}


def _inheriting(card: ModelCard, parent: ModelCard | None) -> ModelCard:
    if parent is None or parent.name == card.name:
        return card
    return replace(card, base=parent.base or parent.name, context=card.context or parent.context)


def _as_chat_choice(choice: Mapping[str, Any], part: str) -> dict[str, Any]:
    kept = {key: value for key, value in choice.items() if key != "text"}
    kept[part] = {}
    if choice.get("logprobs"):
        kept["logprobs"] = _chat_logprobs(choice["logprobs"])
    return kept


def _chat_logprobs(legacy: Mapping[str, Any]) -> Mapping[str, Any]:
    """`/v1/completions`' parallel lists of logprobs as chat's list of objects (OpenAI's API reference)."""
    if "tokens" not in legacy:
        return legacy
    tops = legacy.get("top_logprobs") or [None] * len(legacy["tokens"])
    content = [
        {
            "token": token,
            "logprob": logprob,
            "bytes": list(token.encode()),
            "top_logprobs": [
                {"token": other, "logprob": value, "bytes": list(other.encode())}
                for other, value in (top or {}).items()
            ],
        }
        for token, logprob, top in zip(legacy["tokens"], legacy["token_logprobs"], tops, strict=True)
    ]
    return {"content": content}
