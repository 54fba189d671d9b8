"""llama.cpp's server, which is the embedded engine too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.upstreams.adapters.base import EngineAdapter, tokens_in
from gateway.upstreams.base import ModelCard, Prompt

__all__ = ["LlamaCppAdapter"]


class LlamaCppAdapter(EngineAdapter):
    """Counts tokens in `timings`, renders by `/apply-template`."""

    name = "llamacpp"
    render_path = "/apply-template"
    notices_disconnect = False
    keeps_connection = False
    counts_in = "timings"
    stream_fields: ClassVar[Mapping[str, Any]] = {"timings_per_token": True}

    def card(self, entry: Mapping[str, Any]) -> ModelCard:
        meta = entry.get("meta")
        known = meta if isinstance(meta, dict) else {}
        context = tokens_in(known, "n_ctx") or tokens_in(known, "n_ctx_train")
        return ModelCard(entry["id"], None, context, entry)

    def rendered(self, reply: Mapping[str, Any]) -> Prompt | None:
        prompt = reply.get("prompt")
        return prompt if isinstance(prompt, str) and prompt else None

    def completion(self, body: Mapping[str, Any], prompt: Prompt, max_tokens: int | None) -> dict[str, Any]:
        request = super().completion(body, prompt, max_tokens)
        response_format = request.pop("response_format", None)  # only the chat route reads it
        if isinstance(response_format, dict) and response_format.get("type") in (
            "json_schema",
            "json_object",
        ):
            wrapper = response_format.get("json_schema")
            schema = wrapper.get("schema") if isinstance(wrapper, dict) else response_format.get("schema")
            request["json_schema"] = schema or {"type": "object"}
        return request

    def tokenize_prompt(self, model: str, prompt: str) -> tuple[str, dict[str, Any], str]:
        return "/tokenize", {"content": prompt, "add_special": True, "parse_special": True}, "tokens"
