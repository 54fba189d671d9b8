"""Replies to one prompt in one sequence, so that training passes the prompt once for all of them.

A group's replies follow their prompt one after the other, each from the position where the prompt
ends; a mask lets a reply see the prompt and itself alone. Log probabilities and gradients are those of the
rows by themselves (shared-prefix training: Prefix Grouper, arXiv:2506.05433).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from training.trainer.models import inner_model

__all__ = [
    "PackedBatch",
    "attention_bias",
    "pack_groups",
    "pack_shared_prompts",
    "packing_is_cheaper",
    "supports_packing",
]


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """G sequences of L tokens for R rows of prompt and reply.

    `ids`, `positions` and `labels` are [G, L]; `labels` holds the token that follows within the same reply,
    -100 where none is asked for. `mask` is [G, 1, L, L], True where a token sees another. `places` [R, C]
    says where in the flattened [G * L] each of a reply's C tokens is predicted, -1 for padding.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    mask: torch.Tensor
    places: torch.Tensor

    def unpacked(self, values: torch.Tensor) -> torch.Tensor:
        """Values [G, L] by row and token [R, C], 0 where a row has no token."""
        return torch.where(self.places >= 0, values.reshape(-1)[self.places.clamp(min=0)], 0.0)


def pack_shared_prompts(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, replies: int
) -> PackedBatch | None:
    """Rows [R, W] packed: a prompt, padded on the left, and a reply in the last `replies` columns.

    None where that can't be, or would cost more: see `supports_packing` and `packing_is_cheaper`.
    """
    columns = ids.shape[1] - replies
    prompts = [
        tuple(row[seen].tolist())
        for row, seen in zip(ids[:, :columns], mask[:, :columns].bool(), strict=True)
    ]
    answers = [
        row[seen].tolist() for row, seen in zip(ids[:, columns:], mask[:, columns:].bool(), strict=True)
    ]
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(row)
    lengths = [[len(answers[row]) for row in each] for each in groups.values()]
    if len(groups) == len(ids) or () in groups or not supports_packing(model):
        return None
    if not packing_is_cheaper([len(prompt) for prompt in groups], lengths, *_costs(model)):
        return None
    return pack_groups(groups, answers, replies, ids.device)


def pack_groups(
    groups: Mapping[tuple[int, ...], Sequence[int]],
    answers: Sequence[Sequence[int]],
    replies: int,
    device: torch.device,
) -> PackedBatch:
    """The rows of each prompt as one sequence; `answers` are the rows' replies, of at most `replies` tokens.

    A prompt's last token stands before each reply anew, for it is where the first token is predicted.
    """
    lengths = [len(prompt) - 1 + sum(len(answers[row]) for row in rows) for prompt, rows in groups.items()]
    length = max(1, *lengths)
    ids = torch.zeros(len(groups), length, dtype=torch.long)
    positions, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    owner = torch.full_like(ids, -1)  # 0: the prompt; above: a reply's number; -1: nobody's
    places = torch.full((len(answers), replies), -1)
    for place, (prompt, rows) in enumerate(groups.items()):
        start = shared = len(prompt) - 1
        ids[place, :start] = torch.tensor(prompt[:-1], dtype=torch.long)
        positions[place, :start] = torch.arange(start)
        owner[place, :start] = 0
        for number, row in enumerate(rows, 1):
            size = len(answers[row])
            part = slice(start, start + size)
            ids[place, part] = torch.tensor([prompt[-1], *answers[row]][:size], dtype=torch.long)
            labels[place, part] = torch.tensor(answers[row], dtype=torch.long)
            positions[place, part] = torch.arange(shared, shared + size)
            owner[place, part] = number
            places[row, :size] = torch.arange(start, start + size) + place * length
            start += size
    theirs = owner[:, None, :]
    seen = ((theirs == 0) | (theirs == owner[:, :, None])) & torch.ones(
        length, length, dtype=torch.bool
    ).tril()
    return PackedBatch(*(each.to(device) for each in (ids, positions, labels, seen[:, None], places)))


def supports_packing(model: Any) -> bool:
    """Whether the model takes a mask and positions of its own.

    Its layers must see all that is before, by torch's attention, and tell places by rotary positions, not
    by columns (ALiBi).
    """
    inner = inner_model(model)
    config = inner.config
    whole = all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)
    placed = "position_ids" in signature(inner.base_model.forward).parameters
    alibi = getattr(config, "alibi", False)
    return config._attn_implementation in ("eager", "sdpa") and whole and placed and not alibi


def packing_is_cheaper(
    prompts: Sequence[int], replies: Sequence[Sequence[int]], weights: int, attention: int
) -> bool:
    """Whether groups cost less packed than row by row, from the lengths of each one's prompt and replies.

    A token costs a multiplication by each of the layers' `weights`, and `attention` (twice the layers' number
    times their width) for every token of its sequence: a mask saves none. All are as long as the longest.
    Nor may attention take more than twice the memory, which grows with the square of the length.
    """

    def cost(count: int, length: int) -> int:
        return count * length * (weights + attention * length)

    both = list(zip(prompts, replies, strict=True))
    rows, width = sum(map(len, replies)), max(prompts) + max(map(max, replies))
    groups, length = len(both), max(prompt + sum(each) for prompt, each in both)
    roomy = groups * length**2 <= 2 * rows * width**2
    return roomy and cost(groups, length) < cost(rows, width)


def attention_bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask as numbers to add to attention's logits, which every implementation takes."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def _costs(model: Any) -> tuple[int, int]:
    """The layers' weights, and what a token's attention to another costs, see `packing_is_cheaper`."""
    inner = inner_model(model)
    weights = sum(weight.numel() for name, weight in inner.named_parameters() if ".layers." in name)
    return weights, 2 * inner.config.num_hidden_layers * inner.config.hidden_size
