"""Packs completions of one prompt into one sequence, so that training passes the prompt once for all of them.

A group's completions follow their prompt one after the other, each at the position where the prompt ends. A
mask lets a completion see the prompt and itself alone. Log probabilities and gradients are those of the
unpacked sequences (shared-prefix training: Prefix Grouper, arXiv:2506.05433).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature

import torch

from training.trainer.models import inner_model
from training.trainer.transformers_compat import DynamicLayer, attention_implementation, has_only_layers
from training.trainer.untyped import Model

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
    """G packed sequences of L tokens, for S sequences of a prompt and a completion.

    `ids`, `positions` and `labels` are [G, L]. `labels` holds the token that follows within the same
    completion, -100 where none is scored. `mask` is [G, 1, L, L], True where a token sees another.
    `token_indices` [S, C] gives the position in the flattened [G * L] that predicts a token; -1 is padding.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    mask: torch.Tensor
    token_indices: torch.Tensor

    def unpack(self, values: torch.Tensor) -> torch.Tensor:
        """Return values [G, L] by sequence and token [S, C], 0 where a sequence has no token."""
        return torch.where(self.token_indices >= 0, values.reshape(-1)[self.token_indices.clamp(min=0)], 0.0)


def pack_shared_prompts(
    model: Model, ids: torch.Tensor, mask: torch.Tensor, completion_length: int
) -> PackedBatch | None:
    """Pack sequences [S, W]: a prompt, padded on the left, and the last `completion_length` columns.

    None if the model doesn't support it or it would cost more: see `supports_packing` and
    `packing_is_cheaper`.
    """
    columns = ids.shape[1] - completion_length
    prompts = [
        tuple(sequence[visible].tolist())
        for sequence, visible in zip(ids[:, :columns], mask[:, :columns].bool(), strict=True)
    ]
    completions = [
        sequence[visible].tolist()
        for sequence, visible in zip(ids[:, columns:], mask[:, columns:].bool(), strict=True)
    ]
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(index)
    lengths = [[len(completions[index]) for index in indices] for indices in groups.values()]
    if len(groups) == len(ids) or () in groups or not supports_packing(model):
        return None
    if not packing_is_cheaper([len(prompt) for prompt in groups], lengths, *_costs(model)):
        return None
    return pack_groups(groups, completions, completion_length, ids.device)


def pack_groups(
    groups: Mapping[tuple[int, ...], Sequence[int]],
    completions: Sequence[Sequence[int]],
    completion_length: int,
    device: torch.device,
) -> PackedBatch:
    """Pack each prompt's completions, which `groups` names by index, into one sequence.

    No completion is longer than `completion_length`. A prompt's last token is repeated before each
    completion, because there its first token is predicted.
    """
    lengths = [
        len(prompt) - 1 + sum(len(completions[index]) for index in indices)
        for prompt, indices in groups.items()
    ]
    length = max(1, *lengths)
    ids = torch.zeros(len(groups), length, dtype=torch.long)
    positions, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    owner = torch.full_like(ids, -1)  # 0: the prompt; above: a completion's number; -1: padding
    token_indices = torch.full((len(completions), completion_length), -1)
    for row, (prompt, indices) in enumerate(groups.items()):
        start = prompt_end = len(prompt) - 1
        ids[row, :start] = torch.tensor(prompt[:-1], dtype=torch.long)
        positions[row, :start] = torch.arange(start)
        owner[row, :start] = 0
        for number, index in enumerate(indices, 1):
            size = len(completions[index])
            part = slice(start, start + size)
            ids[row, part] = torch.tensor([prompt[-1], *completions[index]][:size], dtype=torch.long)
            labels[row, part] = torch.tensor(completions[index], dtype=torch.long)
            positions[row, part] = torch.arange(prompt_end, prompt_end + size)
            owner[row, part] = number
            token_indices[index, :size] = torch.arange(start, start + size) + row * length
            start += size
    key_owner = owner[:, None, :]
    visible = (key_owner == 0) | (key_owner == owner[:, :, None])
    visible &= torch.ones(length, length, dtype=torch.bool).tril()
    return PackedBatch(
        *(tensor.to(device) for tensor in (ids, positions, labels, visible[:, None], token_indices))
    )


def supports_packing(model: Model) -> bool:
    """Return whether the model accepts a mask and positions of our own.

    Its layers must see everything before a token, by torch's attention, and tell positions by rotary
    embeddings, not by columns (ALiBi).
    """
    inner = inner_model(model)
    alibi = getattr(inner.config, "alibi", False)
    positions = "position_ids" in signature(inner.base_model.forward).parameters
    full_attention = attention_implementation(inner) in ("eager", "sdpa")
    return full_attention and has_only_layers(inner, (DynamicLayer,)) and positions and not alibi


def packing_is_cheaper(
    prompts: Sequence[int], completions: Sequence[Sequence[int]], weights: int, attention: int
) -> bool:
    """Return whether groups cost less packed, from the lengths of each one's prompt and completions.

    A token costs a multiplication by each of the layers' `weights`, and `attention` (twice the layers'
    number times their width) for every token of its sequence: a mask saves none. All sequences are as long
    as the longest. Nor may attention take more than twice the memory, which grows with the square of the
    length.
    """

    def cost(count: int, length: int) -> int:
        return count * length * (weights + attention * length)

    groups = list(zip(prompts, completions, strict=True))
    count, width = sum(map(len, completions)), max(prompts) + max(map(max, completions))
    length = max(prompt + sum(lengths) for prompt, lengths in groups)
    enough_memory = len(groups) * length**2 <= 2 * count * width**2
    return enough_memory and cost(len(groups), length) < cost(count, width)


def attention_bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a mask as numbers to add to attention's logits, a form that every implementation accepts."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def _costs(model: Model) -> tuple[int, int]:
    """Return the layers' weights, and the cost of a token's attention to another (`packing_is_cheaper`)."""
    inner = inner_model(model)
    weights = sum(weight.numel() for name, weight in inner.named_parameters() if ".layers." in name)
    return weights, 2 * inner.config.num_hidden_layers * inner.config.hidden_size
