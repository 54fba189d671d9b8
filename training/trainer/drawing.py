"""Replies drawn from a model in this process, in batches of prompts of like length."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from training.prompting import Prompt, Prompter
from training.types import Completion

__all__ = ["draw"]


def draw(
    model: Any,
    prompter: Prompter,
    prompts: Sequence[Prompt],
    *,
    samples: int = 1,
    temperature: float = 1.0,
    max_tokens: int = 256,
    batch: int = 128,
    seed: int | None = None,
) -> list[list[Completion]]:
    """`samples` replies to each prompt, from the untruncated distribution; temperature 0 is greedy.

    With a seed the same call draws the same replies, and the random state is left as it was.
    """
    if temperature == 0:
        samples = 1
    asked = [place for place in range(len(prompts)) for _ in range(samples)]
    order = sorted(asked, key=lambda place: len(prompts[place].ids))
    drawn: list[list[Completion]] = [[] for _ in prompts]
    training = model.training
    model.eval()
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices, enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            ids = generate(model, [prompts[p].ids for p in part], temperature, max_tokens, prompter.all_ends)
            for place, reply in zip(part, ids, strict=True):
                drawn[place].append(prompter.completion(prompts[place], reply))
    model.train(training)
    return drawn


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    temperature: float,
    max_tokens: int,
    ends: Collection[int],
) -> list[list[int]]:
    """The ids that follow each prompt, up to the first of `ends`, which is included.

    What the model's own generation settings say of sampling (penalties, cuts) is set aside.
    """
    pad = model.generation_config.pad_token_id
    pad = min(ends) if pad is None else pad
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    sampling = {"temperature": temperature, "top_p": 1.0, "top_k": 0, "min_p": None} if temperature else {}
    with torch.no_grad():
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=temperature > 0,
            max_new_tokens=max_tokens,
            pad_token_id=pad,
            eos_token_id=sorted(ends),
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            **sampling,
        )
    return [_ended(reply, ends) for reply in out[:, width:].tolist()]


def _ended(reply: list[int], ends: Collection[int]) -> list[int]:
    last = next((place for place, token in enumerate(reply) if token in ends), len(reply))
    return reply[: last + 1]
