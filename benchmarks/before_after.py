"""Compare the speed of two checkouts: both run in turn in every round, so noise falls on both alike.

Each round starts both checkouts' own benchmarks in child processes, the order reversed every
other round. `overhead` gives the gateway's processor time for a request, `chunks` the time for
one chunk of a stream, and `grader` the time to extract the answer from one reply. A ratio is
the median over the rounds of after divided by before; over 1 is slower.

    git worktree add ../before COMMIT
    python -m benchmarks.before_after ../before . --data DATA --json benchmarks/results/before-after.json

`DATA` is the folder of data sets that `benchmarks/grader.py` reads; without it the grader is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.grader import cases
from benchmarks.servers import machine

__all__ = ["main"]

ALLOWED = 1.03
"""The largest ratio that counts as no slower, because of the machine's noise."""

Figures = dict[str, float]


def run(checkout: Path, *arguments: str, text: str | None = None) -> str:
    """Run this Python in a checkout, with that checkout's packages; return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env=environment,
        input=text,
        text=True,
        check=True,
        stdout=subprocess.PIPE,
    )
    return done.stdout


def overhead(checkout: Path, seconds: float) -> Figures:
    """Return microseconds of processor time for a request, by server and kind of request."""
    kinds = ("gateway", "gateway-vllm", "plain", "budget", "budget-stream")
    window = ("--seconds", str(seconds), "--rounds", "1", "--connections", "32")
    rows = report(checkout, "benchmarks.overhead", *window, "--only", *kinds)["medians"]
    return {f"overhead: {row['server']}, {row['request']}": row["cpu_us"] for row in rows}


def chunks(checkout: Path, rounds: int) -> Figures:
    """Return microseconds for a chunk of a stream, with nothing asked and with a forced limit."""
    rows = report(checkout, "benchmarks.chunks", "--rounds", str(rounds))["chunks"]
    return {
        f"chunks: {row['measured']}, {way}": row[f"{way}_us"] for row in rows for way in ("nothing", "forced")
    }


def grader(checkout: Path, texts: list[str]) -> Figures:
    """Return the mean microseconds that one reply's answer takes to extract, in a fresh process."""
    printed = run(checkout, "benchmarks/grader.py", "--time", "ours", text=json.dumps(texts))
    return {"grader: extract, mean": json.loads(printed)["mean"]}


def report(checkout: Path, module: str, *arguments: str) -> Any:
    """Run a benchmark module in a checkout; return the JSON file that it writes."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        run(checkout, "-m", module, *arguments, "--json", str(file))
        return json.loads(file.read_text())


def measure(checkout: Path, args: argparse.Namespace, texts: list[str]) -> Figures:
    figures = overhead(checkout, args.seconds) | chunks(checkout, args.chunk_rounds)
    return figures | grader(checkout, texts) if texts else figures


def compare(before: list[Figures], after: list[Figures]) -> list[dict[str, Any]]:
    """Return one row a figure: both medians, the median of the rounds' own ratios, and their range."""
    rows = []
    for name in before[0]:
        pairs = [(old[name], new[name]) for old, new in zip(before, after, strict=True)]
        ratios = sorted(new / old for old, new in pairs)
        rows.append(
            {
                "figure": name,
                "before_us": round(median(old for old, _ in pairs), 2),
                "after_us": round(median(new for _, new in pairs), 2),
                "ratio": round(median(ratios), 3),
                "range": [round(ratios[0], 3), round(ratios[-1], 3)],
            }
        )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title="microseconds before and after, and the median ratio of the rounds")
    for column in ("figure", "before", "after", "ratio", "range"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for row in rows:
        low, high = row["range"]
        mark = "" if row["ratio"] <= ALLOWED else " SLOWER"
        table.add_row(
            row["figure"],
            f"{row['before_us']:.2f}",
            f"{row['after_us']:.2f}",
            f"{row['ratio']:.3f}{mark}",
            f"{low:.2f} to {high:.2f}",
        )
    Console(width=120).print(table)


def main(argv: list[str] | None = None) -> int:
    """Measure both, print the table, write the JSON; return 1 where something became slower."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.before_after", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--data", type=Path, help="folder of the grader's data sets")
    parser.add_argument("--every", type=int, default=8, help="time every n-th reply of the data sets")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one window of overhead")
    parser.add_argument("--chunk-rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args(argv)
    sides = (args.before.resolve(), args.after.resolve())
    texts = [case.text for case in cases(args.data)][:: args.every] if args.data else []
    about = machine()
    figures: dict[Path, list[Figures]] = {side: [] for side in sides}
    for number in range(args.rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            figures[side].append(measure(side, args, texts))
    rows = compare(figures[sides[0]], figures[sides[1]])
    show(rows)
    if args.json:
        settings = {"rounds": args.rounds, "seconds": args.seconds, "replies": len(texts)}
        args.json.write_text(
            json.dumps({"machine": about, "settings": settings, "figures": rows}, indent=1) + "\n"
        )
    return int(any(row["ratio"] > ALLOWED for row in rows))


if __name__ == "__main__":
    sys.exit(main())
