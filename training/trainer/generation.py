"""Sampling of completions in the training processes, in batches of prompts of similar length.

With seeds a completion depends on its own seed and on nothing else that is sampled: not on what shares its
batch, what came before, or which of several processes samples it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList

from training.data.prompts import Prompt, Prompter
from training.trainer.distributed import process_group
from training.trainer.models import inner_model
from training.trainer.process_group import map_over_processes
from training.trainer.transformers_compat import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    fused_attention,
    has_only_layers,
)
from training.trainer.untyped import Model
from training.types import Completion

__all__ = ["generate_ids", "sample_completions"]

_CHUNK_TOKENS = 8
"""Tokens generated before completions that have ended leave the batch."""


def sample_completions(
    model: Model,
    prompter: Prompter,
    prompts: Sequence[Prompt],
    *,
    samples: int = 1,
    temperature: float = 1.0,
    max_tokens: int = 256,
    batch: int = 128,
    seed: int | None = None,
) -> list[list[Completion]]:
    """Return `samples` completions of each prompt, from the whole distribution; temperature 0 is greedy.

    Several processes divide the prompts among them, and all must call this. With a seed the same call
    samples the same completions, by however many processes, and leaves the random state as it was.
    """
    if temperature == 0:
        samples = 1

    def sample_part(first: int, part: Sequence[Prompt]) -> list[list[Completion]]:
        return _sample_part(
            model, prompter, part, first,
            samples=samples, temperature=temperature, max_tokens=max_tokens, batch=batch, seed=seed,
        )  # fmt: skip

    was_training = model.training
    model.eval()
    completions = map_over_processes(process_group(), prompts, sample_part)
    model.train(was_training)
    return completions


def _sample_part(
    model: Model,
    prompter: Prompter,
    prompts: Sequence[Prompt],
    first: int,
    *,
    samples: int,
    temperature: float,
    max_tokens: int,
    batch: int,
    seed: int | None,
) -> list[list[Completion]]:
    """Sample this process's part of the prompts; `first` is the index of its first prompt among all."""
    pairs = [(index, sample) for index in range(len(prompts)) for sample in range(samples)]
    by_length = sorted(pairs, key=lambda pair: len(prompts[pair[0]].ids))
    completions: list[list[Completion]] = [[] for _ in prompts]
    for start in range(0, len(by_length), batch):
        part = by_length[start : start + batch]
        seeds = None if seed is None else [f"{seed} {first + index} {sample}" for index, sample in part]
        ids = generate_ids(
            model,
            [prompts[index].ids for index, _ in part],
            temperature,
            max_tokens,
            prompter.stop_ids,
            seeds=seeds,
        )
        for (index, _), completion_ids in zip(part, ids, strict=True):
            completions[index].append(prompter.completion(prompts[index], completion_ids))
    return completions


def generate_ids(
    model: Model,
    prompts: Sequence[Sequence[int]],
    temperature: float,
    max_tokens: int,
    stop_ids: Collection[int],
    *,
    seeds: Sequence[str] | None = None,
) -> list[list[int]]:
    """Return the ids that follow each prompt, up to and including the first of `stop_ids`.

    The model's own generation settings for sampling (penalties, cuts) don't apply. `seeds` gives each
    prompt's completion random numbers of its own; without them all use the process's.
    """
    batch = _Batch.of(model, prompts, stop_ids)
    droppable = _can_drop_sequences(model)
    numbers = None
    if temperature and seeds is not None:
        numbers = _random_numbers(seeds, max_tokens).to(model.device)
    settings = _settings(model, batch.pad, stop_ids, temperature if numbers is None else 0)
    completions: dict[int, list[int]] = {}
    with torch.no_grad(), fused_attention(inner_model(model)):
        cache = _prefill_shared_prompts(model, prompts, batch.ids, batch.mask) if droppable else None
        while len(batch.prompt_indices):
            if numbers is not None:
                sampling = _SeededSampling(numbers[batch.prompt_indices], batch.width, temperature)
                settings["logits_processor"] = LogitsProcessorList([sampling])
            tokens_left = batch.width + max_tokens - batch.ids.shape[1]
            output = model.generate(
                input_ids=batch.ids,
                attention_mask=batch.mask,
                cache=cache,
                max_new_tokens=min(_CHUNK_TOKENS, tokens_left) if droppable else tokens_left,
                **settings,
            )
            generated = [_cut_at_end(ids, stop_ids) for ids in output.sequences[:, batch.width :].tolist()]
            ended = [not droppable or len(ids) == max_tokens or ids[-1] in stop_ids for ids in generated]
            for index, ids, end in zip(batch.prompt_indices.tolist(), generated, ended, strict=True):
                if end:
                    completions[index] = ids
            running = torch.tensor([index for index, end in enumerate(ended) if not end], dtype=torch.long)
            running = running.to(model.device)
            batch, cache = batch.continue_with(output.sequences, running), output.cache
            if 0 < len(running) < len(ended):
                cache.batch_select_indices(running)
    return [completions[index] for index in range(len(prompts))]


@dataclass(frozen=True, slots=True)
class _Batch:
    """The sequences still being generated: their prompts' indices, and their tokens so far.

    They are padded on the left; the completions begin at column `width`.
    """

    prompt_indices: torch.Tensor
    ids: torch.Tensor
    mask: torch.Tensor
    width: int
    pad: int

    @classmethod
    def of(cls, model: Model, prompts: Sequence[Sequence[int]], stop_ids: Collection[int]) -> _Batch:
        """Return the batch of all prompts, before the first token."""
        pad = model.generation_config.pad_token_id
        pad = min(stop_ids) if pad is None else pad
        width = max(map(len, prompts))
        ids = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        indices = torch.arange(len(prompts))
        device = model.device
        return cls(
            indices.to(device),
            torch.tensor(ids, device=device),
            torch.tensor(mask, device=device),
            width,
            pad,
        )

    def continue_with(self, sequences: torch.Tensor, running: torch.Tensor) -> _Batch:
        """Return the batch with the tokens of `sequences`, reduced to the `running` ones."""
        new_tokens = sequences.shape[1] - self.mask.shape[1]
        mask = torch.nn.functional.pad(self.mask[running], (0, new_tokens), value=1)
        return replace(self, prompt_indices=self.prompt_indices[running], ids=sequences[running], mask=mask)


def _settings(model: Model, pad: int, stop_ids: Collection[int], temperature: float) -> dict[str, Any]:
    """Return how to generate. Above temperature 0 transformers samples, by the process's random numbers."""
    sampling = {"temperature": temperature, "top_p": 1.0, "top_k": 0, "min_p": None} if temperature else {}
    return {
        "do_sample": temperature > 0,
        "pad_token_id": pad,
        "eos_token_id": sorted(stop_ids),
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "synced_gpus": _is_sharded(model),
        "return_dict_in_generate": True,
        **sampling,
    }


def _prefill_shared_prompts(
    model: Model, prompts: Sequence[Sequence[int]], ids: torch.Tensor, mask: torch.Tensor
) -> DynamicCache | None:
    """Return the cache of all but the prompts' last tokens, computed once for each different prompt.

    The samples of a group share their prompt, whose pass costs a third of a short completion's. None if all
    prompts differ.
    """
    first_indices = {tuple(prompt): index for index, prompt in reversed(list(enumerate(prompts)))}
    if len(first_indices) == len(prompts) or ids.shape[1] < 2:
        return None
    inner = inner_model(model)  # what `generate` passes; the trainer's mixed precision is around the adapter
    cache = DynamicCache(config=inner.config)
    rows_with_cache = sorted(first_indices.values())
    cache_rows = {index: row for row, index in enumerate(rows_with_cache)}
    prompt_mask = mask[rows_with_cache, :-1]
    inner(
        input_ids=ids[rows_with_cache, :-1],
        attention_mask=prompt_mask,
        position_ids=(prompt_mask.cumsum(-1) - 1).clamp(min=0),
        cache=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    rows = [cache_rows[first_indices[tuple(prompt)]] for prompt in prompts]
    cache.batch_select_indices(torch.tensor(rows, device=ids.device))
    return cache


def _can_drop_sequences(model: Model) -> bool:
    """Return whether sequences can be copied and dropped during generation.

    That needs a cache of keys and values alone, and no other process that has to take every step together
    with this one.
    """
    inner = inner_model(model)
    settings = inner.generation_config
    own_cache = settings.cache_implementation is not None or settings.use_cache is False
    plain = has_only_layers(inner, (DynamicLayer, DynamicSlidingWindowLayer))
    return plain and not own_cache and not _is_sharded(model)


def _cut_at_end(ids: list[int], stop_ids: Collection[int]) -> list[int]:
    last = next((index for index, token in enumerate(ids) if token in stop_ids), len(ids))
    return ids[: last + 1]


class _SeededSampling(LogitsProcessor):
    """Leaves one token a sequence: the one in whose part of the distribution the step's number falls.

    `numbers` are uniform in [0, 1), one for each sequence and step. The sums are taken in float64, because
    in float32 those of a large vocabulary would round away its tail.
    """

    def __init__(self, numbers: torch.Tensor, width: int, temperature: float) -> None:
        self._numbers = numbers
        self._width = width
        self._temperature = temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores with all but the sampled token at minus infinity."""
        sums = torch.softmax(scores.double() / self._temperature, dim=-1).cumsum(dim=-1)
        number = self._numbers[:, input_ids.shape[1] - self._width, None]
        token = (sums <= number * sums[:, -1:]).sum(dim=-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter(1, token.clamp(max=scores.shape[1] - 1), 0.0)


def _random_numbers(seeds: Sequence[str], count: int) -> torch.Tensor:
    """Return `count` uniform numbers for each seed."""
    rows = []
    for seed in seeds:
        digest = hashlib.sha256(seed.encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        rows.append(torch.rand(count, generator=generator, dtype=torch.float64))
    return torch.stack(rows)


def _is_sharded(model: Model) -> bool:
    """Return whether the weights are sharded over processes, which then must take every step together."""
    return any(isinstance(weight, DTensor) for weight in model.parameters())
