"""Everything that training relies on in transformers beyond its public interface.

tests/training/models/test_trl_compat.py names each thing and says what breaks without it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from training.trainer.untyped import HFTrainer, Model

__all__ = [
    "DynamicLayer",
    "DynamicSlidingWindowLayer",
    "attention_implementation",
    "fused_attention",
    "has_only_layers",
    "mark_dequantized",
    "set_scheduler",
    "shared_weight_names",
]


def attention_implementation(model: Model) -> str:
    """Return the name of the attention that a model computes with."""
    name: str = model.config._attn_implementation
    return name


@contextmanager
def fused_attention(model: Model) -> Iterator[None]:
    """Compute by torch's fused attention within, if the model computes by the eager one and knows the other.

    The eager one copies keys by head, which makes generation slow.
    """
    before = attention_implementation(model)
    if before != "eager" or not model._supports_sdpa:
        yield
        return
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def has_only_layers(model: Model, kinds: Collection[type]) -> bool:
    """Return whether the model's cache has layers of these kinds alone."""
    return all(type(layer) in kinds for layer in DynamicCache(config=model.config).layers)


def mark_dequantized(model: Model) -> None:
    """Take the mark of a quantized model off one that was dequantized while loading, as GGUF files are.

    The trainers refuse marked models, and saving one would write its quantization.
    """
    if getattr(model, "hf_quantizer", None) is not None:
        model.hf_quantizer, model.is_quantized = None, False
        del model.config.quantization_config


def shared_weight_names(model: Model) -> Collection[str]:
    """Return the names of weights that are other weights under a second name, as tied embeddings are."""
    names: Collection[str] = getattr(model, "all_tied_weights_keys", {})
    return names


def set_scheduler(trainer: HFTrainer, scheduler: Any) -> Any:
    """Give a trainer its learning-rate scheduler, which it then saves and restores as its own."""
    trainer.lr_scheduler = scheduler
    trainer._created_lr_scheduler = True
    return scheduler
