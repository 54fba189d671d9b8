"""Request every budget, streamed and not; fail if a sample exceeds its limit or has an empty answer.

    python -m benchmarks.budgets --page docs/reference/budgets.md --json benchmarks/results/budgets.json
    python -m benchmarks.budgets --only embedded              # without the real vLLM

Engines: the embedded one, and the real vLLM with the tiny model of its tests (see
tests/vllm/tiny_model.py; `tests/vllm/install.sh` sets it up). vLLM runs once with a reasoning config, so that
it enforces limits itself, and once without. Each budget is requested with every seed of `SEEDS` at
temperature 1, and once greedily. The tiny model never stops thinking when greedy, so every limit is reached.
`used` is the maximum number of thinking tokens that the gateway counted in a sample. `recounted` is the
maximum that the engine's own tokenizer finds in the returned text of the thinking.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from pydantic import HttpUrl

from gateway.app import create_app
from gateway.config import Settings
from gateway.upstreams.embedded.engine import EmbeddedEngine, EmbeddedOptions
from gateway.upstreams.embedded.upstream import EmbeddedUpstream
from policies.prompts import LEVELS
from tests.serving import events_of, serving_in_thread
from tests.vllm.server import REASONING_OPTIONS, serve

BUDGETS = (*LEVELS, "auto", "0", "8", "64")
ENGINES = ("embedded", "vllm-native", "vllm-forced")
SEEDS = (1, 2)
QUESTION = [{"role": "user", "content": "What is two plus five? Put the answer in \\boxed{}."}]
TESTS = Path(__file__).resolve().parent.parent / "tests" / "vllm"
BEGIN, END = "<!-- budgets:begin -->", "<!-- budgets:end -->"


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway, and its engine's tokenizer."""

    name: str
    url: str
    model: str
    tokenizer: str
    headers: dict[str, str]

    def tokens(self, http: httpx.Client, text: str) -> int:
        """Count the tokens of a text, with or without a space before it, whichever is fewer."""
        return min(self._tokens(http, text), self._tokens(http, f" {text}")) if text else 0

    def _tokens(self, http: httpx.Client, text: str) -> int:
        body = {"model": self.model, "prompt": text, "content": text, "add_special_tokens": False}
        return len(http.post(self.tokenizer, json=body, headers=self.headers).json()["tokens"])


@dataclass(frozen=True, slots=True)
class BudgetResult:
    """One budget on one engine, over all its requests."""

    engine: str
    asked: str
    stream: bool
    requests: int
    samples: int
    limit: int | None
    enforced: str
    used: int
    recounted: int
    over: int
    empty: int


@contextmanager
def embedded() -> Iterator[Target]:
    engine = EmbeddedEngine(EmbeddedOptions(slots=8, context=2048))
    with serving_in_thread(create_app(Settings(), EmbeddedUpstream(engine))) as url:
        root = engine.base_url.removesuffix("/v1")
        key = {"Authorization": f"Bearer {engine.api_key}"}
        yield Target("embedded", url, engine.model_name, f"{root}/tokenize", key)


@contextmanager
def vllm(name: str, options: tuple[str, ...]) -> Iterator[Target]:
    """Serve with the real vLLM. Raises SystemExit if it is not installed."""
    python = (
        os.environ.get("THINKGATE_VLLM_PYTHON")
        or subprocess.run(
            [TESTS / "install.sh", "--where"], capture_output=True, text=True, check=True
        ).stdout.strip()
    )
    if not Path(python).exists():
        raise SystemExit(f"vLLM is not installed in {python}: run tests/vllm/install.sh")
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        model = Path(directory) / "tiny"
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        subprocess.run([python, TESTS / "tiny_model.py", model], env=environment, check=True)
        server = stack.enter_context(serve(python, model, Path(directory) / "log", options))
        settings = Settings(upstream=HttpUrl(f"{server.base_url}/v1"))
        url = stack.enter_context(serving_in_thread(create_app(settings)))
        yield Target(name, url, server.model, f"{server.base_url}/tokenize", {})


def target(name: str) -> Any:
    if name == "embedded":
        return embedded()
    return vllm(name, REASONING_OPTIONS if name == "vllm-native" else ())


async def measure_budget(target: Target, http: httpx.AsyncClient, budget: str, stream: bool) -> BudgetResult:
    settings: list[dict[str, Any]] = [{"seed": seed} for seed in SEEDS] + [{"temperature": 0}]
    replies = await asyncio.gather(*(reply(target, http, budget, stream, fields) for fields in settings))
    reports = [reply["scaling"]["budget"] for reply in replies]
    used = [max(reply["used"]) for reply in replies]
    limits = [report["limit"] for report in reports]
    with httpx.Client() as plain:
        recounted = [target.tokens(plain, reply["reasoning"]) for reply in replies]
    return BudgetResult(
        target.name,
        budget,
        stream,
        len(replies),
        sum(len(reply["used"]) for reply in replies),
        max((limit for limit in limits if limit is not None), default=None),
        "+".join(sorted({report["enforced"] for report in reports})),
        max(used),
        max(recounted),
        sum(limit is not None and tokens > limit for tokens, limit in zip(used, limits, strict=True)),
        sum(not reply["content"].strip() for reply in replies),
    )


async def reply(
    target: Target, http: httpx.AsyncClient, budget: str, stream: bool, fields: dict[str, Any]
) -> dict[str, Any]:
    """Send one request; return texts and report, with each sample's thinking tokens as `used`."""
    body = {"model": target.model, "messages": QUESTION, "scaling": {"trace": True}, "stream": stream}
    response = await http.post(
        f"{target.url}/v1/chat/completions", json={**body, **fields}, headers={"X-Reasoning-Budget": budget}
    )
    if response.status_code != 200:
        raise SystemExit(f"{target.name}, {budget}: {response.text}")
    if stream:
        events = events_of(response.text)
        deltas = [choice["delta"] for event in events for choice in event["choices"]]
        scaling = next(event["scaling"] for event in reversed(events) if "budget" in event.get("scaling", {}))
    else:
        completion = response.json()
        deltas, scaling = [completion["choices"][0]["message"]], completion["scaling"]
    used = [entry["reasoning_tokens"] for entry in scaling["trace"] if "reasoning_tokens" in entry]
    return {
        "content": "".join(delta.get("content") or "" for delta in deltas),
        "reasoning": "".join(delta.get("reasoning") or "" for delta in deltas),
        "scaling": scaling,
        "used": used or [scaling["budget"]["used"]],
    }


@asynccontextmanager
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=900) as http:
        yield http


async def measure(target: Target) -> list[BudgetResult]:
    async with client() as http:
        return [
            await measure_budget(target, http, budget, stream)
            for budget in BUDGETS
            for stream in (False, True)
        ]


def table(results: list[BudgetResult]) -> str:
    lines = [
        "| engine | budget | limit | enforced by | requests (samples) | used, whole | used, streamed "
        "| recounted | over the limit | empty answers |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for whole, streamed in zip(results[::2], results[1::2], strict=True):
        both = (whole, streamed)
        enforced = "+".join(sorted({name for row in both for name in row.enforced.split("+")}))
        lines.append(
            f"| {whole.engine} | `{whole.asked}` "
            f"| {'–' if whole.limit is None else whole.limit} | {enforced} "
            f"| {sum(row.requests for row in both)} ({sum(row.samples for row in both)}) "
            f"| {whole.used} | {streamed.used} | {max(row.recounted for row in both)} "
            f"| {sum(row.over for row in both)} | {sum(row.empty for row in both)} |"
        )
    return "\n".join(lines)


def put_into(page: Path, text: str) -> None:
    """Replace the text between the page's markers."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, marker, after = rest.partition(END)
    if not marker:
        raise SystemExit(f"{page} has no {BEGIN} ... {END}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=ENGINES, default=ENGINES, help="engines to measure")
    parser.add_argument("--page", type=Path, help="a page that takes the table between its markers")
    parser.add_argument("--json", type=Path, help="where to write the figures as JSON")
    arguments = parser.parse_args()
    results: list[BudgetResult] = []
    for name in arguments.only:
        with target(name) as running:
            results += asyncio.run(measure(running))
    text = table(results)
    print(text)
    failures = [result for result in results if result.over or result.empty]
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    if failures:
        raise SystemExit(1)
    if arguments.json:
        figures = json.dumps([asdict(result) for result in results], indent=1)
        arguments.json.write_text(figures + "\n", encoding="utf-8")
    if arguments.page:
        put_into(arguments.page, text)


if __name__ == "__main__":
    main()
