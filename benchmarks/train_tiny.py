"""Train the tiny model through all stages with several seeds, and compare with other uses of the same time.

    make train-tiny                                   # three seeds, two at a time, one thread each
    python -m benchmarks.train_tiny --seeds 0 --output runs/tiny

Three methods start from the same cold-started model and take the same wall time: reinforcement learning,
rejection sampling (its sampling included), and more of the cold start's own supervised steps. Metrics are
proportions of 200 held-out questions, measured in this process; `benchmarks.served_tiny` evaluates the served
models. The card and the curves of every stage are stored beside the results.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

CONFIG = Path("training/configs/tiny.toml")
RESULTS = Path("benchmarks/results/train-tiny.json")
BUDGETS = ("off", "low", "high")
BEGIN, END = "<!-- tiny:begin -->", "<!-- tiny:end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=Path("benchmarks/training-runs.md"))
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        _train_seed(args.one, args.output / f"seed-{args.one}")
        return
    start = time.monotonic()
    with ThreadPoolExecutor(args.workers) as pool:
        codes = list(pool.map(_starter(args), args.seeds))
    failed = [seed for seed, code in zip(args.seeds, codes, strict=True) if code]
    if failed:
        sys.exit(f"seeds that failed: {failed}")
    results = [json.loads((args.output / f"seed-{seed}" / "figures.json").read_text()) for seed in args.seeds]
    report = {
        "command": "python -m benchmarks.train_tiny",
        "minutes": round((time.monotonic() - start) / 60, 1),
        "workers": args.workers,
        "seeds": dict(zip(map(str, args.seeds), results, strict=True)),
    }
    args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    _copy_cards(args.output, args.seeds, args.json.with_suffix(""))
    table = _table(results)
    print(table)
    page = args.page.read_text(encoding="utf-8")
    head, tail = page.partition(BEGIN)[0], page.partition(END)[2]
    args.page.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", encoding="utf-8")


def _starter(args: argparse.Namespace) -> Callable[[int], int]:
    def start(seed: int) -> int:
        log = args.output / f"seed-{seed}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.train_tiny", "--one", str(seed)]
        command += ["--output", str(args.output)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        print(f"seed {seed}: training, see {log}", flush=True)
        with log.open("a", encoding="utf-8") as file:
            return subprocess.run(command, env=environment, stdout=file, stderr=file, check=False).returncode

    return start


def _train_seed(seed: int, output: Path) -> None:
    """Train one seed: the pipeline and the two comparisons; then measure every model."""
    from training.config import read_config
    from training.stages import pipeline, run_stage
    from training.stages.measure import measure
    from training.stages.stage import Run

    config = read_config(CONFIG, seed=seed, output=output, threads=1)
    start = time.monotonic()
    pipeline(config)
    minutes = (time.monotonic() - start) / 60
    cards = {name: json.loads((output / name / "card.json").read_text()) for name in config.pipeline}
    seconds = cards["rl"]["seconds"]
    models = {name: output / name / "model" for name in config.pipeline}

    # The learning rate falls to 0 over that time, as RL's does.
    timed = {
        "max_steps": 100_000,
        "max_seconds": seconds,
        "lr_scheduler_type": config.rl.lr_scheduler_type,
    }
    # Rejection sampling for as long as RL took, from the same cold-started model.
    comparison = output / "instead-rejection"
    _copy_stage(output / "cold-start", comparison / "cold-start")
    table = config.rejection.model_copy(
        update=timed | {"problems": 1200, "samples": 8, "keep": 4, "general": 0.0}
    )
    other = config.model_copy(
        update={"output": comparison, "pipeline": ("cold-start", "rejection"), "rejection": table}
    )
    models["rejection for RL's time"] = run_stage(other, "rejection")

    # More supervised steps on other chains of the teacher, for as long.
    comparison = output / "instead-sft"
    _copy_stage(output / "cold-start", comparison / "base")
    table = config.cold_start.model_copy(update=timed | {"target_accuracy": None})
    other = config.model_copy(
        update={
            "output": comparison,
            "pipeline": ("base", "cold-start"),
            "cold_start": table,
            "seed": config.seed + 1000,
        }
    )
    models["more cold start for RL's time"] = run_stage(other, "cold-start")

    with Run(config) as run:
        stage = run.stage("rl", config.rl)
        figures = {
            "minutes": round(minutes, 1),
            "rl_seconds": seconds,
            "ended": {name: card["ended"] for name, card in cards.items()},
            "models": {
                name: measure(stage, model, BUDGETS, voted=("high",)) for name, model in models.items()
            },
        }
    (output / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _copy_cards(output: Path, seeds: Sequence[int], target: Path) -> None:
    """Copy each stage's card and curves, and those of the methods compared with RL."""
    for seed in seeds:
        run = output / f"seed-{seed}"
        stages = {path.parent.name: path.parent for path in run.glob("*/card.json")}
        stages |= {"instead-rejection": run / "instead-rejection" / "rejection"}
        stages |= {"instead-sft": run / "instead-sft" / "cold-start"}
        for name, stage in stages.items():
            folder = target / f"seed-{seed}" / name
            folder.mkdir(parents=True, exist_ok=True)
            for file in ("card.json", "curves.svg"):
                shutil.copy(stage / file, folder / file)


def _copy_stage(stage: Path, target: Path) -> None:
    """Copy a finished stage into another run."""
    if not target.exists():
        target.mkdir(parents=True)
        shutil.copytree(stage / "model", target / "model")
        shutil.copy(stage / "card.json", target / "card.json")


def _table(results: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| model | off | low | high | high, one sample | high, vote of 8 | tokens low, high |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in results[0]["models"]:
        metrics = [seed["models"][name] for seed in results]
        cells = [
            _cell([seed["off"]["greedy"] for seed in metrics]),
            _cell([seed["low"]["greedy"] for seed in metrics]),
            _cell([seed["high"]["greedy"] for seed in metrics]),
            _cell([seed["high"]["sampled"] for seed in metrics]),
            _cell([seed["high"]["majority@8"] for seed in metrics]),
            ", ".join(
                f"{fmean(seed[level]['thinking'] for seed in metrics):.0f}" for level in ("low", "high")
            ),
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    """Return mean and standard deviation over seeds, in percent."""
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * fmean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
