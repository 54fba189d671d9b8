"""`thinkgate eval`: a data set asked of a gateway over a grid of settings; accuracy against cost.

Speaks HTTP only, so that what is measured is what clients get. Replies are appended to a
file as they come; the same command goes on where it stopped, and asks only what is missing.
Two readings are scored: strict takes an answer only in the form that was asked for, lenient
is the gateway's own grader, which finds it in any.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from training.data.problems import DataError, EvaluationProblem, choose, digest, gym_problems, read_problems
from training.evaluation.answer_forms import ANSWER_FORMS, chat_messages
from training.evaluation.client import RequestFailed, open_client
from training.evaluation.gateway_process import GatewayStartFailed, run_gateway
from training.evaluation.metrics import SettingMetrics, pareto_frontier, summarise
from training.evaluation.plots import picture
from training.evaluation.replies import ReplyLog, ReplyLogError, open_reply_log
from training.evaluation.runner import EvaluationFailed, EvaluationRequest, evaluate_all
from training.evaluation.settings import EvaluationSetting, setting_grid
from training.evaluation.table import metrics_table

__all__ = ["main"]

_INTERRUPTED = 130  # the shell's status for a command that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Asks, scores, prints and draws; 1 where replies are missing, 2 where the arguments can't be used."""
    args = _parser().parse_args(arguments)
    try:
        plan = _plan(args)
    except (DataError, ValueError) as error:
        return _told(error, 2)
    try:
        with open_reply_log(plan.out, plan.about) as replies:
            failed = _answer(plan, replies, args)
            return _report(plan, replies, args) or (1 if failed else 0)
    except ReplyLogError as error:
        return _told(error, 2)
    except (RequestFailed, EvaluationFailed, GatewayStartFailed, OSError) as error:
        return _told(error, 1)
    except KeyboardInterrupt:
        return _told(f"stopped; the same command goes on from {plan.out}", _INTERRUPTED)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is asked (`chats` by problem id), at which settings, and `about`, all that bears on a reply."""

    problems: Sequence[EvaluationProblem]
    chats: Mapping[str, list[dict[str, str]]]
    seeds: Mapping[str, int]
    settings: Sequence[EvaluationSetting]
    about: Mapping[str, Any]
    out: Path

    def body(self, problem: EvaluationProblem, model: str) -> dict[str, Any]:
        """The chat request; every problem has seeds of its own, the same at all settings."""
        body = {"model": model, "messages": self.chats[problem.id], "temperature": self.about["temperature"]}
        if self.about["max_tokens"]:
            body["max_tokens"] = self.about["max_tokens"]
        return {**body, "seed": self.seeds[problem.id]}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="thinkgate eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = parser.add_argument_group("data, one of").add_mutually_exclusive_group(required=True)
    data.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="JSON lines: question or problem, and answer; may be gzipped",
    )
    data.add_argument(
        "--task", metavar="NAME", help="a reasoning-gym task, as chain_sum or chain_sum:max_terms=2"
    )
    parser.add_argument("--count", type=int, default=0, help="questions (all of a file, 50 of a task)")
    parser.add_argument("--seed", type=int, default=1, help="which questions, and how samples are drawn")
    parser.add_argument("--shots", type=int, default=0, help="other questions shown with their answers (0)")
    parser.add_argument(
        "--form", choices=ANSWER_FORMS, default="boxed", help="how the answer is asked for (boxed)"
    )
    what = parser.add_argument_group("the grid, each a list with commas")
    what.add_argument("--budgets", default="off", help="levels, numbers of tokens, auto, or default (off)")
    what.add_argument("--samples", default="1", help="numbers of samples (1)")
    what.add_argument("--votes", default="majority", help="votes, also with a scorer: weighted:rm (majority)")
    what.add_argument("--stops", default="adaptive", help="stopping rules (adaptive)")
    how = parser.add_argument_group("asking")
    how.add_argument("--url", help="a running gateway, as http://127.0.0.1:8000/v1 (else one is started)")
    how.add_argument("--serve", metavar="COMMAND", help="starts a gateway and prints its address")
    how.add_argument("--model", help="the model's name (the first that is served)")
    how.add_argument("--temperature", type=float, default=0.7)
    how.add_argument("--max-tokens", type=int, default=0, help="cap on a sample, thinking included (none)")
    how.add_argument("--concurrency", type=int, default=4, help="questions in work at once (4)")
    how.add_argument("--timeout", type=float, default=600.0, help="seconds for one question (600)")
    says = parser.add_argument_group("results")
    says.add_argument("--out", type=Path, help="the replies (eval-<data>.jsonl)")
    says.add_argument("--summary", type=Path, help="the figures (beside the replies, .json)")
    says.add_argument("--plot", type=Path, help="the picture (beside the replies, .svg)")
    says.add_argument(
        "--by", choices=("strict", "lenient"), default="lenient", help="which reading is drawn and compared"
    )
    says.add_argument("--json", action="store_true", help="print the figures as JSON instead of a table")
    return parser


def _plan(args: argparse.Namespace) -> _Plan:
    """Everything that can be known without asking. Raises DataError and ValueError."""
    for name in ("count", "shots", "max_tokens"):
        if getattr(args, name) < 0:
            raise ValueError(f"--{name.replace('_', '-')} can't be negative")
    if args.concurrency < 1:
        raise ValueError("--concurrency is at least 1")
    counts = [_whole(text) for text in _listed(args.samples)]
    settings = setting_grid(_listed(args.budgets), counts, _listed(args.votes), _listed(args.stops))
    if args.task:
        count = args.count or 50
        pool, source = gym_problems(args.task, count + args.shots, args.seed), args.task
    else:
        count, pool, source = args.count, read_problems(args.data), args.data.name
    examples, problems = choose(pool, count, args.shots, args.seed)
    form = ANSWER_FORMS[args.form]
    chats = {problem.id: chat_messages(problem, form, examples) for problem in problems}
    about = {
        "data": source,
        "questions": len(problems),
        "digest": digest(problems, chats),
        "shots": args.shots,
        "form": args.form,
        "seed": args.seed,
        "temperature": args.temperature,
        "max_tokens": args.max_tokens,
        "model": args.model,
    }
    name = source.partition(":")[0].removesuffix(".gz").removesuffix(".jsonl")
    seeds = {problem.id: args.seed + 1009 * place for place, problem in enumerate(problems)}
    return _Plan(problems, chats, seeds, settings, about, args.out or Path(f"eval-{name}.jsonl"))


def _answer(plan: _Plan, replies: ReplyLog, args: argparse.Namespace) -> bool:
    """Asks what is missing, on a gateway of its own where none is named; whether some stayed missing."""
    missing = [
        (problem, setting)
        for problem in plan.problems
        for setting in plan.settings
        if (setting.name, problem.id) not in replies
    ]
    if not missing:
        return False
    if args.url:
        return asyncio.run(_ask(plan, replies, missing, args.url, args))
    if not args.serve:
        raise EvaluationFailed("no gateway is named; give its address with --url")
    with run_gateway(args.serve) as url:
        return asyncio.run(_ask(plan, replies, missing, url, args))


async def _ask(
    plan: _Plan,
    replies: ReplyLog,
    missing: Sequence[tuple[EvaluationProblem, EvaluationSetting]],
    url: str,
    args: argparse.Namespace,
) -> bool:
    async with open_client(url, args.timeout) as client:
        model = replies.about["model"] or await client.served_model()
        replies.begin(model)
        work = [
            EvaluationRequest(setting, problem, plan.body(problem, model)) for problem, setting in missing
        ]
        done = len(plan.problems) * len(plan.settings) - len(work)
        find = ANSWER_FORMS[args.form].find
        failures = await evaluate_all(
            client, work, find, replies.add, concurrency=args.concurrency, done=done
        )
    for work_failed, reason in failures[:5]:
        _told(f"question {work_failed.problem.id} at {work_failed.setting.name}: {reason}", 1)
    if failures:
        _told(f"{len(failures)} replies are missing; the same command asks for them again", 1)
    return bool(failures)


def _report(plan: _Plan, replies: ReplyLog, args: argparse.Namespace) -> int:
    asked = plan.chats.keys()
    figures = summarise(plan.settings, (reply for reply in replies if reply.id in asked))
    if not figures:
        return _told("no replies, so no figures", 1)
    best = [
        figures[place].setting
        for place in pareto_frontier([(f.tokens, f.share(args.by).percent) for f in figures])
    ]
    summary = json.dumps(_summary(replies.about, figures, best, args.by), indent=1)
    (args.summary or plan.out.with_suffix(".json")).write_text(summary + "\n", encoding="utf-8")
    (args.plot or plan.out.with_suffix(".svg")).write_text(picture(figures, best, args.by), encoding="utf-8")
    if args.json:
        print(summary)
        return 0
    console = Console()
    console.print(
        metrics_table(
            figures,
            best,
            args.by,
            f"{replies.about['model']}: {len(asked)} questions of {plan.about['data']}",
        )
    )
    console.print(f"On the pareto_frontier by {args.by}: {'; '.join(setting.name for setting in best)}.")
    return 0


def _summary(
    about: Mapping[str, Any], figures: Sequence[SettingMetrics], best: Sequence[EvaluationSetting], by: str
) -> dict[str, Any]:
    rows = []
    for figure in figures:
        row = {key: _rounded(value) for key, value in asdict(figure).items() if key != "setting"}
        rows.append(
            {"name": figure.setting.name, **asdict(figure.setting), **row, "frontier": figure.setting in best}
        )
    return {
        "about": dict(about),
        "by": by,
        "frontier": [setting.name for setting in best],
        "settings": rows,
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return round(value, 3) if isinstance(value, float) else value


def _listed(text: str) -> list[str]:
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise ValueError("a list of the grid is empty")
    return items


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is no number of samples")
    return int(text)


def _told(message: object, status: int) -> int:
    print(f"thinkgate eval: {message}", file=sys.stderr)
    return status
