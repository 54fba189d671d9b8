"""Checks a served model against its weights: `thinkgate canary`.

`thinkgate canary --url http://127.0.0.1:8000/v1 --model NAME --base MODEL [--adapter DIR]`.

The server samples a few tokens with their log probabilities, and the weights on disk score the same tokens.
Serving in another precision makes small differences; other weights make large ones. The comparison itself
stands in `training.trainer.weight_check`, where every step of RL uses it too.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.evaluation.client import Client, RequestFailed, open_client
from training.trainer.weight_check import SERVED_TOLERANCE, compare_logprobs, token_logprobs

__all__ = ["ServedTokens", "load", "main", "parse_completion", "sample_from_server"]

_PROMPTS = (
    "The capital of France is Paris, and the capital of Italy is",
    "Question: What is 12 + 7?\nAnswer: Let me think.",
    "def add(a, b):\n    return",
)


@dataclass(frozen=True, slots=True)
class ServedTokens:
    """The tokens that a server generated, and the log probability that it gave each of them."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


async def sample_from_server(
    client: Client, model: str, prompt: Sequence[int], tokens: int = 32, seed: int = 1
) -> ServedTokens:
    """Make a server (vLLM, llama.cpp, the gateway before them) continue token ids, at temperature 1.

    Greedy tokens alone would say little about the others. Raises RequestFailed.
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
    return parse_completion(await client.post("/completions", body))


def parse_completion(reply: Mapping[str, Any]) -> ServedTokens:
    """Return tokens and log probabilities of a completion by vLLM or llama.cpp. Raises RequestFailed."""
    try:
        choice = reply["choices"][0]
        logprobs = choice["logprobs"]
        if "content" in logprobs:  # llama.cpp: one object a token
            entries = logprobs["content"]
            return ServedTokens(
                tuple(entry["id"] for entry in entries), tuple(float(entry["logprob"]) for entry in entries)
            )
        ids, values = choice["token_ids"], logprobs["token_logprobs"]
        return ServedTokens(tuple(ids[: len(values)]), tuple(map(float, values[: len(ids)])))
    except (KeyError, IndexError, TypeError) as error:
        raise RequestFailed(f"the completion has no token ids with log probabilities ({error!r})") from error


def load(base: Path, adapter: Path | None = None) -> tuple[Any, Any]:
    """Return (model, tokenizer) in float32: a directory's weights, or a GGUF file's, with a LoRA on top."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training.trainer.transformers_compat import mark_dequantized

    options: dict[str, Any] = {} if base.is_dir() else {"gguf_file": base.name}
    directory = base if base.is_dir() else base.parent
    tokenizer = AutoTokenizer.from_pretrained(directory, **options)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype="float32", **options)
    mark_dequantized(model)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    return model.eval(), tokenizer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. The exit status is 1 if the two sides differ, 2 if the server can't be asked."""
    parser = argparse.ArgumentParser(
        prog="thinkgate canary", description="Compare a served model's log probabilities with its weights."
    )
    parser.add_argument("--url", required=True, help="the server's address, as http://127.0.0.1:8000/v1")
    parser.add_argument("--model", help="the served model's name (default: the first that the server lists)")
    parser.add_argument("--base", type=Path, required=True, help="the weights: a directory or a GGUF file")
    parser.add_argument("--adapter", type=Path, help="a PEFT LoRA on top of them")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=SERVED_TOLERANCE,
        help=f"nats that they may differ in the mean (default: {SERVED_TOLERANCE})",
    )
    options = parser.parse_args(arguments)
    model, tokenizer = load(options.base, options.adapter)
    prompts = [tokenizer(text)["input_ids"] for text in _PROMPTS]
    try:
        served = asyncio.run(_sample_all(options.url, options.model, prompts))
    except RequestFailed as error:
        print(f"canary: {error}", file=sys.stderr)
        return 2
    ours = [
        logprob
        for prompt, tokens in zip(prompts, served, strict=True)
        for logprob in token_logprobs(model, prompt, tokens.ids)
    ]
    theirs = [logprob for tokens in served for logprob in tokens.logprobs]
    check = compare_logprobs(ours, theirs, tolerance=options.tolerance)
    agrees = check.verdict == "agrees"
    distance = f"{check.mean:.4f} nats apart in the mean, {check.worst:.4f} at worst"
    print(f"{'agree' if agrees else 'DIFFER'}: {check.tokens} tokens, {distance}")
    return 0 if agrees else 1


async def _sample_all(url: str, model: str | None, prompts: Sequence[Sequence[int]]) -> list[ServedTokens]:
    async with open_client(url, 120) as client:
        name = model or await client.served_model()
        return [await sample_from_server(client, name, prompt) for prompt in prompts]
