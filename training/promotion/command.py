"""`thinkgate promote`: a candidate model takes over from the current one, a share of the traffic at a time.

Through a running gateway whose `aliases` file it may replace:

1. a LoRA adapter (--adapter) is loaded into the running vLLM (--engine), under the candidate's name;
2. both models are asked the same questions with the same seeds; the candidate has to be better on
   what it was trained on (--trained) and must not have lost on the rest (--untouched, unless
   --no-untouched is said), both by the 95% interval of the paired difference;
3. the alias moves to it by --steps; in each the gateway's metrics are watched (failures, seconds,
   agreement in votes), and what is bad is rolled back at once.

Everything it needs to go on, or back (--rollback), is in the directory --out. Exit status: 0 promoted,
1 can't go on (the same command tries again), 2 wrong arguments, 3 refused, 4 rolled back.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import quote

import aiohttp

from training.data.problems import DataError
from training.evaluation.answer_forms import ANSWER_FORMS
from training.evaluation.client import RequestFailed, open_client
from training.evaluation.metrics import GradingMode
from training.evaluation.replies import ReplyLogError
from training.evaluation.runner import EvaluationFailed
from training.evaluation.settings import setting_grid
from training.promotion.compare import ComparisonSettings, DataSet, evaluate_both, load_data_set
from training.promotion.decisions import (
    PromotionDecision,
    Targets,
    TrafficLimits,
    assess_traffic,
    decide_promotion,
    next_share,
    split_traffic,
)
from training.promotion.deployment import (
    DeploymentFailed,
    PromotionState,
    load_adapter,
    read_aliases,
    read_state,
    read_traffic,
    replace_alias,
    save_state,
    write_aliases,
)

__all__ = ["main"]

_FAILED, _MISUSED, _REFUSED, _ROLLED_BACK, _INTERRUPTED = 1, 2, 3, 4, 130
_TAKEN_UP = 30.0  # seconds for the gateway to read a new aliases file
_STATE = "promotion.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; see the module for its exit status."""
    args = _parser().parse_args(arguments)
    try:
        job = _job(args)
    except (DataError, DeploymentFailed, ValueError) as error:
        return _told(error, _MISUSED)
    try:
        return asyncio.run(_rollback(job, "by hand") if args.rollback else _promote(job, args))
    except (RequestFailed, EvaluationFailed, DeploymentFailed, ReplyLogError, OSError) as error:
        return _told(error, _FAILED)
    except KeyboardInterrupt:
        return _told(f"stopped; the same command goes on from {job.out}, --rollback goes back", _INTERRUPTED)


@dataclass(frozen=True, slots=True)
class _Job:
    """What the command is about: the gateway, the file it reads aliases from, and how to go about it."""

    url: str
    aliases: Path
    out: Path
    alias: str
    candidate: str
    current: str
    data: tuple[DataSet, ...]
    terms: ComparisonSettings
    limits: TrafficLimits
    steps: tuple[float, ...]
    watch: float
    poll: float
    patience: float

    @property
    def state_file(self) -> Path:
        """Where the state is kept."""
        return self.out / _STATE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="thinkgate promote", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("candidate", nargs="?", help="the candidate's name, as the gateway serves it")
    parser.add_argument("--rollback", action="store_true", help="give the alias back to what it stood for")
    parser.add_argument("--evaluate-only", action="store_true", help="compare, and move nothing")
    where = parser.add_argument_group("where")
    where.add_argument("--url", required=True, help="the running gateway, as http://127.0.0.1:8000/v1")
    where.add_argument("--aliases", type=Path, required=True, help="the aliases file that it reads")
    where.add_argument("--alias", help="the alias to move")
    where.add_argument("--current", help="the model to compare with (the alias's largest target)")
    where.add_argument("--out", type=Path, help="replies and state (promote-<candidate>)")
    where.add_argument("--adapter", help="a LoRA directory, as the engine's machine sees it")
    where.add_argument("--engine", help="the vLLM that loads it, as http://gpu-box:8000")
    what = parser.add_argument_group("evaluation; DATA is a file of JSON lines or a reasoning-gym task")
    what.add_argument("--trained", action="append", default=[], metavar="DATA", help="may be repeated")
    what.add_argument("--untouched", action="append", default=[], metavar="DATA", help="may be repeated")
    what.add_argument("--no-untouched", action="store_true", help="compare on no other abilities")
    what.add_argument("--count", type=int, default=0, help="questions (all of a file, 100 of a task)")
    what.add_argument("--gain", type=float, default=0.0, help="points that trained sets must gain (0)")
    what.add_argument("--loss", type=float, default=5.0, help="points that untouched sets may lose (5)")
    what.add_argument("--budget", default="default", help="a level or thinking tokens")
    what.add_argument("--samples", type=int, default=1)
    what.add_argument("--vote", default="majority")
    what.add_argument("--stop", default="adaptive")
    what.add_argument("--form", choices=ANSWER_FORMS, default="boxed")
    what.add_argument("--by", choices=("strict", "lenient"), default="lenient")
    what.add_argument("--seed", type=int, default=1)
    what.add_argument("--temperature", type=float, default=0.7)
    what.add_argument("--max-tokens", type=int, default=0)
    what.add_argument("--concurrency", type=int, default=4)
    move = parser.add_argument_group("moving")
    move.add_argument("--steps", default="5,25,50,100", help="the candidate's shares in percent")
    move.add_argument("--watch", type=float, default=300.0, help="seconds at each step, at least (300)")
    move.add_argument("--patience", type=float, default=3600.0, help="seconds to wait for traffic (3600)")
    move.add_argument("--poll", type=float, default=5.0, help="seconds between looks at the metrics (5)")
    move.add_argument("--requests", type=int, default=20, help="requests to be seen at each step (20)")
    move.add_argument("--errors", type=float, default=2.0, help="points more that may fail (2)")
    move.add_argument("--slower", type=float, default=1.5, help="times the mean seconds (1.5)")
    move.add_argument("--agreement", type=float, default=10.0, help="points of votes' agreement less (10)")
    return parser


def _job(args: argparse.Namespace) -> _Job:
    """Everything that can be known without asking. Raises DataError, DeploymentFailed and ValueError."""
    if args.out is None and args.candidate is None:
        raise ValueError("name the candidate, or with --rollback the directory --out")
    out = args.out or Path(f"promote-{args.candidate.replace('/', '_')}")
    state = read_state(out / _STATE)
    alias = args.alias or (state.alias if state else None)
    candidate = args.candidate or (state.candidate if state else None)
    if args.rollback and state is None:
        raise ValueError(f"{out} holds no promotion to go back from")
    if alias is None or candidate is None:
        raise ValueError("name the candidate, and the alias with --alias")
    held = read_aliases(args.aliases).get(alias, ())
    largest = max(held, key=lambda target: target[1], default=(None, 0.0))[0]
    under_way = state is not None and (args.rollback or state.status == "moving")
    current = args.current or (state.current if state and under_way else largest)
    if current is None or current == candidate:
        raise ValueError("name the model to compare with, another than the candidate, with --current")
    if not args.rollback and not args.trained:
        raise ValueError("name at least one data set with --trained")
    if not args.rollback and bool(args.untouched) == args.no_untouched:
        raise ValueError(
            "name a data set that it was not trained on with --untouched, or do without by --no-untouched"
        )
    if (args.adapter is None) != (args.engine is None):
        raise ValueError("--adapter and --engine go together")
    steps = tuple(float(part) for part in args.steps.split(","))
    if list(steps) != sorted(set(steps)) or not 0 < steps[0] <= steps[-1] == 100:
        raise ValueError("--steps grow from above 0 to 100")
    sources = (
        [] if args.rollback else [*((s, True) for s in args.trained), *((s, False) for s in args.untouched)]
    )
    return _Job(
        args.url.rstrip("/"),
        args.aliases,
        out,
        alias,
        candidate,
        current,
        tuple(load_data_set(source, args.count, args.seed, trained=trained) for source, trained in sources),
        ComparisonSettings(
            setting_grid([args.budget], [args.samples], [args.vote], [args.stop])[0],
            args.form,
            args.seed,
            args.temperature,
            args.max_tokens,
            args.concurrency,
        ),
        TrafficLimits(args.errors, args.slower, args.agreement, args.requests),
        steps,
        args.watch,
        args.poll,
        args.patience,
    )


async def _promote(job: _Job, args: argparse.Namespace) -> int:
    job.out.mkdir(parents=True, exist_ok=True)
    state = read_state(job.state_file)
    if args.adapter is not None:
        async with _session("THINKGATE_UPSTREAM_KEY") as engine:
            await load_adapter(engine, args.engine, job.candidate, args.adapter)
        print(f"{args.engine} serves {job.candidate}")
    async with _session("THINKGATE_KEY") as http:
        if state is None or state.status != "moving":
            found = await _evaluate(job, args.gain, args.loss, args.by)
            if not found.passed:
                return _told("refused: " + "; ".join(found.reasons), _REFUSED)
            if args.evaluate_only:
                return 0
            before = read_aliases(job.aliases).get(job.alias, ())
            state = PromotionState(job.alias, job.current, job.candidate, before)
            save_state(job.state_file, state)
        elif (state.alias, state.candidate) != (job.alias, job.candidate):
            raise DeploymentFailed(
                f"{job.out} is about {state.candidate} for {state.alias}; choose another --out"
            )
        return await _move(job, state, http)


async def _evaluate(job: _Job, gain: float, loss: float, by: GradingMode) -> PromotionDecision:
    models = (job.current, job.candidate)
    async with open_client(job.url, 600) as client:
        sets = [await evaluate_both(client, data, models, job.terms, job.out, by=by) for data in job.data]
    found = decide_promotion(sets, gain=gain, loss=loss, seed=job.terms.seed)
    for each in found.comparisons:
        kind = "trained" if each.trained else "untouched"
        figures = f"{job.current} {each.current:.1f}%, {job.candidate} {each.candidate:.1f}%"
        interval = f"95%: {each.low:+.1f} to {each.high:+.1f}; p = {each.p:.3f}"
        print(f"{each.name} ({kind}, {each.questions} questions): {figures}, ", end="")
        print(f"{each.difference:+.1f} points ({interval})")
    told = {"current": job.current, "candidate": job.candidate, **asdict(found)}
    (job.out / "verdict.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return found


async def _move(job: _Job, state: PromotionState, http: aiohttp.ClientSession) -> int:
    """Step by step to the last share; rolls back where a step turns out bad."""
    usual = read_traffic(await _metrics(job, http), job.alias, job.current)
    while (share := next_share(job.steps, state.share)) is not None:
        seen = read_traffic(await _metrics(job, http), job.alias, job.candidate)
        await _put(job, http, split_traffic(job.current, job.candidate, share))
        print(f"{job.alias}: {share:g}% to {job.candidate}", flush=True)
        waited, found, why = 0.0, "wait", ""
        while found != "bad" and (waited < job.watch or (found == "wait" and waited < job.patience)):
            await asyncio.sleep(job.poll)
            waited += job.poll
            metrics = await _metrics(job, http)
            current = read_traffic(metrics, job.alias, job.current).since(usual)
            candidate = read_traffic(metrics, job.alias, job.candidate).since(seen)
            found, why = assess_traffic(current, candidate, job.limits)
        print(f"  {why}", flush=True)
        if found == "bad":
            return await _rollback(job, why)
        if found == "wait":
            raise DeploymentFailed(
                f"too little traffic to go on from {share:g}% ({why}); the same command goes on"
            )
        state = state.moved(share)
        save_state(job.state_file, state)
    save_state(job.state_file, replace(state, status="done"))
    print(f"{job.alias} is {job.candidate} now; --rollback goes back to {job.current}")
    return 0


async def _rollback(job: _Job, reason: str) -> int:
    """Gives the alias back to what it stood for before; by hand that is what was asked for."""
    state = read_state(job.state_file)
    if state is None:
        raise DeploymentFailed(f"{job.out} holds no promotion to go back from")
    write_aliases(job.aliases, replace_alias(read_aliases(job.aliases), state.alias, state.before))
    save_state(job.state_file, replace(state, status="rolled back", reason=reason))
    async with _session("THINKGATE_KEY") as http:
        await _taken_up(job, http, state.before)
    by_hand = reason == "by hand"
    return _told(f"{state.alias} is rolled back: {reason}", 0 if by_hand else _ROLLED_BACK)


async def _put(job: _Job, http: aiohttp.ClientSession, targets: Targets) -> None:
    """Replaces the alias's targets and waits until the gateway has read them."""
    write_aliases(job.aliases, replace_alias(read_aliases(job.aliases), job.alias, targets))
    await _taken_up(job, http, targets)


async def _taken_up(job: _Job, http: aiohttp.ClientSession, targets: Targets) -> None:
    """Returns once the gateway says that the alias stands for these. Raises DeploymentFailed."""
    wanted = dict(targets) or None
    told: object = None
    waited = 0.0
    while waited < _TAKEN_UP:
        async with http.get(f"{job.url}/models/{quote(job.alias)}") as reply:
            listed = (await reply.json()).get("targets") if reply.status == 200 else None
        told = {target["model"]: target["share"] for target in listed} if listed else None
        if told == wanted:
            return
        await asyncio.sleep(min(job.poll, 0.25))
        waited += min(job.poll, 0.25)
    raise DeploymentFailed(f"{job.url} has not taken up {job.aliases}: {job.alias} is {told}, not {wanted}")


async def _metrics(job: _Job, http: aiohttp.ClientSession) -> str:
    """The gateway's own exposition."""
    try:
        async with http.get(f"{job.url.removesuffix('/v1')}/metrics") as reply:
            reply.raise_for_status()
            return await reply.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise DeploymentFailed(f"{job.url} shows no metrics ({error or type(error).__name__})") from error


def _session(variable: str) -> aiohttp.ClientSession:
    """A session that sends the key in this environment variable along, where there is one."""
    key = os.environ.get(variable)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=120))


def _told(message: object, status: int) -> int:
    print(f"thinkgate promote: {message}", file=sys.stderr)
    return status
