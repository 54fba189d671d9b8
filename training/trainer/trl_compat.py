"""Everything that training relies on in TRL beyond its public interface.

A TRL release may change any of it. tests/training/models/test_trl_compat.py names each thing and says what
breaks without it. The same for transformers stands in `training.trainer.transformers_compat`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias
from unittest.mock import patch

import torch
import trl.trainer.utils
from trl import GRPOTrainer
from trl.models.utils import unwrap_model_for_generation

from training.trainer.untyped import Batch, Model

__all__ = [
    "OpenGRPOTrainer",
    "TokenScores",
    "fused_log_probs",
    "score_completions_only",
    "silence_experimental_warning",
]

TokenScores: TypeAlias = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]
"""Log probabilities, entropies or None, and an auxiliary loss or None."""


class OpenGRPOTrainer(GRPOTrainer):
    """TRL's GRPO trainer with public methods in place of the private ones that a subclass changes.

    `prepare_batch`, `token_logprobs` and `batch_loss` are for overriding; by default each does what TRL does.
    """

    def sample_on_server(
        self, prompts: Sequence[Sequence[int]], limit: int
    ) -> tuple[Sequence[Sequence[int]], Sequence[Sequence[float]]]:
        """Return (ids, logprobs) of one completion of each prompt, of at most `limit` tokens.

        TRL first sends the server the weights, if a step has changed them.
        """
        self.vllm_generation.max_completion_length = limit
        ids, logprobs = self._generate_single_turn(list(prompts), None, {}, self.num_generations)
        return ids, logprobs

    def generation_model(self) -> AbstractContextManager[Model]:
        """Return a context with the model that generates: unwrapped, without gradient checkpointing."""
        context: AbstractContextManager[Model] = unwrap_model_for_generation(
            self.model_wrapped,
            self.accelerator,
            gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
        )
        return context

    def prepare_batch(self, batch: Batch) -> Batch:
        """Return a generated and scored batch as the loss takes it."""
        return batch

    def token_logprobs(
        self,
        model: Model,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        completion_length: int,
        batch_size: int | None,
        *,
        compute_entropy: bool,
        **options: object,
    ) -> TokenScores:
        """Return (logprobs, entropies or None, auxiliary loss or None) of the completions' tokens."""
        scores: TokenScores = super()._get_per_token_logps_and_entropies(
            model, input_ids, attention_mask, completion_length, batch_size, compute_entropy, **options
        )
        return scores

    def batch_loss(self, model: Model, batch: Batch) -> torch.Tensor:
        """Return the loss of one pass."""
        return super()._compute_loss(model, batch)

    def _generate_and_score_completions(self, inputs: Batch) -> Batch:
        return self.prepare_batch(super()._generate_and_score_completions(inputs))

    def _get_per_token_logps_and_entropies(  # noqa: PLR0917 - TRL's own signature
        self,
        model: Model,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **options: object,
    ) -> TokenScores:
        return self.token_logprobs(
            model,
            input_ids,
            attention_mask,
            logits_to_keep,
            batch_size,
            compute_entropy=compute_entropy,
            **options,
        )

    def _compute_loss(self, model: Model, inputs: Batch) -> torch.Tensor:
        return self.batch_loss(model, inputs)


def fused_log_probs(
    model: Model, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (log probabilities, entropies) of `labels`, by the output head that TRL puts on a model.

    `labels` stand at the token that predicts them; -100 asks for nothing. TRL's GRPO trainer adds the head.
    """
    output = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, shift_labels=labels, fused_lm_head=True
    )
    return output.log_probs, output.entropy


def score_completions_only() -> AbstractContextManager[object]:
    """Return a context in which TRL scores completion tokens alone, also on devices without Triton.

    There it scores prompts and padding too, for devices that need tensors of one shape; CPUs don't. With a
    vocabulary of 49,152 and short replies that is a third of a step of RL and half a step of fine-tuning.
    """
    return patch.object(trl.trainer.utils, "_use_triton", lambda device: True)


def silence_experimental_warning() -> None:
    """Turn off TRL's warning that `rollout_func` may change: the version of TRL is pinned."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
