"""Measures the grader: agreement with labels, speed beside math-verify, the event loop under attack.

    python benchmarks/grader.py DATA [--results benchmarks/results/grader.json]

DATA is a directory with any of: qwen_math_rm_samples, gsm8k_model_solutions, math500 and
reasoning_gym_samples (.jsonl.gz, as their projects publish them). What is missing is skipped.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import uvloop

from gateway.commands.serve import yield_soon
from scorers.answers import equivalent, extract, verify, verify_async
from scorers.grader.pool import WorkerPool

NUMERIC = (
    "basic_arithmetic chain_sum decimal_arithmetic gcd gsm_symbolic leg_counting number_sequence "
    "polynomial_equations products simple_equations"
)
TOLERANCE = {"reasoning_gym/decimal_arithmetic": 0.001}
"""What a data set's own marks accept beside the value: 10^-3, by the task's default options."""

HOSTILE = [
    r"\boxed{9^{9^{9}}}",
    r"\boxed{9^{9^{9^{9}}}}",
    "(" * 100_000,
    r"\boxed{" * 50_000,
    r"\boxed{" + "(" * 900 + ")" * 900 + "}",
    r"\boxed{" + "2^" * 300 + "2}",
    r"\boxed{" + "+".join(f"\\sin({i}x)" for i in range(60)) + "}",
    r"\boxed{(1+x)^{16}(1+y)^{16}(1+z)^{16}}",
    r"\boxed{\int_0^1 x^{99999} e^{x^{9^{9^{9}}}} \, dx}",
    r"\boxed{\prod_{n=1}^{\infty} (1+1/n^{2})}",
    "a" * 5_000_000,
    "answer is " * 100_000,
    "[" * 100_000 + "]" * 100_000,
    "\x00\x01the answer is \x02",
    "**" * 100_000,
    "answer to " + "a " * 100_000,
]


class Case(NamedTuple):
    """One reply: its data set, text, gold answer and label."""

    source: str
    text: str
    gold: str
    label: bool


def rows(data: Path, name: str) -> list[dict[str, Any]]:
    path = data / f"{name}.jsonl.gz"
    if not path.exists():
        return []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def cases(data: Path) -> Iterable[Case]:
    for row in rows(data, "qwen_math_rm_samples"):
        for text, label in zip(row["code"], row["score"], strict=True):
            yield Case("qwen_math_rm_samples", text, row["gt"], label)
    for row in rows(data, "gsm8k_model_solutions"):
        for sample in row.values():
            if isinstance(sample, dict):
                label = sample["is_correct"]
                yield Case("gsm8k_model_solutions", sample["solution"], row["ground_truth"], label)
    for row in rows(data, "math500"):
        yield Case("math500", row["solution"], row["answer"], True)
    for row in rows(data, "reasoning_gym_samples"):
        for sample in row["samples"]:
            if "<answer>" in sample["text"]:
                yield Case(
                    f"reasoning_gym/{row['task']}", sample["text"], row["answer"], sample["score"] == 1.0
                )


def agreement(found: list[Case], pool: WorkerPool) -> dict[str, Any]:
    """How often the verdict is the label, by data set, and every case where it is not.

    Each set is graded by its own stated rule; what has a tolerance, without it as well.
    """
    table: dict[str, dict[str, Any]] = {}
    for case in found:
        row = table.setdefault(case.source, _empty())
        tolerance = TOLERANCE.get(case.source)
        _count(row, case, pool, tolerance)
        if tolerance is not None:
            _count(table.setdefault(f"{case.source}, exactly", _empty()), case, pool, None)
    tasks = [f"reasoning_gym/{name}" for name in NUMERIC.split()]
    exact = [f"{name}, exactly" if name in TOLERANCE else name for name in tasks]
    without = [name for name in tasks if name not in TOLERANCE]
    for name, sources in (
        ("reasoning_gym, numeric tasks", tasks),
        ("reasoning_gym, numeric tasks, exactly", exact),
        ("reasoning_gym, numeric tasks without a tolerance", without),
    ):
        chosen = [table[source] for source in sources if source in table]
        if chosen:
            table[name] = {
                key: sum(row[key] for row in chosen) for key in ("replies", "agree", "asked_workers")
            } | {"disagreements": []}
    for row in table.values():
        row["agreement"] = round(row["agree"] / row["replies"], 4)
    return table


def _empty() -> dict[str, Any]:
    return {"replies": 0, "agree": 0, "asked_workers": 0, "disagreements": []}


def _count(row: dict[str, Any], case: Case, pool: WorkerPool, tolerance: float | None) -> None:
    row["replies"] += 1
    verdict = verify(case.text, case.gold, tolerance=tolerance)
    if verdict is None:
        row["asked_workers"] += 1
        verdict = verify(case.text, case.gold, pool, tolerance=tolerance)
    if verdict is case.label:
        row["agree"] += 1
        return
    answer = extract(case.text)
    shown = None if answer is None else answer.raw[:120]
    row["disagreements"].append(
        {"gold": case.gold[-60:], "answer": shown, "verdict": verdict, "label": case.label}
    )


def speed(texts: list[str]) -> dict[str, Any]:
    """Medians per reply, both in fresh processes, so with cold caches, on the same texts."""
    ours = _timed("ours", texts)
    theirs = _timed("math_verify", texts)
    return {
        "replies": len(texts),
        "ours_us": ours,
        "math_verify_parse_us": theirs,
        "times_faster_at_the_median": round(theirs["median"] / ours["median"], 1),
    }


def _timed(which: str, texts: list[str]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--time", which],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def time_texts(which: str) -> None:
    """Child side of `_timed`: reads texts, prints microseconds per text."""
    texts = json.load(sys.stdin)
    if which == "ours":
        grade: Any = extract
    else:
        import logging

        from math_verify import parse as grade

        logging.disable(logging.CRITICAL)
    spent = []
    for text in texts:
        start = time.perf_counter_ns()
        grade(text)
        spent.append((time.perf_counter_ns() - start) / 1_000)
    spent.sort()
    at = {"median": 0.5, "p90": 0.9, "p99": 0.99}
    figures = {name: round(spent[int(len(spent) * share)], 1) for name, share in at.items()}
    print(json.dumps(figures | {"mean": round(statistics.fmean(spent), 1)}))


def served_lag(pool: WorkerPool, seconds: float) -> dict[str, Any]:
    """`loop_lag` on the loop that `thinkgate serve` runs, with the interpreter set as it sets it."""
    yield_soon()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(loop_lag(pool, seconds))


async def loop_lag(pool: WorkerPool, seconds: float) -> dict[str, Any]:
    """How late the event loop wakes, idle and while hostile replies are verified; in milliseconds.

    Idle and hostile stretches take turns, so that what else the machine does falls on both.
    """
    slowest, verdicts = 0.0, []
    idle: list[float] = []
    hostile: list[float] = []

    async def attack() -> None:
        nonlocal slowest
        for text in HOSTILE:
            start = time.perf_counter()
            verdicts.append(await verify_async(text, r"\sqrt{3}+1", pool))
            slowest = max(slowest, time.perf_counter() - start)

    until = time.perf_counter() + 2 * seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        hostile += await _lags(asyncio.create_task(attack()))
        idle += await _lags(asyncio.create_task(asyncio.sleep(time.perf_counter() - start)))
    at = {
        name: (_quantile(idle, share), _quantile(hostile, share))
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }
    return {
        "idle_ms": {name: pair[0] for name, pair in at.items()},
        "hostile_ms": {name: pair[1] for name, pair in at.items()},
        "p99_ratio": round(at["p99"][1] / at["p99"][0], 2),
        "hostile_replies": len(verdicts),
        "slowest_reply_s": round(slowest, 3),
        "called_right": verdicts.count(True),
        "load_average": round(os.getloadavg()[0], 1),
    }


async def _lags(work: asyncio.Task[None]) -> list[float]:
    lags = []
    while not work.done():
        start = time.perf_counter()
        await asyncio.sleep(0.002)
        lags.append((time.perf_counter() - start - 0.002) * 1_000)
    await work
    return lags


def _quantile(values: list[float], share: float) -> float:
    return round(sorted(values)[int(len(values) * share)], 3)


def vote_share(found: list[Case]) -> dict[str, Any]:
    """Of the pairs a vote compares (each reply with its question's first), how many need the workers."""
    first: dict[tuple[str, str], Any] = {}
    pairs = undecided = 0
    for case in found:
        answer = extract(case.text)
        if answer is None:
            continue
        other = first.setdefault((case.source, case.gold), answer)
        pairs += 1
        undecided += equivalent(other, answer) is None
    return {"pairs": pairs, "undecided_without_workers": undecided, "share": round(undecided / pairs, 5)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?", help="directory of the data sets")
    parser.add_argument("--results", type=Path, help="where to write the figures as JSON")
    parser.add_argument("--every", type=int, default=8, help="time every n-th reply (math-verify is slow)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each loop measurement")
    parser.add_argument("--lag", action="store_true", help="only the event loop's lag; needs no data")
    parser.add_argument("--time", choices=("ours", "math_verify"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.time:
        time_texts(arguments.time)
        return
    if arguments.lag:
        with WorkerPool() as pool:
            print(json.dumps(served_lag(pool, arguments.seconds), indent=2))
        return
    found = list(cases(arguments.data))
    with WorkerPool() as pool:
        table = agreement(found, pool)
        lag = served_lag(pool, arguments.seconds)
    asked = sum(row["asked_workers"] for name, row in table.items() if ", " not in name)
    figures = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "agreement": table,
        "share_of_replies_that_ask_the_workers": round(asked / len(found), 5),
        "votes": vote_share(found),
        "speed": speed([case.text for case in found[:: arguments.every]]),
        "event_loop": lag,
    }
    for name, row in table.items():
        print(f"{name:52} {row['agree']:5}/{row['replies']:5} = {row['agreement']:.4f}")
        for each in row["disagreements"]:
            print("    gold {gold!r}, answer {answer!r}: {verdict}, label {label}".format(**each))
    print(json.dumps({key: value for key, value in figures.items() if key != "agreement"}, indent=2))
    if arguments.results:
        arguments.results.write_text(
            json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
