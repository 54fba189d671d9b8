"""Asks SmolLM2-135M before and after its training, through the gateway, served by the embedded engine.

    python -m benchmarks.served_smollm2 base= cold-start=FILE rl=gateway/demo/smollm2-reasoner.gguf \\
        --gsm8k test.jsonl.gz

What is asked takes the place of what was asked before of the same model in the same way; the rest of the
figures stays, so that one model, one set (`--sets`) or one way (`--drawn`) can be asked at a time. All models
get the same questions with the same seeds: new ones of the kinds that were imitated, longer sums, and
GSM8K's, which were not trained. Greedily at each budget; at temperature 1 with one sample and with the
majority of 8; and with votes of 8 that the demo's trained judge weighs, an adapter beside the model's own.
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
"""Whose held-out questions are asked."""
BEGIN, END = "<!-- smollm2:begin -->", "<!-- smollm2:end -->"
ASKED: Mapping[str, Sequence[str]] = {
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
    parser.add_argument("models", nargs="+", metavar="NAME=ADAPTER", help="no adapter: the base model")
    parser.add_argument("--sets", nargs="+", choices=[*CONFIGS, "GSM8K"], default=[*CONFIGS, "GSM8K"])
    parser.add_argument("--drawn", nargs="+", choices=list(ASKED), default=list(ASKED))
    parser.add_argument("--gsm8k", type=Path)
    parser.add_argument("--count", type=int, default=40, help="questions of each trained kind")
    parser.add_argument("--untouched", type=int, default=16, help="questions of GSM8K")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/served-smollm2.json"))
    parser.add_argument("--page", type=Path, default=Path("benchmarks/training-runs.md"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sets = {
            name: (_written(config, chosen.count, Path(folder)), chosen.count)
            for name, config in CONFIGS.items()
        }
        if chosen.gsm8k:
            sets["GSM8K"] = (chosen.gsm8k, chosen.untouched)
        sets = {name: asked for name, asked in sets.items() if name in chosen.sets}
        found = json.loads(chosen.json.read_text(encoding="utf-8")) if chosen.json.exists() else {}
        for name, _, file in (given.partition("=") for given in chosen.models):
            asked = _ask(Path(file) if file else None, sets, chosen.drawn, Path(folder) / name)
            for data, told in asked.items():
                before = found.setdefault(name, {}).get(data, [])
                kept = [figure for figure in before if figure["drawn"] not in chosen.drawn]
                found[name][data] = [*kept, *told]
    chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    table = _table(found)
    print(table)
    page = chosen.page.read_text(encoding="utf-8")
    head, tail = page.partition(BEGIN)[0], page.partition(END)[2]
    chosen.page.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", encoding="utf-8")


def _written(config: Path, count: int, folder: Path) -> Path:
    """A configuration's held-out questions as a file, without those that chose a stage's best weights."""
    path = folder / f"{config.stem}.jsonl"
    run = read_config(config)
    first = run.held_out.count if run.rl is not None and run.rl.best else 0
    rows = islice(held_out(run.held_out.sources, first + count), first, first + count)
    write_questions(path, rows)
    return path


def _ask(
    adapter: Path | None, sets: Mapping[str, tuple[Path, int]], drawn: Sequence[str], place: Path
) -> dict[str, list[dict[str, Any]]]:
    """The figures of one model by data set, over all settings."""
    place.mkdir()
    adapters = (adapter, JUDGE) if adapter else (JUDGE,)
    settings = load_settings(
        None, {}, embedded_adapters=adapters, scorers={CHECKER: checker()}, scorer_seconds=600
    )
    model = adapter.stem if adapter else SMOLLM2.name
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sets}
    with serving_in_thread(create_app(settings)) as url:
        for data, (path, count) in sets.items():
            most = 96 if data in CONFIGS else 256
            common = ["--data", str(path), "--count", str(count), "--form", "any", "--url", f"{url}/v1"]
            common += ["--model", model]
            common += ["--max-tokens", str(most), "--stops", "none", "--concurrency", "2"]
            for name in drawn:
                told = evaluate_gateway(place / f"{data}-{name}.jsonl", [*common, *ASKED[name]])
                found[data] += [{"drawn": name, **figure} for figure in told]
    return found


def _table(found: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> str:
    lines = [
        f"| questions | model | {' | '.join(COLUMNS)} | thinking tokens at off, low, high |",
        "|---" * (len(COLUMNS) + 3) + "|",
    ]
    for data in (*CONFIGS, "GSM8K"):
        for model, sets in found.items():
            if data not in sets:
                continue
            told = {(each["drawn"], each["name"]): each for each in sets[data]}
            cells = [
                f"{told[column]['lenient']['percent']:.1f}" if column in told else "–"
                for column in COLUMNS.values()
            ]
            tokens = [
                f"{told['greedy', level]['reasoning']:.0f}" if ("greedy", level) in told else "–"
                for level in ("off", "low", "high")
            ]
            lines.append(f"| {data} | {model} | {' | '.join(cells)} | {', '.join(tokens)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
