"""`thinkgate replay FILE`: tries every vote and stopping rule on recorded samples."""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from gateway.commands.replay_plot import replay_chart
from gateway.recordings import grading
from gateway.recordings.grading import grade_recording
from policies.chart import ChartsUnavailable, require_charts
from policies.escalation import AutoPolicy
from policies.recordings import RecordingError, read_recording
from policies.replay import GradedQuestion, GradedSample, ReplayMetrics, ReplaySetting, pass_at, replay
from policies.stopping import VotePolicy, parse_stop
from policies.types import SamplingRequest
from policies.voting import parse_vote
from scorers.confidence import WINDOW, ConfidenceScorer
from scorers.grader.pool import LazyWorkerPool, PoolError

__all__ = ["add_parser", "compare", "run", "setting_of"]

DESCRIPTION = (
    "Replays recorded samples through votes and stopping rules, with the code that serves.\n\n"
    f"{(grading.__doc__ or '').partition(chr(10) * 2)[2]}\n"
    "Accuracies are percentages with 95% bootstrap intervals over the questions. Samples and\n"
    "tokens are means for one question."
)


def add_parser(subparsers: Any) -> None:
    """Add `replay` to the command line's subparsers."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "replay",
        help="try votes and stopping rules on recorded samples",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="recorded samples, one JSON object a line")
    parser.add_argument("--vote", default="", metavar="A,B", help="votes to replay beside the usual settings")
    parser.add_argument(
        "--stop", default="", metavar="A,B", help="stopping rules, as window-4, first-3 or auto"
    )
    parser.add_argument(
        "--scorer", default="recorded", metavar="NAME", help="none, recorded, or confidence[:<measure>]"
    )
    parser.add_argument(
        "--window", type=_natural, default=WINDOW, help="tokens over which confidence is averaged"
    )
    parser.add_argument("--samples", type=_natural, default=0, help="the most samples to draw (0: all)")
    parser.add_argument(
        "--threshold", type=float, default=0.95, help="the certainty at which a rule stops, in [0, 1]"
    )
    parser.add_argument(
        "--launch", choices=("waves", "all"), default="waves", help="start samples in waves or all at once"
    )
    parser.add_argument(
        "--shuffles", type=_natural, default=20, help="orders to average over (0: the recorded order)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--agreement",
        action="store_true",
        help="without right answers: measure agreement with the vote of all samples",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="also draw a chart of the results")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replay, print, and draw a chart on request. Return 2 if the recording or an argument can't be used."""
    try:
        if args.plot:
            _check_plot(args.plot)
        if not 0 <= args.threshold <= 1:
            raise ValueError(f"the threshold lies in [0, 1], unlike {args.threshold}")
        scorer, _, measure = args.scorer.partition(":")
        confidence = ConfidenceScorer(measure or "bottom", args.window)
        recording = read_recording(args.file)
        if recording.notice:
            print(f"thinkgate replay: {recording.notice}", file=sys.stderr)
        with LazyWorkerPool(2, seconds=3) as pool:  # nobody waits, and a busy machine must change no result
            questions = _with_scores(
                grade_recording(recording, confidence, pool=pool, agreement=args.agreement), scorer
            )
            metrics = compare(
                questions,
                _combinations(args.vote, args.stop),
                samples=args.samples,
                threshold=args.threshold,
                launch=args.launch,
                shuffles=args.shuffles,
                seed=args.seed,
            )
        if args.plot:
            args.plot.write_text(replay_chart(metrics), encoding="utf-8")
    except (ChartsUnavailable, PoolError, RecordingError, OSError, ValueError) as error:
        print(f"thinkgate replay: {error}", file=sys.stderr)
        return 2
    if args.json:
        rows = [{k: v if k == "name" else round(v, 3) for k, v in asdict(m).items()} for m in metrics]
        report = {
            "settings": rows,
            "questions": len(questions),
            "shuffles": args.shuffles,
            "measure": "agreement" if args.agreement else "accuracy",
            "unreadable_lines": len(recording.torn),
        }
        print(json.dumps(report))
    else:
        title = f"{len(questions)} questions, {args.shuffles or 'no'} shuffles"
        _print_table(metrics, title, "% agreeing" if args.agreement else "% right")
    return 0


def setting_of(
    vote: str, stop: str, sampling: SamplingRequest, launch: Literal["waves", "all"] = "waves"
) -> ReplaySetting:
    """Return a setting of one vote under one stopping rule; "window-<w>" sets the window, "auto" escalates.

    A setting that draws all samples is named after its vote, one that takes the majority after its rule.
    Raises ValueError for an unknown vote or rule.
    """
    name = stop if vote == "majority" and stop != "none" else vote if stop == "none" else f"{vote}+{stop}"
    sampling = replace(sampling, vote=parse_vote(vote))
    if stop == "auto":
        return ReplaySetting(name, replace(sampling, level="auto"), AutoPolicy())
    if width := re.fullmatch(r"window-([1-9]\d{0,5})", stop, re.ASCII):
        sampling, stop = replace(sampling, window=int(width[1])), "window"
    parse_stop(stop)
    return ReplaySetting(name, replace(sampling, stop=stop), VotePolicy(launch))


def compare(
    questions: Sequence[GradedQuestion],
    combinations: Iterable[tuple[str, str]] = (),
    *,
    samples: int = 0,
    threshold: float = 0.95,
    launch: Literal["waves", "all"] = "waves",
    shuffles: int = 20,
    seed: int = 0,
) -> list[ReplayMetrics]:
    """Return the metrics of pass@k, majority@k, the usual settings and further (vote, stop) combinations.

    At most `samples` (0: all) are drawn for each question; k runs over the powers of two. The last entry,
    "oracle", always picks a right sample if there is one.
    """
    cap = min(samples or sys.maxsize, max(len(question.samples) for question in questions))
    steps = [2**i for i in range(cap.bit_length())]
    usual = [("majority", stop) for stop in ("none", "adaptive", "window-3", "window-5")]
    if any(sample.score is not None for question in questions for sample in question.samples):
        usual += [(vote, "none") for vote in ("weighted", "best", "best-of-majority")]
    sampling = SamplingRequest(samples=samples, threshold=threshold)
    fewer = [
        ReplaySetting(f"majority@{k}", SamplingRequest(samples=k, stop="none")) for k in steps if 2 < k < cap
    ]
    settings = [
        setting_of(vote, stop, sampling, launch) for vote, stop in dict.fromkeys([*usual, *combinations])
    ]
    return [
        *(pass_at(questions, k, seed=seed) for k in steps),
        *replay(questions, [*fewer, *settings], shuffles=shuffles, seed=seed),
        pass_at(questions, cap, name="oracle", seed=seed),
    ]


def _check_plot(path: Path) -> None:
    """Raise ValueError for a name that isn't an SVG's, and ChartsUnavailable without matplotlib."""
    if path.suffix != ".svg":
        raise ValueError(f"the plot is an SVG, so its name must end in .svg, not {path.name!r}")
    require_charts()


def _combinations(votes: str, stops: str) -> Iterable[tuple[str, str]]:
    """Return every vote under every rule; by default the majority, and a rule that draws all samples."""
    return itertools.product((votes or "majority").split(","), (stops or "none").split(","))


def _with_scores(questions: list[GradedQuestion], scorer: str) -> list[GradedQuestion]:
    """Return the questions with the scorer's weights as their samples' scores. Raises ValueError."""
    weights: dict[str, Callable[[GradedSample], float | None]] = {
        "none": lambda sample: None,
        "recorded": lambda sample: sample.score,
        "confidence": lambda sample: sample.certainty,
    }
    if scorer not in weights:
        raise ValueError(f"unknown scorer {scorer!r}; allowed: {', '.join(weights)}")
    weight = weights[scorer]
    weighed = [replace(q, samples=tuple(replace(s, score=weight(s)) for s in q.samples)) for q in questions]
    if scorer == "confidence" and all(s.score is None for q in weighed for s in q.samples):
        raise ValueError("no sample has logprobs with at least two alternatives a token to weigh it by")
    return weighed


def _print_table(metrics: Sequence[ReplayMetrics], title: str, measure: str) -> None:
    full_tokens = next(row.tokens for row in metrics if row.name == "majority")
    table = Table(title=f"Replay: {title}")
    table.add_column("setting")
    for column in (measure, "95% interval", "samples", "tokens", "tokens saved"):
        table.add_column(column, justify="right")
    for row in metrics:
        saved = f"{100 * (1 - row.tokens / full_tokens):.0f}%" if full_tokens else ""
        table.add_row(
            row.name,
            f"{row.accuracy:.1f}",
            f"{row.low:.1f} - {row.high:.1f}",
            f"{row.samples:.2f}",
            f"{row.tokens:.0f}",
            saved,
        )
    Console().print(table)


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no natural number")
    return int(text)
