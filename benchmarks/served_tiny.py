"""Asks the tiny models of `make train-tiny` through the gateway, served by the real vLLM: before and after.

    THINKGATE_VLLM_PYTHON=$(tests/vllm/install.sh) python -m benchmarks.served_tiny --runs runs/tiny

Every model gets the same held-out questions at the same budgets: greedily at each level, and
at temperature 1 with one sample and with a vote of 8. Limits are the levels' own, kept by the gateway.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from itertools import islice
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from pydantic import HttpUrl

from gateway.app import create_app
from gateway.config import Settings, load_settings
from tests.serving import serving_in_thread
from tests.vllm.server import serve
from training.config import read_config
from training.evaluate import main as evaluate
from training.sources import held_out

CONFIG = Path("training/configs/tiny.toml")
STAGES = ("cold-start", "rl", "mixed")
BEGIN, END = "<!-- served:begin -->", "<!-- served:end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/served-tiny.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/training.md"))
    chosen = parser.parse_args()
    python = os.environ["THINKGATE_VLLM_PYTHON"]
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for run in sorted(chosen.runs.glob("seed-*/mixed/card.json")):
        for stage in STAGES:
            model = run.parent.parent / stage / "model"
            print(f"{model}", flush=True)
            found.setdefault(run.parent.parent.name, {})[stage] = _ask(python, model, chosen.count)
    if not found:
        raise SystemExit(f"{chosen.runs}: no finished run")
    chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    table = _table(found)
    print(table)
    page = chosen.page.read_text(encoding="utf-8")
    head, tail = page.partition(BEGIN)[0], page.partition(END)[2]
    chosen.page.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", encoding="utf-8")


def _ask(python: str, model: Path, count: int) -> list[dict[str, Any]]:
    """The evaluation's figures of one model, over all settings."""
    config = read_config(CONFIG)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data = place / "additions.jsonl"
        rows = islice(held_out(config.held_out.sources, count), count)
        data.write_text("".join(json.dumps({"question": r.question, "answer": r.gold}) + "\n" for r in rows))
        with serve(python, model, place / "vllm.log", context=1024) as server:
            settings: Settings = load_settings(
                None,
                {},
                upstream=HttpUrl(f"{server.base_url}/v1"),
                family=config.model.family,
                levels={name: table.model_dump(exclude_none=True) for name, table in config.levels.items()},
            )
            with serving_in_thread(create_app(settings)) as url:
                common = ["--data", str(data), "--form", "any", "--url", f"{url}/v1", "--by", "lenient"]
                common += ["--concurrency", "8", "--stops", "none", "--json", "--max-tokens", "96"]
                figures: list[dict[str, Any]] = []
                for name, options in {
                    "greedy": ["--temperature", "0", "--budgets", "off,low,high"],
                    "sampled": ["--temperature", "1", "--budgets", "high", "--samples", "1,8"],
                }.items():
                    out = place / f"{name}.jsonl"
                    status = evaluate([*common, *options, "--out", str(out)])
                    if status:
                        raise SystemExit(f"{model}: the evaluation ended with status {status}")
                    summary = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
                    figures += [{"drawn": name, **figure} for figure in summary["settings"]]
                return figures


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


def _figure(figures: list[dict[str, Any]], drawn: str, budget: str, samples: int) -> dict[str, Any]:
    name = budget if samples == 1 else f"{budget}@{samples} majority"
    return next(figure for figure in figures if (figure["drawn"], figure["name"]) == (drawn, name))


if __name__ == "__main__":
    main()
