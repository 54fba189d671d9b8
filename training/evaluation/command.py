"""`thinkgate eval`: measure accuracy and cost of a gateway on a data set, over a grid of settings.

The evaluation speaks HTTP only, so it measures what clients get. It appends each reply to a
file; the same command resumes an interrupted run and asks only the missing questions.
Two accuracies are reported. The strict one accepts an answer only in the form that the prompt
asked for. The lenient one uses the gateway's own grader, which accepts an answer in any form.
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

from policies.chart import ChartsUnavailable
from training.data.gym import gym_problems
from training.data.problems import DataError, choose_problems, problems_digest
from training.data.readers import read_answered
from training.evaluation.answer_forms import ANSWER_FORMS, chat_messages
from training.evaluation.client import RequestFailed, open_client
from training.evaluation.gateway_process import GatewayStartFailed, run_gateway
from training.evaluation.metrics import GradingMode, SettingMetrics, pareto_frontier, summarise
from training.evaluation.plots import evaluation_chart
from training.evaluation.replies import ReplyLog, ReplyLogError, open_reply_log
from training.evaluation.runner import EvaluationFailed, EvaluationRequest, chat_body, evaluate_all
from training.evaluation.settings import EvaluationSetting, setting_grid
from training.evaluation.table import metrics_table
from training.types import Problem

__all__ = ["main"]

_INTERRUPTED = 130  # the shell's exit status for a command that Ctrl-C ended
_DEFAULT_TASK_COUNT = 50


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the evaluation; return 1 if replies are missing, 2 if the arguments are unusable."""
    args = _parser().parse_args(arguments)
    try:
        plan = _plan(args)
    except (DataError, ValueError) as error:
        return _fail(error, 2)
    try:
        with open_reply_log(plan.out, plan.about) as log:
            complete = _ask_missing(plan, log, args)
            return _report(plan, log, args) or (0 if complete else 1)
    except ReplyLogError as error:
        return _fail(error, 2)
    except (RequestFailed, EvaluationFailed, GatewayStartFailed, OSError) as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail(f"stopped; run the same command to resume from {plan.out}", _INTERRUPTED)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The problems, their chats by problem id, and the settings to evaluate.

    `about` holds everything that affects a reply; it is the first line of the reply log `out`.
    """

    problems: Sequence[Problem]
    chats: Mapping[str, list[dict[str, str]]]
    settings: Sequence[EvaluationSetting]
    about: Mapping[str, Any]
    out: Path

    def requests(self, model: str, log: ReplyLog) -> list[EvaluationRequest]:
        """Return the requests for everything that the log has no reply to."""
        return [
            EvaluationRequest(setting, problem, self._body(model, index, problem))
            for index, problem in enumerate(self.problems)
            for setting in self.settings
            if (setting.name, problem.id) not in log
        ]

    def _body(self, model: str, index: int, problem: Problem) -> dict[str, Any]:
        return chat_body(
            model,
            self.chats[problem.id],
            index=index,
            seed=self.about["seed"],
            temperature=self.about["temperature"],
            max_tokens=self.about["max_tokens"],
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="thinkgate eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = parser.add_argument_group("data, one of").add_mutually_exclusive_group(required=True)
    data.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="JSON lines with question (or problem) and answer; may be gzipped",
    )
    data.add_argument(
        "--task", metavar="NAME", help="a reasoning-gym task, as in chain_sum or chain_sum:max_terms=2"
    )
    parser.add_argument(
        "--count", type=int, default=0, help="number of questions (default: all of a file, 50 of a task)"
    )
    parser.add_argument("--seed", type=int, default=1, help="selects the questions and seeds the samples")
    parser.add_argument(
        "--shots", type=int, default=0, help="solved examples in each prompt (0); they are not asked"
    )
    parser.add_argument(
        "--form", choices=ANSWER_FORMS, default="boxed", help="how the prompt asks for the answer (boxed)"
    )
    axes = parser.add_argument_group("the grid, each a comma-separated list")
    axes.add_argument("--budgets", default="off", help="levels, numbers of tokens, auto, or default (off)")
    axes.add_argument("--samples", default="1", help="numbers of samples (1)")
    axes.add_argument("--votes", default="majority", help="votes; weighted:rm names a scorer (majority)")
    axes.add_argument("--stops", default="adaptive", help="stopping rules (adaptive)")
    requests = parser.add_argument_group("requests")
    requests.add_argument("--url", help="a running gateway, as http://127.0.0.1:8000/v1 (default: start one)")
    requests.add_argument(
        "--serve", metavar="COMMAND", help="a command that starts a gateway and prints its address"
    )
    requests.add_argument("--model", help="the model's name (default: the first that the gateway lists)")
    requests.add_argument("--temperature", type=float, default=0.7)
    requests.add_argument(
        "--max-tokens", type=int, default=0, help="limit for one sample, thinking included (none)"
    )
    requests.add_argument("--concurrency", type=int, default=4, help="questions in flight (4)")
    requests.add_argument("--timeout", type=float, default=600.0, help="seconds for one question (600)")
    results = parser.add_argument_group("results")
    results.add_argument("--out", type=Path, help="file for the replies (eval-<data>.jsonl)")
    results.add_argument("--summary", type=Path, help="file for the metrics (like --out, with .json)")
    results.add_argument("--plot", type=Path, help="file for the chart (like --out, with .svg)")
    results.add_argument(
        "--by", choices=("strict", "lenient"), default="lenient", help="which accuracy to plot and compare"
    )
    results.add_argument("--json", action="store_true", help="print the metrics as JSON, not as a table")
    return parser


def _plan(args: argparse.Namespace) -> _Plan:
    """Plan the evaluation without sending a request. Raises DataError and ValueError."""
    for name in ("count", "shots", "max_tokens"):
        if getattr(args, name) < 0:
            raise ValueError(f"--{name.replace('_', '-')} can't be negative")
    if args.concurrency < 1:
        raise ValueError("--concurrency must be at least 1")
    counts = [_parse_count(text) for text in _split(args.samples)]
    settings = setting_grid(_split(args.budgets), counts, _split(args.votes), _split(args.stops))
    if args.task:
        count = args.count or _DEFAULT_TASK_COUNT
        pool, source = gym_problems(args.task, count + args.shots, args.seed), args.task
    else:
        count, pool, source = args.count, read_answered(args.data), args.data.name
    examples, problems = choose_problems(pool, count, args.shots, args.seed)
    form = ANSWER_FORMS[args.form]
    chats = {problem.id: chat_messages(problem, form, examples) for problem in problems}
    about = {
        "data": source,
        "questions": len(problems),
        "problems_digest": problems_digest(problems, chats),
        "shots": args.shots,
        "form": args.form,
        "seed": args.seed,
        "temperature": args.temperature,
        "max_tokens": args.max_tokens,
        "model": args.model,
    }
    name = source.partition(":")[0].removesuffix(".gz").removesuffix(".jsonl")
    return _Plan(problems, chats, settings, about, args.out or Path(f"eval-{name}.jsonl"))


def _ask_missing(plan: _Plan, log: ReplyLog, args: argparse.Namespace) -> bool:
    """Ask what the log has no reply to; return whether the log is complete then.

    Starts a gateway if the arguments name none.
    """
    expected = {(setting.name, problem.id) for setting in plan.settings for problem in plan.problems}
    if all(key in log for key in expected):
        return True
    if args.url:
        return asyncio.run(_ask(plan, log, args.url, args))
    if not args.serve:
        raise EvaluationFailed("there is no gateway to ask; give its address with --url")
    with run_gateway(args.serve) as url:
        return asyncio.run(_ask(plan, log, url, args))


async def _ask(plan: _Plan, log: ReplyLog, url: str, args: argparse.Namespace) -> bool:
    async with open_client(url, args.timeout) as client:
        model = log.about["model"] or await client.served_model()
        log.begin(model)
        requests = plan.requests(model, log)
        failures = await evaluate_all(
            client,
            requests,
            ANSWER_FORMS[args.form].extract,
            log.add,
            concurrency=args.concurrency,
            completed=len(plan.problems) * len(plan.settings) - len(requests),
        )
    for request, reason in failures[:5]:
        _print_error(f"question {request.problem.id} at {request.setting.name}: {reason}")
    if failures:
        _print_error(f"{len(failures)} replies are missing; run the same command to ask for them again")
    return not failures


def _report(plan: _Plan, log: ReplyLog, args: argparse.Namespace) -> int:
    """Write the summary and the chart, and print the metrics."""
    metrics = summarise(plan.settings, (reply for reply in log if reply.id in plan.chats))
    if not metrics:
        return _fail("there are no replies to report", 1)
    points = [(measured.tokens, measured.accuracy(args.by).percent) for measured in metrics]
    frontier = [metrics[index].setting for index in pareto_frontier(points)]
    summary = json.dumps(_summary(log.about, metrics, frontier, args.by), indent=1)
    (args.summary or plan.out.with_suffix(".json")).write_text(summary + "\n", encoding="utf-8")
    try:
        chart = evaluation_chart(metrics, frontier, args.by)
        (args.plot or plan.out.with_suffix(".svg")).write_text(chart, encoding="utf-8")
    except ChartsUnavailable as error:
        _print_error(f"no chart is drawn: {error}")
    if args.json:
        print(summary)
        return 0
    console = Console()
    title = f"{log.about['model']}: {len(plan.chats)} questions of {plan.about['data']}"
    console.print(metrics_table(metrics, frontier, args.by, title))
    console.print(f"On the frontier by {args.by}: {'; '.join(setting.name for setting in frontier)}.")
    return 0


def _summary(
    about: Mapping[str, Any],
    metrics: Sequence[SettingMetrics],
    frontier: Sequence[EvaluationSetting],
    mode: GradingMode,
) -> dict[str, Any]:
    settings = []
    for measured in metrics:
        values = {key: _round_numbers(value) for key, value in asdict(measured).items() if key != "setting"}
        setting = measured.setting
        settings.append({"name": setting.name, **asdict(setting), **values, "frontier": setting in frontier})
    return {
        "about": dict(about),
        "by": mode,
        "frontier": [setting.name for setting in frontier],
        "settings": settings,
    }


def _round_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _round_numbers(item) for key, item in value.items()}
    return round(value, 3) if isinstance(value, float) else value


def _split(text: str) -> list[str]:
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise ValueError("a list of the grid is empty")
    return items


def _parse_count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a number of samples")
    return int(text)


def _print_error(message: object) -> None:
    print(f"thinkgate eval: {message}", file=sys.stderr)


def _fail(message: object, status: int) -> int:
    _print_error(message)
    return status
