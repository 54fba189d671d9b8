"""Measure what a vote costs, against the time that an engine takes to generate its samples.

    python -m benchmarks.votes [--json benchmarks/results/votes.json]

Each case is a whole vote run as the gateway does it. It extracts every sample's answer, adds it to its group,
takes the standing after each (as a progress event shows it), and decides at the end. Times are the process's
processor time, as medians over rounds, so that other work on the machine does not count.
The reference is the fastest engine measured: a model of a million parameters in vLLM on two cores, at 4,400
tokens a second. A vote should take less than a hundredth of the time that its samples take there. The
embedded engine generates 170.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from gateway.runs.budget import read_sampling
from gateway.runs.request import ReplyOptions, RunRequest, ServedModel, plan_request
from gateway.runs.voting import VoteSettings, VoteTally
from gateway.upstreams.base import ModelCard
from policies.families import find_family
from scorers.confidence import compact_tokens
from scorers.types import Sample, ScorerModel, Usage

RATES = {"embedded": 170, "tiny in vLLM": 4_400}
SAMPLES, TOKENS, ROUNDS = 64, 150, 15
TALE = (
    "first we take the number of boxes and add what is left over so that each of them holds the same then "
    "half of it goes to the shop because nobody wants more than three which means we have to look again"
)


class UnusedModel:
    """A scorer model that is never asked."""

    tokens = 0

    async def complete(self, messages: Any, **params: Any) -> Sample:
        raise AssertionError("no scorer here asks a model")

    def count(self, tokens: int) -> None:
        self.tokens += tokens


def prose(rng: random.Random, words: int) -> str:
    """Return sentences of a dozen words."""
    chosen = rng.choices(TALE.split(), k=words)
    sentences = [" ".join(chosen[start : start + 12]).capitalize() for start in range(0, words, 12)]
    return ". ".join(sentences)


def solution(rng: random.Random, index: int, groups: int) -> Sample:
    """Return a solution of the usual length, with its answer in a box."""
    answer = 40 + index % groups
    text = f"{prose(rng, 110)}. So the answer is \\boxed{{{answer}}}."
    return Sample(index, text, usage=Usage(completion=TOKENS))


def expression(rng: random.Random, index: int) -> Sample:
    """Return a solution whose answer needs algebra to compare."""
    forms = ("\\frac{\\sqrt{3}}{2}", "\\sqrt{3}/2", "\\sqrt{\\frac{3}{4}}", "0.5\\sqrt{3}", "\\frac{1}{2}")
    text = f"{prose(rng, 110)}. So the answer is \\boxed{{{forms[index % len(forms)]}}}."
    return Sample(index, text, usage=Usage(completion=TOKENS))


def free_text(rng: random.Random, index: int) -> Sample:
    """Return free text, which has no answer to count."""
    return Sample(index, prose(rng, 115) + ".", usage=Usage(completion=TOKENS))


def with_logprobs(sample: Sample, rng: random.Random) -> Sample:
    """Return the sample with 20 log probabilities a token, stored as the gateway stores them in a stream."""
    tops = [[{"logprob": -rng.random() * 9} for _ in range(20)] for _ in range(TOKENS)]
    content = [{"logprob": top[0]["logprob"], "top_logprobs": top} for top in tops]
    return replace(sample, logprobs={"content": compact_tokens(content)})


CASES: dict[str, tuple[dict[str, str], Callable[[random.Random, int], Sample]]] = {
    "majority, 4 answers": ({}, lambda rng, i: solution(rng, i, 4)),
    "majority, 64 answers": ({}, lambda rng, i: solution(rng, i, 64)),
    "majority, surds": ({}, expression),
    "borda by agreement": ({"x-vote": "borda", "x-scorer": "agreement"}, lambda c, i: solution(c, i, 4)),
    "confidence": ({"x-vote": "confidence"}, lambda rng, i: with_logprobs(solution(rng, i, 4), rng)),
    "free text, mbr": ({}, free_text),
}


def request_of(headers: dict[str, str]) -> RunRequest:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "How many boxes?"}]}
    sampling = read_sampling({"x-samples": str(SAMPLES), **headers}, body)
    return plan_request(
        body, sampling, ReplyOptions(), ServedModel("m", find_family("qwen3"), ModelCard("m"))
    )


async def run_vote(request: RunRequest, samples: list[Sample], model: ScorerModel) -> str:
    votes = VoteTally(request, VoteSettings())
    for finished, sample in enumerate(samples, 1):
        await votes.add(sample)
        votes.current_result(samples[:finished])
    return (await votes.decide(samples, model, None)).method


async def measure(headers: dict[str, str], draw: Callable[[random.Random, int], Sample]) -> dict[str, Any]:
    rng = random.Random(0)
    samples = [draw(rng, index) for index in range(SAMPLES)]
    request, times, method = request_of(headers), [], ""
    for _ in range(ROUNDS):
        start = time.process_time()
        method = await run_vote(request, samples, UnusedModel())
        times.append(time.process_time() - start)
    seconds = median(times)
    sampling_seconds = {name: SAMPLES * TOKENS / rate for name, rate in RATES.items()}
    parts = {name: round(seconds / sampling, 5) for name, sampling in sampling_seconds.items()}
    return {"method": method, "milliseconds": round(1000 * seconds, 2), "part_of_drawing": parts}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cases = {name: asyncio.run(measure(*case)) for name, case in CASES.items()}
    report = {"samples": SAMPLES, "tokens_each": TOKENS, "tokens_a_second": RATES, "cases": cases}
    for name, case in cases.items():
        print(f"{name:24} {case['milliseconds']:8.2f} ms  {case['part_of_drawing']}  ({case['method']})")
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
