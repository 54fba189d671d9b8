"""The canary: does the server give its tokens the probabilities that the trainer's weights give them?

`thinkgate canary --url http://127.0.0.1:8000/v1 --model NAME --base MODEL [--adapter DIR]`.

Training and serving run different code, and a sync of weights that silently changed nothing
(or the wrong thing) shows in no loss curve. So the server samples a few tokens with their
log probabilities, the trainer's own weights give the very same tokens theirs, and the two are
compared. Serving in other precisions makes small differences; other weights make large ones.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.evaluation.client import Client, RequestFailed, open_client

__all__ = [
    "TOLERANCE",
    "Agreement",
    "Drawn",
    "agreement",
    "draw",
    "drawn_from",
    "load",
    "main",
    "token_logprobs",
]

TOLERANCE = 0.1
"""The most that log probabilities may differ in the mean, in nats: four-bit serving stays well below it."""
_PROMPTS = (
    "The capital of France is Paris, and the capital of Italy is",
    "Question: What is 12 + 7?\nAnswer: Let me think.",
    "def add(a, b):\n    return",
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a server has generated: token ids, and the log probability it gave each of them."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two log probabilities of the same tokens are apart, in nats: in the mean and at worst."""

    tokens: int
    mean: float
    worst: float

    def holds(self, tolerance: float = TOLERANCE) -> bool:
        """Whether both sides have the same weights, as far as this can tell."""
        return self.tokens > 0 and self.mean <= tolerance


def agreement(ours: Sequence[float], theirs: Sequence[float]) -> Agreement:
    """Compares the log probabilities token by token. Raises ValueError where there aren't as many."""
    apart = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    if not all(map(math.isfinite, apart)):
        return Agreement(len(apart), math.inf, math.inf)
    return Agreement(len(apart), math.fsum(apart) / len(apart) if apart else 0.0, max(apart, default=0.0))


async def draw(client: Client, model: str, prompt: Sequence[int], tokens: int = 32, seed: int = 1) -> Drawn:
    """Has a server (vLLM, llama.cpp, the gateway before them) go on from token ids, at temperature 1.

    Drawn at temperature 1, because greedy tokens alone say little about the other ones. Raises RequestFailed.
    """
    body = {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": tokens,
        "temperature": 1.0,
        "top_p": 1.0,
        "seed": seed,
        "logprobs": 1,
        "return_token_ids": True,
    }
    return drawn_from(await client.post("/completions", body))


def drawn_from(reply: Mapping[str, Any]) -> Drawn:
    """Tokens and log probabilities of a completion of vLLM or llama.cpp. Raises RequestFailed."""
    try:
        choice = reply["choices"][0]
        logprobs = choice["logprobs"]
        if "content" in logprobs:  # llama.cpp: one object a token
            entries = logprobs["content"]
            return Drawn(tuple(e["id"] for e in entries), tuple(float(e["logprob"]) for e in entries))
        ids, values = choice["token_ids"], logprobs["token_logprobs"]
        return Drawn(tuple(ids[: len(values)]), tuple(map(float, values[: len(ids)])))
    except (KeyError, IndexError, TypeError) as error:
        raise RequestFailed(f"the completion has no token ids with log probabilities ({error!r})") from error


def token_logprobs(
    model: Any, prompt: Sequence[int], ids: Sequence[int], temperature: float = 1.0
) -> list[float]:
    """What a Hugging Face causal language model says of `ids` after `prompt`, in one forward pass.

    With a temperature they are those of what is drawn at it, as TRL has vLLM give them.
    """
    import torch

    held = torch.tensor([[*prompt, *ids]], device=model.device)
    with torch.inference_mode():
        logits = model(held).logits[0, len(prompt) - 1 : -1].float() / temperature
    chosen = torch.log_softmax(logits, dim=-1).gather(1, held[0, len(prompt) :, None])
    return [float(value) for value in chosen[:, 0]]


def load(base: Path, adapter: Path | None = None) -> tuple[Any, Any]:
    """(model, tokenizer) in float32: a directory's weights, or a GGUF file's, with a LoRA on top."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {} if base.is_dir() else {"gguf_file": base.name}
    directory = base if base.is_dir() else base.parent
    tokenizer = AutoTokenizer.from_pretrained(directory, **where)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype="float32", **where)
    if where:  # plain floats by now, which may be saved again
        model.hf_quantizer = None
        vars(model.config).pop("quantization_config", None)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    return model.eval(), tokenizer


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where the two sides differ, 2 where the server can't be asked."""
    parser = argparse.ArgumentParser(prog="thinkgate canary", description=__doc__.split("\n")[0])
    parser.add_argument("--url", required=True, help="the server, as http://127.0.0.1:8000/v1")
    parser.add_argument("--model", help="what it serves (the first it lists)")
    parser.add_argument("--base", type=Path, required=True, help="the weights: a directory or a GGUF file")
    parser.add_argument("--adapter", type=Path, help="a PEFT LoRA on top of them")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help=f"nats in the mean ({TOLERANCE})")
    args = parser.parse_args(arguments)
    model, tokenizer = load(args.base, args.adapter)
    prompts = [tokenizer(text)["input_ids"] for text in _PROMPTS]
    try:
        drawn = asyncio.run(_draw_all(args.url, args.model, prompts))
    except RequestFailed as error:
        print(f"canary: {error}", file=sys.stderr)
        return 2
    ours = [p for prompt, d in zip(prompts, drawn, strict=True) for p in token_logprobs(model, prompt, d.ids)]
    found = agreement(ours, [p for d in drawn for p in d.logprobs])
    verdict = "agree" if found.holds(args.tolerance) else "DIFFER"
    apart = f"{found.mean:.4f} nats apart in the mean, {found.worst:.4f} at worst"
    print(f"{verdict}: {found.tokens} tokens, {apart}")
    return 0 if found.holds(args.tolerance) else 1


async def _draw_all(url: str, model: str | None, prompts: Sequence[Sequence[int]]) -> list[Drawn]:
    async with open_client(url, 120) as client:
        name = model or await client.served_model()
        return [await draw(client, name, prompt) for prompt in prompts]
