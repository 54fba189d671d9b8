"""Whether a server gives tokens the probabilities that the trainer's weights give them.

Training and serving run different code, and no loss curve shows a sync of weights that silently changed
nothing, or the wrong thing. So the server samples a few tokens with their log probabilities, the trainer's
own weights score the very same tokens, and `compare_logprobs` compares the two. Every step of RL with a
server does so, and `thinkgate canary` does it for any server.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from training.trainer.untyped import Model

__all__ = [
    "ROLLOUT_TOLERANCE",
    "SERVED_TOLERANCE",
    "StaleWeights",
    "WeightCheck",
    "compare_logprobs",
    "token_logprobs",
]

SERVED_TOLERANCE = 0.1
"""Nats by which a served model may differ in the mean; four-bit serving stays well below."""
ROLLOUT_TOLERANCE = 0.2
"""Nats by which a rollout server of another precision may differ, over the tokens of one completion."""


class StaleWeights(Exception):
    """The server that samples does not have the trainer's weights."""


@dataclass(frozen=True, slots=True)
class WeightCheck:
    """How far two log probabilities of the same tokens are apart, in nats: in the mean and at worst.

    `verdict` is "agrees", "stale" (the server is nearer to the weights that it had before) or "differs".
    """

    verdict: Literal["agrees", "stale", "differs"]
    mean: float
    worst: float
    tokens: int


def compare_logprobs(
    trainer: Sequence[float],
    server: Sequence[float],
    previous: Sequence[float] | None = None,
    *,
    tolerance: float,
) -> WeightCheck:
    """Compare log probabilities of the same tokens; all in nats, one for each token.

    `previous` are the trainer's own with the weights that a server still has if the new ones never arrived.
    These are the weights of the last sync, or an adapter's base model, because LoRA adapters were once lost
    on their way to the rollouts. They tell such a server from mere differences of kernels. If training
    changed less than these do, nothing can be told, and that counts as agreeing.

    No tokens, and values that are no numbers, never agree. Raises ValueError if the lengths differ.
    """
    distances = [abs(ours - theirs) for ours, theirs in zip(trainer, server, strict=True)]
    if not distances or not all(map(math.isfinite, distances)):
        return WeightCheck("differs", math.inf, math.inf, len(distances))
    mean = fmean(distances)
    verdict: Literal["agrees", "stale", "differs"] = "agrees" if mean <= tolerance else "differs"
    if previous is not None:
        to_previous = fmean(abs(old - theirs) for old, theirs in zip(previous, server, strict=True))
        moved = fmean(abs(ours - old) for ours, old in zip(trainer, previous, strict=True))
        if to_previous < mean and moved > 2 * to_previous:
            verdict = "stale"
    return WeightCheck(verdict, mean, max(distances), len(distances))


def token_logprobs(
    model: Model, prompt: Sequence[int], ids: Sequence[int], temperature: float = 1.0
) -> list[float]:
    """Return a Hugging Face causal model's log probabilities of `ids` after `prompt`, in one forward pass.

    With a temperature they are those of sampling at it, as TRL makes vLLM return them.
    """
    import torch

    sequence = torch.tensor([[*prompt, *ids]], device=model.device)
    with torch.inference_mode():
        logits = model(sequence).logits[0, len(prompt) - 1 : -1].float() / temperature
    logprobs = torch.log_softmax(logits, dim=-1).gather(1, sequence[0, len(prompt) :, None])
    return [float(value) for value in logprobs[:, 0]]
