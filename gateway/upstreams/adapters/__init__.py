"""Engine adapters, one file a kind of engine.

To add an engine: write a subclass of `EngineAdapter` in a file of its own, and name it in `ADAPTERS`.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.upstreams.adapters.base import EngineAdapter
from gateway.upstreams.adapters.llama_cpp import LlamaCppAdapter
from gateway.upstreams.adapters.vllm import VLLMAdapter

__all__ = ["ADAPTERS", "EngineAdapter", "LlamaCppAdapter", "VLLMAdapter", "adapter_for"]

ADAPTERS: Mapping[str, EngineAdapter] = {"vllm": VLLMAdapter(), "llamacpp": LlamaCppAdapter()}
"""The adapters, each under the `owned_by` of its engine's `/v1/models`."""


def adapter_for(owned_by: str | None) -> EngineAdapter:
    """Return the adapter of the engine that names itself so; for any other name the plain adapter."""
    return ADAPTERS.get(owned_by or "") or EngineAdapter()
