"""Replies drawn from a model in the trainer's own processes, in batches of prompts of like length.

With seeds a reply depends on its own seed and on nothing else that is drawn: not on what is drawn
beside it, before it, or in which of several processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from training.data.prompts import Prompt, Prompter
from training.trainer.distributed import process_group
from training.trainer.models import inner_model
from training.trainer.process_group import map_over_processes
from training.types import Completion

__all__ = ["generate_ids", "sample_completions"]

_CHUNK_TOKENS = 8
"""Tokens written between looks at which replies have ended; those take no further part."""


def sample_completions(
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

    Several processes share the prompts among them, and all must call this. With a seed the same
    call draws the same replies, by however many processes, and the random state is left as it was.
    """
    if temperature == 0:
        samples = 1

    def part(first: int, prompts: Sequence[Prompt]) -> list[list[Completion]]:
        return _sample_share(
            model, prompter, prompts, first,
            samples=samples, temperature=temperature, max_tokens=max_tokens, batch=batch, seed=seed,
        )  # fmt: skip

    training = model.training
    model.eval()
    drawn = map_over_processes(process_group(), prompts, part)
    model.train(training)
    return drawn


def _sample_share(
    model: Any,
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
    """This process's part, of which `first` is the first prompt's place among all."""
    asked = [(place, sample) for place in range(len(prompts)) for sample in range(samples)]
    order = sorted(asked, key=lambda each: len(prompts[each[0]].ids))
    drawn: list[list[Completion]] = [[] for _ in prompts]
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        seeds = None if seed is None else [f"{seed} {first + place} {sample}" for place, sample in part]
        ids = generate_ids(
            model, [prompts[p].ids for p, _ in part], temperature, max_tokens, prompter.all_ends, seeds=seeds
        )
        for (place, _), reply in zip(part, ids, strict=True):
            drawn[place].append(prompter.completion(prompts[place], reply))
    return drawn


def generate_ids(
    model: Any,
    prompts: Sequence[Sequence[int]],
    temperature: float,
    max_tokens: int,
    ends: Collection[int],
    *,
    seeds: Sequence[str] | None = None,
) -> list[list[int]]:
    """The ids that follow each prompt, up to the first of `ends`, which is included.

    What the model's own generation settings say of sampling (penalties, cuts) is set aside. `seeds`
    gives each prompt's reply random numbers of its own; without, all use the process's.
    """
    asked = _Batch.of(model, prompts, ends)
    apart = _can_drop_sequences(model)
    numbers = _numbers(seeds, max_tokens).to(model.device) if temperature and seeds is not None else None
    settings = _settings(model, asked.pad, ends, temperature if numbers is None else 0)
    replies: dict[int, list[int]] = {}
    with torch.no_grad(), _fused_attention(model):
        cache = _prefill_shared_prompts(model, prompts, asked.ids, asked.mask) if apart else None
        while len(asked.rows):
            if numbers is not None:
                chosen = _SeededSampling(numbers[asked.rows], asked.width, temperature)
                settings["logits_processor"] = LogitsProcessorList([chosen])
            left = asked.width + max_tokens - asked.ids.shape[1]
            out = model.generate(
                input_ids=asked.ids,
                attention_mask=asked.mask,
                cache=cache,
                max_new_tokens=min(_CHUNK_TOKENS, left) if apart else left,
                **settings,
            )
            written = [_ended(reply, ends) for reply in out.sequences[:, asked.width :].tolist()]
            over = [not apart or len(reply) == max_tokens or reply[-1] in ends for reply in written]
            done = zip(asked.rows.tolist(), written, over, strict=True)
            replies |= {row: reply for row, reply, end in done if end}
            kept = torch.tensor([place for place, end in enumerate(over) if not end], dtype=torch.long)
            asked, cache = asked.going_on(out.sequences, kept.to(model.device)), out.cache
            if 0 < len(kept) < len(over):
                cache.batch_select_indices(kept.to(model.device))
    return [replies[row] for row in range(len(prompts))]


@dataclass(frozen=True, slots=True)
class _Batch:
    """What is still being written: which of the prompts (`rows`), and their tokens so far.

    They are padded on the left; `width` is where the replies begin.
    """

    rows: torch.Tensor
    ids: torch.Tensor
    mask: torch.Tensor
    width: int
    pad: int

    @classmethod
    def of(cls, model: Any, prompts: Sequence[Sequence[int]], ends: Collection[int]) -> _Batch:
        """All prompts, nothing written yet."""
        pad = model.generation_config.pad_token_id
        pad = min(ends) if pad is None else pad
        width = max(map(len, prompts))
        ids = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        rows = torch.arange(len(prompts))
        place = model.device
        return cls(
            rows.to(place), torch.tensor(ids, device=place), torch.tensor(mask, device=place), width, pad
        )

    def going_on(self, written: torch.Tensor, kept: torch.Tensor) -> _Batch:
        """With what was `written`, for the rows `kept`: the places of those that have not ended."""
        more = written.shape[1] - self.mask.shape[1]
        mask = torch.nn.functional.pad(self.mask[kept], (0, more), value=1)
        return replace(self, rows=self.rows[kept], ids=written[kept], mask=mask)


def _settings(model: Any, pad: int, ends: Collection[int], temperature: float) -> dict[str, Any]:
    """How to generate; a temperature above 0 has transformers choose, by the process's random numbers."""
    sampling = {"temperature": temperature, "top_p": 1.0, "top_k": 0, "min_p": None} if temperature else {}
    return {
        "do_sample": temperature > 0,
        "pad_token_id": pad,
        "eos_token_id": sorted(ends),
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "synced_gpus": _spread(model),
        "return_dict_in_generate": True,
        **sampling,
    }


def _prefill_shared_prompts(model: Any, prompts: Sequence[Sequence[int]], ids: Any, mask: Any) -> Any:
    """The cache of all but the prompts' last tokens, each prompt passed once; None where it can't be had.

    The samples of a group share their prompt, whose pass costs a third of a short reply's. None where all
    prompts differ.
    """
    different = {tuple(prompt): place for place, prompt in reversed(list(enumerate(prompts)))}
    if len(different) == len(prompts) or ids.shape[1] < 2:
        return None
    inner = inner_model(
        model
    )  # what `generate_ids` passes; the trainer's mixed precision is around the adapter
    cache = DynamicCache(config=inner.config)
    rows = sorted(different.values())
    places = {place: row for row, place in enumerate(rows)}
    seen = mask[rows, :-1]
    inner(
        input_ids=ids[rows, :-1],
        attention_mask=seen,
        position_ids=(seen.cumsum(-1) - 1).clamp(min=0),
        cache=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    chosen = [places[different[tuple(prompt)]] for prompt in prompts]
    cache.batch_select_indices(torch.tensor(chosen, device=ids.device))
    return cache


def _can_drop_sequences(model: Any) -> bool:
    """Whether rows can be copied and dropped while replies are written.

    They can where the cache is one of keys and values alone, and where no other process has to take every
    step together with this one.
    """
    inner = inner_model(model)
    settings = inner.generation_config
    plain = all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer)
        for layer in DynamicCache(config=inner.config).layers
    )
    own = settings.cache_implementation is not None or settings.use_cache is False
    return plain and not own and not _spread(model)


@contextmanager
def _fused_attention(model: Any) -> Iterator[None]:
    """Torch's own attention, where the trainer's passes use the eager one, which copies keys by head."""
    inner = inner_model(model)
    before = inner.config._attn_implementation
    if before != "eager" or not inner._supports_sdpa:
        yield
        return
    inner.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        inner.set_attn_implementation(before)


def _ended(reply: list[int], ends: Collection[int]) -> list[int]:
    last = next((place for place, token in enumerate(reply) if token in ends), len(reply))
    return reply[: last + 1]


class _SeededSampling(LogitsProcessor):
    """Leaves one token a sequence: the one in whose part of the distribution the step's number falls.

    `numbers` are uniform in [0, 1), one for each sequence and step. The sums are taken in float64,
    for in float32 those of a large vocabulary would round away its tail.
    """

    def __init__(self, numbers: torch.Tensor, width: int, temperature: float) -> None:
        self._numbers = numbers
        self._width = width
        self._temperature = temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores with all but the chosen token at minus infinity."""
        sums = torch.softmax(scores.double() / self._temperature, dim=-1).cumsum(dim=-1)
        number = self._numbers[:, input_ids.shape[1] - self._width, None]
        token = (sums <= number * sums[:, -1:]).sum(dim=-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter(1, token.clamp(max=scores.shape[1] - 1), 0.0)


def _numbers(seeds: Sequence[str], count: int) -> torch.Tensor:
    """`count` uniform numbers for each seed."""
    rows = []
    for seed in seeds:
        digest = hashlib.sha256(seed.encode()).digest()
        chance = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        rows.append(torch.rand(count, generator=chance, dtype=torch.float64))
    return torch.stack(rows)


def _spread(model: Any) -> bool:
    """Whether the weights are spread over processes, which then must take every step together."""
    return any(isinstance(weight, DTensor) for weight in model.parameters())
