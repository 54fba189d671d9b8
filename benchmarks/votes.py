"""What a vote costs, against the time that an engine takes to draw what it is over.

    python -m benchmarks.votes [--json benchmarks/results/votes.json]

Each case is a whole election as the engine holds it: every sample's answer read, put into its
class, the standing taken after each (as a progress event shows it), and the verdict at the
end. Times are processor time of the process, the median over rounds, so that other work on
the machine doesn't count. The yardstick is the fastest engine measured, a model of a million
parameters in vLLM on two cores at 4,400 tokens a second; a vote should take less than a
hundredth of what drawing its samples takes there. The embedded engine makes 170.
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
from gateway.runs.voting import Election, VoteSettings
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


class Nobody:
    """A model that is never asked."""

    tokens = 0

    async def complete(self, messages: Any, **params: Any) -> Sample:
        raise AssertionError("no scorer here asks a model")

    def count(self, tokens: int) -> None:
        self.tokens += tokens


def prose(chance: random.Random, words: int) -> str:
    """Sentences of a dozen words."""
    drawn = chance.choices(TALE.split(), k=words)
    sentences = [" ".join(drawn[start : start + 12]).capitalize() for start in range(0, words, 12)]
    return ". ".join(sentences)


def worked(chance: random.Random, index: int, classes: int) -> Sample:
    """A worked solution of the usual length, its answer in a box."""
    answer = 40 + index % classes
    text = f"{prose(chance, 110)}. So the answer is \\boxed{{{answer}}}."
    return Sample(index, text, usage=Usage(completion=TOKENS))


def expression(chance: random.Random, index: int) -> Sample:
    """A solution whose answer takes algebra to compare."""
    forms = ("\\frac{\\sqrt{3}}{2}", "\\sqrt{3}/2", "\\sqrt{\\frac{3}{4}}", "0.5\\sqrt{3}", "\\frac{1}{2}")
    text = f"{prose(chance, 110)}. So the answer is \\boxed{{{forms[index % len(forms)]}}}."
    return Sample(index, text, usage=Usage(completion=TOKENS))


def talk(chance: random.Random, index: int) -> Sample:
    """Free text, over which nothing can be counted."""
    return Sample(index, prose(chance, 115) + ".", usage=Usage(completion=TOKENS))


def logged(sample: Sample, chance: random.Random) -> Sample:
    """The sample with 20 log probabilities a token, kept as the gateway keeps them while it streams."""
    tops = [[{"logprob": -chance.random() * 9} for _ in range(20)] for _ in range(TOKENS)]
    content = [{"logprob": top[0]["logprob"], "top_logprobs": top} for top in tops]
    return replace(sample, logprobs={"content": compact_tokens(content)})


CASES: dict[str, tuple[dict[str, str], Callable[[random.Random, int], Sample]]] = {
    "majority, 4 answers": ({}, lambda chance, i: worked(chance, i, 4)),
    "majority, 64 answers": ({}, lambda chance, i: worked(chance, i, 64)),
    "majority, surds": ({}, expression),
    "borda by agreement": ({"x-vote": "borda", "x-scorer": "agreement"}, lambda c, i: worked(c, i, 4)),
    "confidence": ({"x-vote": "confidence"}, lambda chance, i: logged(worked(chance, i, 4), chance)),
    "free text, mbr": ({}, talk),
}


def request_of(headers: dict[str, str]) -> RunRequest:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "How many boxes?"}]}
    asked = read_sampling({"x-samples": str(SAMPLES), **headers}, body)
    return plan_request(body, asked, ReplyOptions(), ServedModel("m", find_family("qwen3"), ModelCard("m")))


async def hold(request: RunRequest, samples: list[Sample], model: ScorerModel) -> str:
    election = Election(request, VoteSettings())
    for count, sample in enumerate(samples, 1):
        await election.add(sample)
        election.standing(samples[:count])
    return (await election.decide(samples, model, None)).method


async def measure(headers: dict[str, str], draw: Callable[[random.Random, int], Sample]) -> dict[str, Any]:
    chance = random.Random(0)
    samples = [draw(chance, index) for index in range(SAMPLES)]
    request, times, method = request_of(headers), [], ""
    for _ in range(ROUNDS):
        before = time.process_time()
        method = await hold(request, samples, Nobody())
        times.append(time.process_time() - before)
    took = median(times)
    drawing = {name: SAMPLES * TOKENS / rate for name, rate in RATES.items()}
    parts = {name: round(took / seconds, 5) for name, seconds in drawing.items()}
    return {"method": method, "milliseconds": round(1000 * took, 2), "part_of_drawing": parts}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cases = {name: asyncio.run(measure(*case)) for name, case in CASES.items()}
    told = {"samples": SAMPLES, "tokens_each": TOKENS, "tokens_a_second": RATES, "cases": cases}
    for name, case in cases.items():
        print(f"{name:24} {case['milliseconds']:8.2f} ms  {case['part_of_drawing']}  ({case['method']})")
    if args.json:
        args.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
