"""Evaluate the tiny models of `make train-tiny` through the gateway, on the real vLLM: before and after.

    THINKGATE_VLLM_PYTHON=$(tests/vllm/install.sh) python -m benchmarks.served_tiny --runs runs/tiny

Every model gets the same held-out questions at the same budgets: greedily at each level, and at temperature 1
with one sample and with a vote of 8. The limits are the levels' own; the gateway enforces them.
`--judge DIRECTORY` names a generative judge that passed its release gate. Its own vLLM and gateway serve it,
and the policy that it passed the gate with is asked for votes weighted by it. Without `--judge`, the earlier
results of such votes stay.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from pydantic import HttpUrl

from benchmarks.evaluation_figures import evaluate_gateway, write_questions
from gateway.app import create_app
from gateway.config import Settings, load_settings
from scorers.gate import GATE_FILE, read_gate
from tests.serving import serving_in_thread
from tests.vllm.server import MODEL, serve
from training.config import read_config
from training.data.sources import held_out

CONFIG = Path("training/configs/tiny.toml")
STAGES = {
    "cold-start": "cold-start",
    "rl": "rl",
    "mixed": "mixed",
    "rejection for RL's time": "instead-rejection/rejection",
    "more cold start for RL's time": "instead-sft/cold-start",
}
"""The evaluated models, and their folders in a seed's run."""
BEGIN, END = "<!-- served:begin -->", "<!-- served:end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/served-tiny.json"))
    parser.add_argument("--page", type=Path, default=Path("benchmarks/training-runs.md"))
    parser.add_argument("--judge", type=Path, help="a judge's directory, with its gate")
    args = parser.parse_args()
    python = os.environ["THINKGATE_VLLM_PYTHON"]
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for finished in sorted(args.runs.glob("seed-*/figures.json")):
        for stage, folder in STAGES.items():
            model = finished.parent / folder / "model"
            print(f"{model}", flush=True)
            results.setdefault(finished.parent.name, {})[stage] = _evaluate(python, model, args.count)
    if not results:
        raise SystemExit(f"{args.runs}: no finished run")
    if args.judge is not None:
        scored = _evaluate_votes(python, args.judge, args.count)
    else:
        scored = json.loads(args.json.read_text())["scored"] if args.json.exists() else None
    report = {"models": results, "scored": scored}
    args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    table = _table(results) + ("" if scored is None else f"\n\n{_scored_table(scored)}")
    print(table)
    page = args.page.read_text(encoding="utf-8")
    head, tail = page.partition(BEGIN)[0], page.partition(END)[2]
    args.page.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", encoding="utf-8")


def _evaluate(python: str, model: Path, count: int) -> list[dict[str, Any]]:
    """Return the metrics of one model, over all settings."""
    with tempfile.TemporaryDirectory() as folder, _served(python, model, Path(folder)) as url:
        return [
            {"drawn": name, **metrics}
            for name, options in {
                "greedy": ["--temperature", "0", "--budgets", "off,low,high"],
                "sampled": ["--temperature", "1", "--budgets", "high", "--samples", "1,8"],
            }.items()
            for metrics in _run_evaluation(url, Path(folder) / f"{name}.jsonl", count, options)
        ]


def _evaluate_votes(python: str, judge: Path, count: int) -> dict[str, Any]:
    """Evaluate votes of the policy that a judge passed its gate with, with and without the judge."""
    policy = Path(str(read_gate(judge / GATE_FILE).data["policy"]))
    serving = tomllib.loads((judge / "serving.toml").read_text(encoding="utf-8"))["scorers"]["trained"]
    votes = "majority,weighted:checker,best:checker"
    options = ["--temperature", "1", "--budgets", "high", "--samples", "1,8,16", "--votes", votes]
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        with _served(python, judge, directory / "judge") as judge_url:
            checker = {**serving, "url": f"{judge_url}/v1", "model": MODEL}
            with _served(python, policy, directory / "policy", scorers={"checker": checker}) as url:
                metrics = _run_evaluation(url, directory / "voted.jsonl", count, options)
    return {"policy": str(policy), "judge": str(judge), "figures": metrics}


@contextmanager
def _served(python: str, model: Path, directory: Path, **more: Any) -> Iterator[str]:
    """Serve this model with vLLM and a gateway that has the levels of its training; yield the address."""
    config = read_config(CONFIG)
    directory.mkdir(parents=True, exist_ok=True)
    levels = {name: table.model_dump(exclude_none=True) for name, table in config.levels.items()}
    with serve(python, model, directory / "vllm.log", context=1024) as server:
        settings: Settings = load_settings(
            None,
            {},
            upstream=HttpUrl(f"{server.base_url}/v1"),
            family=config.model.family,
            levels=levels,
            **more,
        )
        with serving_in_thread(create_app(settings)) as url:
            yield url


def _run_evaluation(url: str, out: Path, count: int, options: Sequence[str]) -> list[dict[str, Any]]:
    """Run `thinkgate eval` on the held-out questions."""
    data = out.with_name("additions.jsonl")
    problems = islice(held_out(read_config(CONFIG).held_out.sources, count), count)
    write_questions(data, problems)
    common = ["--data", str(data), "--form", "any", "--url", f"{url}/v1", "--by", "lenient"]
    common += ["--concurrency", "8", "--stops", "none", "--max-tokens", "96"]
    return evaluate_gateway(out, [*common, *options])


def _table(results: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    columns = {
        "off": ("greedy", "off", 1),
        "low": ("greedy", "low", 1),
        "high": ("greedy", "high", 1),
        "high, one sample": ("sampled", "high", 1),
        "high, vote of 8": ("sampled", "high", 8),
    }
    lines = [
        f"| model | {' | '.join(columns)} | thinking tokens at off, low, high |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for stage in STAGES:
        cells = []
        for way, budget, samples in columns.values():
            metrics = [_metrics(seed[stage], way, budget, samples) for seed in results.values()]
            values = [metric["lenient"]["percent"] for metric in metrics]
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{fmean(values):.1f}{spread}")
        tokens = [
            fmean(_metrics(seed[stage], "greedy", budget, 1)["reasoning"] for seed in results.values())
            for budget in ("off", "low", "high")
        ]
        lines.append(f"| {stage} | {' | '.join(cells)} | {', '.join(f'{count:.0f}' for count in tokens)} |")
    return "\n".join(lines)


def _scored_table(scored: dict[str, Any]) -> str:
    """Return a table of the policy's votes by number of samples."""
    metrics = {metric["name"]: metric for metric in scored["figures"]}
    lines = ["| samples | majority | weighted by the judge | best by the judge |", "|---" * 4 + "|"]
    for count in (8, 16):
        cells = []
        for vote in ("majority", "weighted:checker", "best:checker"):
            accuracy = metrics[f"high@{count} {vote}"]["lenient"]
            interval = f"{accuracy['low']:.0f} to {accuracy['high']:.0f}"
            cells.append(f"{accuracy['percent']:.1f} ({interval})")
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _metrics(metrics: list[dict[str, Any]], way: str, budget: str, samples: int) -> dict[str, Any]:
    name = budget if samples == 1 else f"{budget}@{samples} majority"
    return next(metric for metric in metrics if (metric["drawn"], metric["name"]) == (way, name))


if __name__ == "__main__":
    main()
