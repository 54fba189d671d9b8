"""vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.upstreams.adapters.base import EngineAdapter
from gateway.upstreams.base import Prompt
from gateway.upstreams.checks import token_ids

__all__ = ["VLLMAdapter"]


class VLLMAdapter(EngineAdapter):
    """Counts tokens with every chunk, renders by `/tokenize`, continues an open message by two flags."""

    name = "vllm"
    render_path = "/tokenize"
    token_ids_field = "return_token_ids"
    limit_field = "thinking_token_budget"
    counts_in = "usage"
    stream_options: ClassVar[Mapping[str, Any]] = {"include_usage": True, "continuous_usage_stats": True}

    def render_body(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {**super().render_body(body), "add_generation_prompt": True}

    def rendered(self, reply: Mapping[str, Any]) -> Prompt | None:
        tokens = reply.get("tokens")
        return token_ids(tokens) or None

    def chat_prefix(self, body: Mapping[str, Any], prefix: str, max_tokens: int | None) -> dict[str, Any]:
        request = super().chat_prefix(body, prefix, max_tokens)
        return {**request, "add_generation_prompt": False, "continue_final_message": True}
