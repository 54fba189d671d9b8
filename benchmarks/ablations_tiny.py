"""Measure what each technique brings: RL from one cold-started tiny model, one option changed at a time.

    python -m benchmarks.ablations_tiny --runs runs/tiny --seeds 0 1 2

Needs the runs of `make train-tiny`: every variant of a seed starts from that seed's cold-started model and
trains the same number of steps. Metrics are proportions of the held-out questions, at the budget "high".
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

CONFIG = Path("training/configs/tiny.toml")
BEGIN, END = "<!-- ablations:begin -->", "<!-- ablations:end -->"
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "group advantages": {},
    "online filter": {"rounds": 2},
    "batch advantages": {"scale_rewards": "batch"},
    "plain advantages": {"scale_rewards": "none"},
    "KL 0.04": {"beta": 0.04},
    "length penalty 0.3": {"rewards": {"format": 0.1, "short": 0.3}},
}
"""Variants by name, as differences from the first."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/ablations-tiny.json"))
    parser.add_argument("--page", type=Path, default=Path("benchmarks/training-runs.md"))
    parser.add_argument("--one", nargs=2, metavar=("SEED", "VARIANT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        _train_variant(args.runs, int(args.one[0]), args.one[1], args.steps)
        return
    variants = list(product(args.seeds, VARIANTS))

    def start(variant: tuple[int, str]) -> int:
        seed, name = variant
        if (_directory(args.runs, seed, name) / "figures.json").exists():
            return 0
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "benchmarks.ablations_tiny",
            "--one",
            str(seed),
            name,
        ]
        command += ["--runs", str(args.runs), "--steps", str(args.steps)]
        print(f"seed {seed}: {name}", flush=True)
        return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode

    with ThreadPoolExecutor(args.workers) as pool:
        codes = list(pool.map(start, variants))
    if failed := [variant for variant, code in zip(variants, codes, strict=True) if code]:
        sys.exit(f"failed: {failed}")
    metrics = {
        name: [
            json.loads((_directory(args.runs, seed, name) / "figures.json").read_text())
            for seed in args.seeds
        ]
        for name in VARIANTS
    }
    args.json.write_text(json.dumps({"steps": args.steps, "variants": metrics}, indent=1) + "\n")
    table = _table(metrics)
    print(table)
    page = args.page.read_text(encoding="utf-8")
    head, tail = page.partition(BEGIN)[0], page.partition(END)[2]
    args.page.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", encoding="utf-8")


def _directory(runs: Path, seed: int, name: str) -> Path:
    return runs / f"seed-{seed}" / "ablations" / name.replace(" ", "-").replace(",", "")


def _train_variant(runs: Path, seed: int, name: str, steps: int) -> None:
    """Train and measure one variant of one seed."""
    from training.config import RlTable, read_config
    from training.stages import run_stage
    from training.stages.measure import measure
    from training.stages.stage import Run

    directory = _directory(runs, seed, name)
    start = directory / "cold-start"
    if not start.exists():
        start.mkdir(parents=True)
        shutil.copytree(runs / f"seed-{seed}" / "cold-start" / "model", start / "model")
        shutil.copy(runs / f"seed-{seed}" / "cold-start" / "card.json", start / "card.json")
    config = read_config(CONFIG, seed=seed, output=directory, threads=1)
    assert config.rl is not None
    changes = {"max_steps": steps, "eval_steps": 25, **VARIANTS[name]}
    table = RlTable.model_validate({**config.rl.model_dump(), **changes})
    config = config.model_copy(update={"pipeline": ("cold-start", "rl"), "rl": table})
    model = run_stage(config, "rl")
    card = json.loads((directory / "rl" / "card.json").read_text(encoding="utf-8"))
    with Run(config) as run:
        figures = measure(run.stage("rl", table), model, ["high"], voted=("high",))["high"]
    metrics = {**figures, "seconds": card["seconds"], "ended": card["ended"]}
    (directory / "figures.json").write_text(json.dumps(metrics) + "\n")


def _table(metrics: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    lines = [
        "| variant | greedy | one sample | vote of 8 | thinking tokens | processor seconds |",
        "|---|---|---|---|---|---|",
    ]
    for name, seeds in metrics.items():
        shares = [
            f"{100 * fmean(seed[metric] for seed in seeds):.1f} ± {_half_interval(seeds, metric):.1f}"
            for metric in ("greedy", "sampled", "majority@8")
        ]
        tokens = fmean(seed["thinking"] for seed in seeds)
        seconds = fmean(seed["seconds"] for seed in seeds)
        lines.append(f"| {name} | {' | '.join(shares)} | {tokens:.1f} | {seconds:.0f} |")
    return "\n".join(lines)


def _half_interval(seeds: Sequence[Mapping[str, float]], metric: str) -> float:
    """Return half the 95% interval of the mean over seeds, by Student's t (3 seeds: 4.30), in percent."""
    quantile = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}.get(len(seeds), 1.96)
    if len(seeds) < 2:
        return float("nan")
    return 100 * quantile * stdev(seed[metric] for seed in seeds) / len(seeds) ** 0.5


if __name__ == "__main__":
    main()
