"""Asks the tiny models of `make train-tiny` through the gateway, served by the real vLLM: before and after.

    THINKGATE_VLLM_PYTHON=$(tests/vllm/install.sh) python -m benchmarks.served_tiny --runs runs/tiny

Every model gets the same held-out questions at the same budgets: greedily at each level, and
at temperature 1 with one sample and with a vote of 8. Limits are the levels' own, kept by the gateway.
With `--judge DIRECTORY`, a generative judge that passed its release gate, it is served too, by a vLLM and a
gateway of its own, and the policy that it was judged with is asked for votes weighted by it as well; without,
what such votes were before stays.
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
"""The models that are asked, and where a seed's run has them."""
BEGIN, END = "<!-- served:begin -->", "<!-- served:end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/served-tiny.json"))
    parser.add_argument("--page", type=Path, default=Path("benchmarks/training-runs.md"))
    parser.add_argument("--judge", type=Path, help="a judge's directory, with its gate")
    chosen = parser.parse_args()
    python = os.environ["THINKGATE_VLLM_PYTHON"]
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for done in sorted(chosen.runs.glob("seed-*/figures.json")):
        for stage, place in STAGES.items():
            model = done.parent / place / "model"
            print(f"{model}", flush=True)
            found.setdefault(done.parent.name, {})[stage] = _ask(python, model, chosen.count)
    if not found:
        raise SystemExit(f"{chosen.runs}: no finished run")
    if chosen.judge is not None:
        scored = _ask_with(python, chosen.judge, chosen.count)
    else:
        scored = json.loads(chosen.json.read_text())["scored"] if chosen.json.exists() else None
    told = {"models": found, "scored": scored}
    chosen.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    table = _table(found) + ("" if scored is None else f"\n\n{_scored_table(scored)}")
    print(table)
    page = chosen.page.read_text(encoding="utf-8")
    head, tail = page.partition(BEGIN)[0], page.partition(END)[2]
    chosen.page.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", encoding="utf-8")


def _ask(python: str, model: Path, count: int) -> list[dict[str, Any]]:
    """The evaluation's figures of one model, over all settings."""
    with tempfile.TemporaryDirectory() as folder, _served(python, model, Path(folder)) as url:
        return [
            {"drawn": name, **figure}
            for name, options in {
                "greedy": ["--temperature", "0", "--budgets", "off,low,high"],
                "sampled": ["--temperature", "1", "--budgets", "high", "--samples", "1,8"],
            }.items()
            for figure in _evaluated(url, Path(folder) / f"{name}.jsonl", count, options)
        ]


def _ask_with(python: str, judge: Path, count: int) -> dict[str, Any]:
    """The policy that a judge passed its gate with: votes of 8 and 16, weighted by the judge and not."""
    policy = Path(str(read_gate(judge / GATE_FILE).data["policy"]))
    told = tomllib.loads((judge / "serving.toml").read_text(encoding="utf-8"))["scorers"]["trained"]
    votes = "majority,weighted:checker,best:checker"
    options = ["--temperature", "1", "--budgets", "high", "--samples", "1,8,16", "--votes", votes]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with _served(python, judge, place / "judge") as judge_url:
            checker = {**told, "url": f"{judge_url}/v1", "model": MODEL}
            with _served(python, policy, place / "policy", scorers={"checker": checker}) as url:
                figures = _evaluated(url, place / "voted.jsonl", count, options)
    return {"policy": str(policy), "judge": str(judge), "figures": figures}


@contextmanager
def _served(python: str, model: Path, place: Path, **more: Any) -> Iterator[str]:
    """The address of a gateway before a vLLM with this model, with the levels it was trained at."""
    config = read_config(CONFIG)
    place.mkdir(parents=True, exist_ok=True)
    levels = {name: table.model_dump(exclude_none=True) for name, table in config.levels.items()}
    with serve(python, model, place / "vllm.log", context=1024) as server:
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


def _evaluated(url: str, out: Path, count: int, options: Sequence[str]) -> list[dict[str, Any]]:
    """`thinkgate eval` on the held-out questions."""
    data = out.with_name("additions.jsonl")
    rows = islice(held_out(read_config(CONFIG).held_out.sources, count), count)
    write_questions(data, rows)
    common = ["--data", str(data), "--form", "any", "--url", f"{url}/v1", "--by", "lenient"]
    common += ["--concurrency", "8", "--stops", "none", "--max-tokens", "96"]
    return evaluate_gateway(out, [*common, *options])


def _table(found: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
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
        for drawn, budget, samples in columns.values():
            figures = [_figure(seed[stage], drawn, budget, samples) for seed in found.values()]
            values = [figure["lenient"]["percent"] for figure in figures]
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{fmean(values):.1f}{spread}")
        tokens = [
            fmean(_figure(seed[stage], "greedy", budget, 1)["reasoning"] for seed in found.values())
            for budget in ("off", "low", "high")
        ]
        lines.append(f"| {stage} | {' | '.join(cells)} | {', '.join(f'{t:.0f}' for t in tokens)} |")
    return "\n".join(lines)


def _scored_table(scored: dict[str, Any]) -> str:
    """Votes of the policy by how many samples, each as it is counted."""
    figures = {figure["name"]: figure for figure in scored["figures"]}
    lines = ["| samples | majority | weighted by the judge | best by the judge |", "|---" * 4 + "|"]
    for count in (8, 16):
        cells = []
        for vote in ("majority", "weighted:checker", "best:checker"):
            right = figures[f"high@{count} {vote}"]["lenient"]
            cells.append(f"{right['percent']:.1f} ({right['low']:.0f} to {right['high']:.0f})")
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _figure(figures: list[dict[str, Any]], drawn: str, budget: str, samples: int) -> dict[str, Any]:
    name = budget if samples == 1 else f"{budget}@{samples} majority"
    return next(figure for figure in figures if (figure["drawn"], figure["name"]) == (drawn, name))


if __name__ == "__main__":
    main()
