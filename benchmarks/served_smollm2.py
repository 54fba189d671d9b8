"""Evaluate SmolLM2-135M before and after its training, through the gateway, on the embedded engine.

    python -m benchmarks.served_smollm2 base= cold-start=FILE rl=gateway/demo/smollm2-reasoner.gguf \\
        --gsm8k test.jsonl.gz

New results replace earlier ones of the same model, set and way of sampling; the others stay. So you can
evaluate one model, one set (`--sets`) or one way (`--drawn`) at a time. All models get the same questions
with the same seeds: new ones of the imitated kinds, longer sums, and GSM8K's, which were not trained.

- `greedy`: at each budget.
- `sampled`: at temperature 1, one sample and the majority of 8.
- `judged`: votes of 8 that the demo's trained judge weighs, as an adapter beside the model's own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.evaluation_figures import evaluate_gateway, write_questions
from gateway.app import create_app
from gateway.config import load_settings
from gateway.demo.bundled import CHECKER, JUDGE, checker
from gateway.upstreams.embedded.model_store import SMOLLM2
from tests.serving import serving_in_thread
from training.config import read_config
from training.data.sources import held_out

CONFIGS = {
    "imitated kinds": Path("training/configs/smollm2.toml"),
    "longer sums": Path("training/configs/smollm2-longer.toml"),
}
"""The configurations whose held-out questions are asked."""
BEGIN, END = "<!-- smollm2:begin -->", "<!-- smollm2:end -->"
WAYS: Mapping[str, Sequence[str]] = {
    "greedy": ["--temperature", "0", "--budgets", "off,low,high"],
    "sampled": ["--temperature", "1", "--budgets", "high", "--samples", "1,8", "--votes", "majority"],
    "judged": ["--temperature", "1", "--budgets", "high", "--samples", "8", "--votes", "weighted:checker"],
}
COLUMNS = {
    "off": ("greedy", "off"),
    "low": ("greedy", "low"),
    "high": ("greedy", "high"),
    "high, one sample": ("sampled", "high"),
    "high, vote of 8": ("sampled", "high@8 majority"),
    "the same, weighed by the judge": ("judged", "high@8 weighted:checker"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "models", nargs="+", metavar="NAME=ADAPTER", help="without an adapter: the base model"
    )
    parser.add_argument("--sets", nargs="+", choices=[*CONFIGS, "GSM8K"], default=[*CONFIGS, "GSM8K"])
    parser.add_argument("--drawn", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--gsm8k", type=Path)
    parser.add_argument("--count", type=int, default=40, help="questions of each trained kind")
    parser.add_argument("--untouched", type=int, default=16, help="questions of GSM8K")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/served-smollm2.json"))
    parser.add_argument("--page", type=Path, default=Path("benchmarks/training-runs.md"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sets = {
            name: (_held_out_file(config, args.count, Path(folder)), args.count)
            for name, config in CONFIGS.items()
        }
        if args.gsm8k:
            sets["GSM8K"] = (args.gsm8k, args.untouched)
        sets = {name: data for name, data in sets.items() if name in args.sets}
        results = json.loads(args.json.read_text(encoding="utf-8")) if args.json.exists() else {}
        for name, _, file in (model.partition("=") for model in args.models):
            evaluated = _evaluate(Path(file) if file else None, sets, args.drawn, Path(folder) / name)
            for data, metrics in evaluated.items():
                earlier = results.setdefault(name, {}).get(data, [])
                others = [metric for metric in earlier if metric["drawn"] not in args.drawn]
                results[name][data] = [*others, *metrics]
    args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    table = _table(results)
    print(table)
    page = args.page.read_text(encoding="utf-8")
    head, tail = page.partition(BEGIN)[0], page.partition(END)[2]
    args.page.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", encoding="utf-8")


def _held_out_file(config: Path, count: int, folder: Path) -> Path:
    """Write a configuration's held-out questions, without those that selected a stage's best checkpoint."""
    path = folder / f"{config.stem}.jsonl"
    run = read_config(config)
    first = run.held_out.count if run.rl is not None and run.rl.best else 0
    problems = islice(held_out(run.held_out.sources, first + count), first, first + count)
    write_questions(path, problems)
    return path


def _evaluate(
    adapter: Path | None, sets: Mapping[str, tuple[Path, int]], ways: Sequence[str], directory: Path
) -> dict[str, list[dict[str, Any]]]:
    """Return the metrics of one model by data set, over all settings."""
    directory.mkdir()
    adapters = (adapter, JUDGE) if adapter else (JUDGE,)
    settings = load_settings(
        None, {}, embedded_adapters=adapters, scorers={CHECKER: checker()}, scorer_seconds=600
    )
    model = adapter.stem if adapter else SMOLLM2.name
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in sets}
    with serving_in_thread(create_app(settings)) as url:
        for data, (path, count) in sets.items():
            max_tokens = 96 if data in CONFIGS else 256
            common = ["--data", str(path), "--count", str(count), "--form", "any", "--url", f"{url}/v1"]
            common += ["--model", model]
            common += ["--max-tokens", str(max_tokens), "--stops", "none", "--concurrency", "2"]
            for name in ways:
                metrics = evaluate_gateway(directory / f"{data}-{name}.jsonl", [*common, *WAYS[name]])
                results[data] += [{"drawn": name, **metric} for metric in metrics]
    return results


def _table(results: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> str:
    lines = [
        f"| questions | model | {' | '.join(COLUMNS)} | thinking tokens at off, low, high |",
        "|---" * (len(COLUMNS) + 3) + "|",
    ]
    for data in (*CONFIGS, "GSM8K"):
        for model, sets in results.items():
            if data not in sets:
                continue
            metrics = {(metric["drawn"], metric["name"]): metric for metric in sets[data]}
            cells = [
                f"{metrics[column]['lenient']['percent']:.1f}" if column in metrics else "–"
                for column in COLUMNS.values()
            ]
            tokens = [
                f"{metrics['greedy', level]['reasoning']:.0f}" if ("greedy", level) in metrics else "–"
                for level in ("off", "low", "high")
            ]
            lines.append(f"| {data} | {model} | {' | '.join(cells)} | {', '.join(tokens)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
