"""Measure the grader: agreement with labels, speed against math-verify, the event loop under attack.

    python benchmarks/grader.py DATA [--results benchmarks/results/grader.json]

DATA is a directory with any of: qwen_math_rm_samples, gsm8k_model_solutions, math500 and
reasoning_gym_samples (.jsonl.gz, as their projects publish them). Missing files are skipped.
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
"""Tolerances of the data sets' own grading: 10^-3, by the task's default options."""

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


def records_of(data: Path, name: str) -> list[dict[str, Any]]:
    path = data / f"{name}.jsonl.gz"
    if not path.exists():
        return []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def cases(data: Path) -> Iterable[Case]:
    for record in records_of(data, "qwen_math_rm_samples"):
        for text, label in zip(record["code"], record["score"], strict=True):
            yield Case("qwen_math_rm_samples", text, record["gt"], label)
    for record in records_of(data, "gsm8k_model_solutions"):
        for sample in record.values():
            if isinstance(sample, dict):
                label = sample["is_correct"]
                yield Case("gsm8k_model_solutions", sample["solution"], record["ground_truth"], label)
    for record in records_of(data, "math500"):
        yield Case("math500", record["solution"], record["answer"], True)
    for record in records_of(data, "reasoning_gym_samples"):
        for sample in record["samples"]:
            if "<answer>" in sample["text"]:
                source = f"reasoning_gym/{record['task']}"
                yield Case(source, sample["text"], record["answer"], sample["score"] == 1.0)


def agreement(replies: list[Case], pool: WorkerPool) -> dict[str, Any]:
    """Count by data set how often grade and label agree, and list every disagreement.

    Each set is graded with its own tolerance; a set with a tolerance is graded exactly too.
    """
    table: dict[str, dict[str, Any]] = {}
    for case in replies:
        counts = table.setdefault(case.source, _empty())
        tolerance = TOLERANCE.get(case.source)
        _count(counts, case, pool, tolerance)
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
        parts = [table[source] for source in sources if source in table]
        if parts:
            table[name] = {
                key: sum(part[key] for part in parts) for key in ("replies", "agree", "asked_workers")
            } | {"disagreements": []}
    for counts in table.values():
        counts["agreement"] = round(counts["agree"] / counts["replies"], 4)
    return table


def _empty() -> dict[str, Any]:
    return {"replies": 0, "agree": 0, "asked_workers": 0, "disagreements": []}


def _count(counts: dict[str, Any], case: Case, pool: WorkerPool, tolerance: float | None) -> None:
    counts["replies"] += 1
    grade = verify(case.text, case.gold, tolerance=tolerance)
    if grade is None:
        counts["asked_workers"] += 1
        grade = verify(case.text, case.gold, pool, tolerance=tolerance)
    if grade is case.label:
        counts["agree"] += 1
        return
    answer = extract(case.text)
    shown = None if answer is None else answer.raw[:120]
    counts["disagreements"].append(
        {"gold": case.gold[-60:], "answer": shown, "verdict": grade, "label": case.label}
    )


def speed(texts: list[str]) -> dict[str, Any]:
    """Return medians per reply, on the same texts; fresh processes give both cold caches."""
    ours = _timed("ours", texts)
    theirs = _timed("math_verify", texts)
    return {
        "replies": len(texts),
        "ours_us": ours,
        "math_verify_parse_us": theirs,
        "times_faster_at_the_median": round(theirs["median"] / ours["median"], 1),
    }


def _timed(grader: str, texts: list[str]) -> dict[str, float]:
    process = subprocess.run(
        [sys.executable, __file__, "--time", grader],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(process.stdout)


def time_texts(grader: str) -> None:
    """Run the child side of `_timed`: read texts, print microseconds per text."""
    texts = json.load(sys.stdin)
    if grader == "ours":
        grade: Any = extract
    else:
        import logging

        from math_verify import parse as grade

        logging.disable(logging.CRITICAL)
    times = []
    for text in texts:
        start = time.perf_counter_ns()
        grade(text)
        times.append((time.perf_counter_ns() - start) / 1_000)
    times.sort()
    quantiles = {"median": 0.5, "p90": 0.9, "p99": 0.99}
    summary = {name: round(times[int(len(times) * share)], 1) for name, share in quantiles.items()}
    print(json.dumps(summary | {"mean": round(statistics.fmean(times), 1)}))


def served_lag(pool: WorkerPool, seconds: float) -> dict[str, Any]:
    """Run `loop_lag` with the event loop and interpreter settings of `thinkgate serve`."""
    yield_soon()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(loop_lag(pool, seconds))


async def loop_lag(pool: WorkerPool, seconds: float) -> dict[str, Any]:
    """Measure in milliseconds how late the event loop wakes, idle and while it grades hostile replies.

    Idle and hostile periods alternate, so that other work on the machine affects both.
    """
    slowest, grades = 0.0, []
    idle: list[float] = []
    hostile: list[float] = []

    async def attack() -> None:
        nonlocal slowest
        for text in HOSTILE:
            start = time.perf_counter()
            grades.append(await verify_async(text, r"\sqrt{3}+1", pool))
            slowest = max(slowest, time.perf_counter() - start)

    deadline = time.perf_counter() + 2 * seconds
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        hostile += await _lags(asyncio.create_task(attack()))
        idle += await _lags(asyncio.create_task(asyncio.sleep(time.perf_counter() - start)))
    lags = {
        name: (_quantile(idle, share), _quantile(hostile, share))
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }
    return {
        "idle_ms": {name: pair[0] for name, pair in lags.items()},
        "hostile_ms": {name: pair[1] for name, pair in lags.items()},
        "p99_ratio": round(lags["p99"][1] / lags["p99"][0], 2),
        "hostile_replies": len(grades),
        "slowest_reply_s": round(slowest, 3),
        "called_right": grades.count(True),
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


def vote_share(replies: list[Case]) -> dict[str, Any]:
    """Count how many comparisons of a vote (each reply with its question's first) need the workers."""
    first: dict[tuple[str, str], Any] = {}
    pairs = undecided = 0
    for case in replies:
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
    parser.add_argument("--results", type=Path, help="file for the results, as JSON")
    parser.add_argument("--every", type=int, default=8, help="time every n-th reply (math-verify is slow)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each loop measurement")
    parser.add_argument("--lag", action="store_true", help="measure only the event loop's lag; needs no data")
    parser.add_argument("--time", choices=("ours", "math_verify"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.time:
        time_texts(arguments.time)
        return
    if arguments.lag:
        with WorkerPool() as pool:
            print(json.dumps(served_lag(pool, arguments.seconds), indent=2))
        return
    replies = list(cases(arguments.data))
    with WorkerPool() as pool:
        table = agreement(replies, pool)
        lag = served_lag(pool, arguments.seconds)
    asked_workers = sum(counts["asked_workers"] for name, counts in table.items() if ", " not in name)
    results = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "agreement": table,
        "share_of_replies_that_ask_the_workers": round(asked_workers / len(replies), 5),
        "votes": vote_share(replies),
        "speed": speed([case.text for case in replies[:: arguments.every]]),
        "event_loop": lag,
    }
    for name, counts in table.items():
        print(f"{name:52} {counts['agree']:5}/{counts['replies']:5} = {counts['agreement']:.4f}")
        for disagreement in counts["disagreements"]:
            print("    gold {gold!r}, answer {answer!r}: {verdict}, label {label}".format(**disagreement))
    print(json.dumps({key: value for key, value in results.items() if key != "agreement"}, indent=2))
    if arguments.results:
        arguments.results.write_text(
            json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
