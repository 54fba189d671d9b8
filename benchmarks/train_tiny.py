"""Trains the tiny model through all stages, several seeds, and compares what else the time could have bought.

    make train-tiny                                   # three seeds, two at a time, one thread each
    python -m benchmarks.train_tiny --seeds 0 --output runs/tiny

From the same cold-started model three ways go on for the same wall time: reinforcement learning,
rejection sampling (its drawing counted), and more of the cold start's own supervised steps. Figures are
shares of 200 held-out questions, in this process; `benchmarks.served_tiny` asks the served models.
The card and the curves of every stage are put beside the figures.
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
    chosen = parser.parse_args()
    if chosen.one is not None:
        _one(chosen.one, chosen.output / f"seed-{chosen.one}")
        return
    began = time.monotonic()
    with ThreadPoolExecutor(chosen.workers) as pool:
        codes = list(pool.map(_start(chosen), chosen.seeds))
    failed = [seed for seed, code in zip(chosen.seeds, codes, strict=True) if code]
    if failed:
        sys.exit(f"seeds that failed: {failed}")
    found = [json.loads((chosen.output / f"seed-{s}" / "figures.json").read_text()) for s in chosen.seeds]
    result = {
        "command": "python -m benchmarks.train_tiny",
        "minutes": round((time.monotonic() - began) / 60, 1),
        "workers": chosen.workers,
        "seeds": dict(zip(map(str, chosen.seeds), found, strict=True)),
    }
    chosen.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _copy_cards(chosen.output, chosen.seeds, chosen.json.with_suffix(""))
    table = _table(found)
    print(table)
    page = chosen.page.read_text(encoding="utf-8")
    head, tail = page.partition(BEGIN)[0], page.partition(END)[2]
    chosen.page.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", encoding="utf-8")


def _start(chosen: argparse.Namespace) -> Callable[[int], int]:
    def start(seed: int) -> int:
        log = chosen.output / f"seed-{seed}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.train_tiny", "--one", str(seed)]
        command += ["--output", str(chosen.output)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        print(f"seed {seed}: training, see {log}", flush=True)
        with log.open("a", encoding="utf-8") as file:
            return subprocess.run(command, env=environment, stdout=file, stderr=file, check=False).returncode

    return start


def _one(seed: int, output: Path) -> None:
    """One seed: the pipeline, the two comparisons, and the figures of every model."""
    from training.config import read_config
    from training.stages import pipeline, run_stage
    from training.stages.measure import measure
    from training.stages.run import Run

    config = read_config(CONFIG, seed=seed, output=output, threads=1)
    began = time.monotonic()
    pipeline(config)
    minutes = (time.monotonic() - began) / 60
    cards = {name: json.loads((output / name / "card.json").read_text()) for name in config.pipeline}
    seconds = cards["rl"]["seconds"]
    models = {name: output / name / "model" for name in config.pipeline}

    # The rate falls to 0 over that time, as RL's does.
    clocked = {"steps": 100_000, "seconds": seconds, "decay": config.rl.decay}
    # Rejection sampling for as long as RL took, from the same cold-started model.
    beside = output / "instead-rejection"
    _lend(output / "cold-start", beside / "cold-start")
    table = config.rejection.model_copy(
        update=clocked | {"rows": 1200, "samples": 8, "keep": 4, "general": 0.0}
    )
    other = config.model_copy(
        update={"output": beside, "pipeline": ("cold-start", "rejection"), "rejection": table}
    )
    models["rejection for RL's time"] = run_stage(other, "rejection")

    # More supervised steps on the teacher's chains, other ones than before, for as long.
    beside = output / "instead-sft"
    _lend(output / "cold-start", beside / "base")
    table = config.cold_start.model_copy(update=clocked | {"until": None})
    other = config.model_copy(
        update={
            "output": beside,
            "pipeline": ("base", "cold-start"),
            "cold_start": table,
            "seed": config.seed + 1000,
        }
    )
    models["more cold start for RL's time"] = run_stage(other, "cold-start")

    with Run(config) as run:
        stage = run.stage("rl")
        figures = {
            "minutes": round(minutes, 1),
            "rl_seconds": seconds,
            "ended": {name: card["ended"] for name, card in cards.items()},
            "models": {
                name: measure(stage, model, BUDGETS, voted=("high",)) for name, model in models.items()
            },
        }
    (output / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _copy_cards(output: Path, seeds: Sequence[int], place: Path) -> None:
    """Each stage's card and curves; of the comparisons, those of what was done in RL's stead."""
    for seed in seeds:
        run = output / f"seed-{seed}"
        stages = {path.parent.name: path.parent for path in run.glob("*/card.json")}
        stages |= {"instead-rejection": run / "instead-rejection" / "rejection"}
        stages |= {"instead-sft": run / "instead-sft" / "cold-start"}
        for name, stage in stages.items():
            folder = place / f"seed-{seed}" / name
            folder.mkdir(parents=True, exist_ok=True)
            for file in ("card.json", "curves.svg"):
                shutil.copy(stage / file, folder / file)


def _lend(stage: Path, place: Path) -> None:
    """Makes a finished stage known to another run."""
    if not place.exists():
        place.mkdir(parents=True)
        shutil.copytree(stage / "model", place / "model")
        shutil.copy(stage / "card.json", place / "card.json")


def _table(found: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| model | off | low | high | high, one sample | high, vote of 8 | tokens low, high |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in found[0]["models"]:
        rows = [seed["models"][name] for seed in found]
        cells = [
            _cell([row["off"]["greedy"] for row in rows]),
            _cell([row["low"]["greedy"] for row in rows]),
            _cell([row["high"]["greedy"] for row in rows]),
            _cell([row["high"]["sampled"] for row in rows]),
            _cell([row["high"]["majority@8"] for row in rows]),
            ", ".join(f"{fmean(row[level]['thinking'] for row in rows):.0f}" for level in ("low", "high")),
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds, in percent."""
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * fmean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
