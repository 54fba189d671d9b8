"""What each technique brings: RL from one cold-started tiny model, one switch changed at a time.

    python -m benchmarks.ablations_tiny --runs runs/tiny --seeds 0 1 2

Needs the runs of `make train-tiny`: every variant of a seed starts from that seed's cold-started model and
makes the same number of steps. Figures are shares of the held-out questions, at the budget "high".
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
"""By name: what differs from the first."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/ablations-tiny.json"))
    parser.add_argument("--page", type=Path, default=Path("benchmarks/training-runs.md"))
    parser.add_argument("--one", nargs=2, metavar=("SEED", "VARIANT"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        _one(chosen.runs, int(chosen.one[0]), chosen.one[1], chosen.steps)
        return
    jobs = list(product(chosen.seeds, VARIANTS))

    def start(job: tuple[int, str]) -> int:
        seed, name = job
        if (_place(chosen.runs, seed, name) / "figures.json").exists():
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
        command += ["--runs", str(chosen.runs), "--steps", str(chosen.steps)]
        print(f"seed {seed}: {name}", flush=True)
        return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode

    with ThreadPoolExecutor(chosen.workers) as pool:
        codes = list(pool.map(start, jobs))
    if failed := [job for job, code in zip(jobs, codes, strict=True) if code]:
        sys.exit(f"failed: {failed}")
    found = {
        name: [json.loads((_place(chosen.runs, s, name) / "figures.json").read_text()) for s in chosen.seeds]
        for name in VARIANTS
    }
    chosen.json.write_text(json.dumps({"steps": chosen.steps, "variants": found}, indent=1) + "\n")
    table = _table(found)
    print(table)
    page = chosen.page.read_text(encoding="utf-8")
    head, tail = page.partition(BEGIN)[0], page.partition(END)[2]
    chosen.page.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", encoding="utf-8")


def _place(runs: Path, seed: int, name: str) -> Path:
    return runs / f"seed-{seed}" / "ablations" / name.replace(" ", "-").replace(",", "")


def _one(runs: Path, seed: int, name: str, steps: int) -> None:
    """One variant of one seed."""
    from training.config import RlTable, read_config
    from training.stages import run_stage
    from training.stages.measure import measure
    from training.stages.stage import Run

    place = _place(runs, seed, name)
    start = place / "cold-start"
    if not start.exists():
        start.mkdir(parents=True)
        shutil.copytree(runs / f"seed-{seed}" / "cold-start" / "model", start / "model")
        shutil.copy(runs / f"seed-{seed}" / "cold-start" / "card.json", start / "card.json")
    config = read_config(CONFIG, seed=seed, output=place, threads=1)
    assert config.rl is not None
    table = RlTable.model_validate(
        {**config.rl.model_dump(), "max_steps": steps, "eval_steps": 25, **VARIANTS[name]}
    )
    config = config.model_copy(update={"pipeline": ("cold-start", "rl"), "rl": table})
    model = run_stage(config, "rl")
    card = json.loads((place / "rl" / "card.json").read_text(encoding="utf-8"))
    with Run(config) as run:
        figures = measure(run.stage("rl", table), model, ["high"], voted=("high",))["high"]
    told = {**figures, "seconds": card["seconds"], "ended": card["ended"]}
    (place / "figures.json").write_text(json.dumps(told) + "\n")


def _table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    lines = [
        "| variant | greedy | one sample | vote of 8 | thinking tokens | processor seconds |",
        "|---|---|---|---|---|---|",
    ]
    for name, seeds in found.items():
        shares = [
            f"{100 * fmean(each[figure] for each in seeds):.1f} ± {_interval(seeds, figure):.1f}"
            for figure in ("greedy", "sampled", "majority@8")
        ]
        tokens = fmean(each["thinking"] for each in seeds)
        seconds = fmean(each["seconds"] for each in seeds)
        lines.append(f"| {name} | {' | '.join(shares)} | {tokens:.1f} | {seconds:.0f} |")
    return "\n".join(lines)


def _interval(seeds: Sequence[Mapping[str, float]], figure: str) -> float:
    """Half the 95% interval of the mean over seeds, by Student's t (3 seeds: 4.30), in percent."""
    quantile = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}.get(len(seeds), 1.96)
    if len(seeds) < 2:
        return float("nan")
    return 100 * quantile * stdev(each[figure] for each in seeds) / len(seeds) ** 0.5


if __name__ == "__main__":
    main()
