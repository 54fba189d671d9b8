"""`thinkgate replay FILE`: what every vote and stopping rule makes of recorded samples."""

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

from gateway.commands.replay_plot import svg
from gateway.recordings import reader as recording
from gateway.recordings.reader import RecordingError, read_questions
from policies.escalation import AutoPolicy
from policies.replay import Question, Recorded, ReplayFigure, ReplaySetting, pass_at, replay
from policies.stopping import VotePolicy, parse_stop
from policies.types import SamplingRequest
from policies.voting import parse_vote
from scorers.confidence import WINDOW, ConfidenceScorer
from scorers.grader.pool import LazyWorkerPool, PoolError

__all__ = ["add_parser", "compare", "run", "setting_of"]

DESCRIPTION = (
    "Replays recorded samples through votes and stopping rules, with the code that serves.\n\n"
    f"{(recording.__doc__ or '').partition(chr(10) * 2)[2]}\n"
    "Accuracies are percentages with 95% bootstrap intervals over the questions; samples and\n"
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
    parser.add_argument("file", type=Path, metavar="FILE", help="recorded samples, a JSON object a line")
    parser.add_argument("--vote", default="", metavar="A,B", help="votes to replay beside the usual settings")
    parser.add_argument(
        "--stop", default="", metavar="A,B", help="stopping rules, as window-4, first-3 or auto"
    )
    parser.add_argument(
        "--scorer", default="recorded", metavar="NAME", help="none, recorded, or confidence[:<measure>]"
    )
    parser.add_argument("--window", type=_natural, default=WINDOW, help="tokens in a confidence group")
    parser.add_argument("--samples", type=_natural, default=0, help="most samples to draw (0: all there are)")
    parser.add_argument("--threshold", type=float, default=0.95, help="how sure a rule has to be, in [0, 1]")
    parser.add_argument("--launch", choices=("waves", "all"), default="waves", help="how samples are started")
    parser.add_argument(
        "--shuffles", type=_natural, default=20, help="orders to average (0: the recorded one)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--agreement",
        action="store_true",
        help="without right answers: agreement with the vote of all samples",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="also draw the figures")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replay, print, and plot where asked; 2 where the recording or an argument can't be used."""
    try:
        if args.plot and args.plot.suffix != ".svg":
            raise ValueError(f"the plot is an SVG, so its name must end in .svg, not {args.plot.name!r}")
        if not 0 <= args.threshold <= 1:
            raise ValueError(f"the threshold lies in [0, 1], unlike {args.threshold}")
        scorer, _, measure = args.scorer.partition(":")
        sureness = ConfidenceScorer(measure or "bottom", args.window)
        with LazyWorkerPool(2, seconds=3) as pool:  # nobody waits, and a busy machine may change no figure
            questions = _weigh(
                read_questions(args.file, sureness, pool=pool, agreement=args.agreement), scorer
            )
            figures = compare(
                questions,
                _asked(args.vote, args.stop),
                samples=args.samples,
                threshold=args.threshold,
                launch=args.launch,
                shuffles=args.shuffles,
                seed=args.seed,
            )
        if args.plot:
            args.plot.write_text(svg(figures), encoding="utf-8")
    except (PoolError, RecordingError, OSError, ValueError) as error:
        print(f"thinkgate replay: {error}", file=sys.stderr)
        return 2
    if args.json:
        rows = [{k: v if k == "name" else round(v, 3) for k, v in asdict(f).items()} for f in figures]
        told = {"settings": rows, "questions": len(questions), "shuffles": args.shuffles}
        print(json.dumps(told | {"measure": "agreement" if args.agreement else "accuracy"}))
    else:
        title = f"{len(questions)} questions, {args.shuffles or 'no'} shuffles"
        _print_table(figures, title, "% agreeing" if args.agreement else "% right")
    return 0


def setting_of(
    vote: str, stop: str, sampling: SamplingRequest, launch: Literal["waves", "all"] = "waves"
) -> ReplaySetting:
    """One vote under one stopping rule; "window-<w>" sets the window, "auto" escalates.

    The vote alone names a setting that draws all, the rule alone one that takes the
    majority. Raises ValueError for an unknown vote or rule.
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
    questions: Sequence[Question],
    asked: Iterable[tuple[str, str]] = (),
    *,
    samples: int = 0,
    threshold: float = 0.95,
    launch: Literal["waves", "all"] = "waves",
    shuffles: int = 20,
    seed: int = 0,
) -> list[ReplayFigure]:
    """The figures of pass@k, majority@k, the usual settings, and the (vote, stop) pairs asked for.

    At most `samples` (0: all) are drawn for each question; k runs over the powers of two.
    The last figure, "oracle", is what always picking a right sample would reach.
    """
    most = min(samples or sys.maxsize, max(len(question.samples) for question in questions))
    steps = [2**i for i in range(most.bit_length())]
    usual = [("majority", stop) for stop in ("none", "adaptive", "window-3", "window-5")]
    if any(each.score is not None for question in questions for each in question.samples):
        usual += [(vote, "none") for vote in ("weighted", "best", "best-of-majority")]
    sampling = SamplingRequest(samples=samples, threshold=threshold)
    fewer = [
        ReplaySetting(f"majority@{k}", SamplingRequest(samples=k, stop="none")) for k in steps if 2 < k < most
    ]
    settings = [setting_of(vote, stop, sampling, launch) for vote, stop in dict.fromkeys([*usual, *asked])]
    return [
        *(pass_at(questions, k, seed=seed) for k in steps),
        *replay(questions, [*fewer, *settings], shuffles=shuffles, seed=seed),
        pass_at(questions, most, name="oracle", seed=seed),
    ]


def _asked(votes: str, stops: str) -> Iterable[tuple[str, str]]:
    """Every vote named under every rule named; the majority, or all samples, where none is."""
    return itertools.product((votes or "majority").split(","), (stops or "none").split(","))


def _weigh(questions: list[Question], scorer: str) -> list[Question]:
    """The questions with the scorer's weights as their samples' scores. Raises ValueError."""
    weights: dict[str, Callable[[Recorded], float | None]] = {
        "none": lambda each: None,
        "recorded": lambda each: each.score,
        "confidence": lambda each: each.sureness,
    }
    if scorer not in weights:
        raise ValueError(f"unknown scorer {scorer!r}; allowed: {', '.join(weights)}")
    weight = weights[scorer]
    weighed = [replace(q, samples=tuple(replace(s, score=weight(s)) for s in q.samples)) for q in questions]
    if scorer == "confidence" and all(s.score is None for q in weighed for s in q.samples):
        raise ValueError("no sample has logprobs with at least two alternatives a token to weigh it by")
    return weighed


def _print_table(figures: Sequence[ReplayFigure], title: str, measure: str) -> None:
    full = next(figure.tokens for figure in figures if figure.name == "majority")
    table = Table(title=f"Replay: {title}")
    table.add_column("setting")
    for column in (measure, "95% interval", "samples", "tokens", "tokens saved"):
        table.add_column(column, justify="right")
    for figure in figures:
        saved = f"{100 * (1 - figure.tokens / full):.0f}%" if full else ""
        table.add_row(
            figure.name,
            f"{figure.accuracy:.1f}",
            f"{figure.low:.1f} - {figure.high:.1f}",
            f"{figure.samples:.2f}",
            f"{figure.tokens:.0f}",
            saved,
        )
    Console().print(table)


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no natural number")
    return int(text)
