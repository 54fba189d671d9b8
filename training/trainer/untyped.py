"""Names for objects of torch, transformers and TRL, which have no types that a checker can use."""

from __future__ import annotations

from typing import Any, TypeAlias

__all__ = ["Batch", "HFTokenizer", "HFTrainer", "Model"]

Model: TypeAlias = Any
"""A causal language model of transformers, perhaps with PEFT's adapter around it."""
HFTokenizer: TypeAlias = Any
"""A tokenizer of transformers. `training.data.prompts.Tokenizer` has what prompts need of it."""
HFTrainer: TypeAlias = Any
"""A trainer of transformers or TRL."""
Batch: TypeAlias = dict[str, Any]
"""A batch of TRL's: tensors, and a few other values, by name."""
