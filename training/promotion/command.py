"""`thinkgate promote`: a candidate model takes over from the current one, step by step.

It works through a running gateway, whose aliases file it may replace:

1. It loads a LoRA adapter (--adapter) into the running vLLM (--engine), under the candidate's name.
2. It asks both models the same questions with the same seeds. The candidate must be better on the data it
   was trained on (--trained), and must not be worse on other data (--untouched, or --no-untouched to skip
   this). Both are judged by the 95% interval of the paired difference.
3. It shifts the alias to the candidate by --steps, like a canary deployment. At each step it watches the
   gateway's metrics (failures, seconds, agreement in votes), and rolls back at once if they are bad.

The directory --out holds everything needed to resume, or to roll back (--rollback). Exit status: 0 promoted,
1 interrupted by a failure (the same command tries again), 2 wrong arguments, 3 refused, 4 rolled back.
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
from typing import Literal
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
_ALIAS_SECONDS = 30.0  # within which the gateway must read a new aliases file
_STATE_FILE = "promotion.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the module's docstring lists its exit statuses."""
    args = _parser().parse_args(arguments)
    try:
        promotion = _promotion(args)
    except (DataError, DeploymentFailed, ValueError) as error:
        return _fail(error, _MISUSED)
    try:
        if args.rollback:
            return asyncio.run(_roll_back(promotion, "by hand"))
        return asyncio.run(_promote(promotion, args))
    except (RequestFailed, EvaluationFailed, DeploymentFailed, ReplyLogError, OSError) as error:
        return _fail(error, _FAILED)
    except KeyboardInterrupt:
        message = f"stopped; run the same command to resume from {promotion.out}, or --rollback to undo it"
        return _fail(message, _INTERRUPTED)


@dataclass(frozen=True, slots=True)
class _Promotion:
    """One promotion: gateway, aliases file, the two models, and how to compare and watch them."""

    url: str
    aliases: Path
    out: Path
    alias: str
    candidate: str
    current: str
    data_sets: tuple[DataSet, ...]
    settings: ComparisonSettings
    limits: TrafficLimits
    steps: tuple[float, ...]
    watch: float
    poll: float
    patience: float

    @property
    def state_file(self) -> Path:
        """The file that holds the state."""
        return self.out / _STATE_FILE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="thinkgate promote", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("candidate", nargs="?", help="the candidate's name, as the gateway serves it")
    parser.add_argument("--rollback", action="store_true", help="restore the alias's original targets")
    parser.add_argument("--evaluate-only", action="store_true", help="compare, but shift no traffic")
    where = parser.add_argument_group("where")
    where.add_argument("--url", required=True, help="the running gateway, as http://127.0.0.1:8000/v1")
    where.add_argument("--aliases", type=Path, required=True, help="the gateway's aliases file")
    where.add_argument("--alias", help="the alias to shift")
    where.add_argument("--current", help="the model to compare with (the alias's largest target)")
    where.add_argument("--out", type=Path, help="directory for replies and state (promote-<candidate>)")
    where.add_argument("--adapter", help="a LoRA directory, as a path on the engine's machine")
    where.add_argument("--engine", help="the vLLM that loads the adapter, as http://gpu-box:8000")
    evaluation = parser.add_argument_group("evaluation; DATA is a file of JSON lines or a reasoning-gym task")
    evaluation.add_argument(
        "--trained", action="append", default=[], metavar="DATA",
        help="data the candidate was trained on; may be repeated",
    )  # fmt: skip
    evaluation.add_argument(
        "--untouched", action="append", default=[], metavar="DATA",
        help="data it was not trained on; may be repeated",
    )  # fmt: skip
    evaluation.add_argument("--no-untouched", action="store_true", help="compare on no other abilities")
    evaluation.add_argument(
        "--count", type=int, default=0, help="questions of each set (all of a file, 100 of a task)"
    )
    evaluation.add_argument("--gain", type=float, default=0.0, help="points that trained sets must gain (0)")
    evaluation.add_argument("--loss", type=float, default=5.0, help="points that untouched sets may lose (5)")
    evaluation.add_argument("--budget", default="default", help="a level or a number of thinking tokens")
    evaluation.add_argument("--samples", type=int, default=1)
    evaluation.add_argument("--vote", default="majority")
    evaluation.add_argument("--stop", default="adaptive")
    evaluation.add_argument("--form", choices=ANSWER_FORMS, default="boxed")
    evaluation.add_argument("--by", choices=("strict", "lenient"), default="lenient")
    evaluation.add_argument("--seed", type=int, default=1)
    evaluation.add_argument("--temperature", type=float, default=0.7)
    evaluation.add_argument("--max-tokens", type=int, default=0)
    evaluation.add_argument("--concurrency", type=int, default=4)
    traffic = parser.add_argument_group("traffic")
    traffic.add_argument("--steps", default="5,25,50,100", help="the candidate's shares in percent")
    traffic.add_argument("--watch", type=float, default=300.0, help="minimum seconds at each step (300)")
    traffic.add_argument(
        "--patience", type=float, default=3600.0, help="maximum seconds to wait for enough traffic (3600)"
    )
    traffic.add_argument(
        "--poll", type=float, default=5.0, help="seconds between readings of the metrics (5)"
    )
    traffic.add_argument("--requests", type=int, default=20, help="requests to see at each step (20)")
    traffic.add_argument(
        "--errors", type=float, default=2.0, help="additional failures allowed, in points (2)"
    )
    traffic.add_argument(
        "--slower", type=float, default=1.5, help="allowed multiple of the mean seconds (1.5)"
    )
    traffic.add_argument(
        "--agreement", type=float, default=10.0, help="allowed drop of the votes' agreement, in points (10)"
    )
    return parser


def _promotion(args: argparse.Namespace) -> _Promotion:
    """Plan the promotion without sending a request. Raises DataError, DeploymentFailed and ValueError."""
    if args.out is None and args.candidate is None:
        raise ValueError("name the candidate, or give the directory --out with --rollback")
    out = args.out or Path(f"promote-{args.candidate.replace('/', '_')}")
    state = read_state(out / _STATE_FILE)
    alias = args.alias or (state.alias if state else None)
    candidate = args.candidate or (state.candidate if state else None)
    if args.rollback and state is None:
        raise ValueError(f"{out} holds no promotion to roll back")
    if alias is None or candidate is None:
        raise ValueError("name the candidate, and the alias with --alias")
    targets = read_aliases(args.aliases).get(alias, ())
    largest = max(targets, key=lambda target: target[1], default=(None, 0.0))[0]
    resumed = state is not None and (args.rollback or state.status == "moving")
    current = args.current or (state.current if state and resumed else largest)
    if current is None or current == candidate:
        raise ValueError("name the model to compare with by --current; it can't be the candidate")
    sources: list[tuple[str, bool]] = []
    if not args.rollback:
        if not args.trained:
            raise ValueError("name at least one data set with --trained")
        if bool(args.untouched) == args.no_untouched:
            raise ValueError(
                "name a data set that the candidate was not trained on with --untouched, "
                "or skip this check with --no-untouched"
            )
        sources = [(source, True) for source in args.trained]
        sources += [(source, False) for source in args.untouched]
    if (args.adapter is None) != (args.engine is None):
        raise ValueError("--adapter and --engine need each other")
    steps = tuple(float(part) for part in args.steps.split(","))
    if list(steps) != sorted(set(steps)) or not 0 < steps[0] <= steps[-1] == 100:
        raise ValueError("--steps must increase from above 0 to 100")
    return _Promotion(
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


async def _promote(promotion: _Promotion, args: argparse.Namespace) -> int:
    promotion.out.mkdir(parents=True, exist_ok=True)
    state = read_state(promotion.state_file)
    if args.adapter is not None:
        async with _session("THINKGATE_UPSTREAM_KEY") as engine:
            await load_adapter(engine, args.engine, promotion.candidate, args.adapter)
        print(f"{args.engine} serves {promotion.candidate}")
    async with _session("THINKGATE_KEY") as http:
        if state is None or state.status != "moving":
            decision = await _compare(promotion, args.gain, args.loss, args.by)
            if not decision.passed:
                return _fail("refused: " + "; ".join(decision.reasons), _REFUSED)
            if args.evaluate_only:
                return 0
            before = read_aliases(promotion.aliases).get(promotion.alias, ())
            state = PromotionState(promotion.alias, promotion.current, promotion.candidate, before)
            save_state(promotion.state_file, state)
        elif (state.alias, state.candidate) != (promotion.alias, promotion.candidate):
            raise DeploymentFailed(
                f"{promotion.out} belongs to the promotion of {state.candidate} to {state.alias}; "
                "choose another --out"
            )
        return await _shift_traffic(promotion, state, http)


async def _compare(
    promotion: _Promotion, min_gain: float, max_loss: float, mode: GradingMode
) -> PromotionDecision:
    """Evaluate both models on every data set, print the comparisons and write them to verdict.json."""
    models = (promotion.current, promotion.candidate)
    async with open_client(promotion.url, 600) as client:
        outcomes = [
            await evaluate_both(client, data, models, promotion.settings, promotion.out, mode=mode)
            for data in promotion.data_sets
        ]
    decision = decide_promotion(outcomes, min_gain=min_gain, max_loss=max_loss, seed=promotion.settings.seed)
    for comparison in decision.comparisons:
        kind = "trained" if comparison.trained else "untouched"
        current = f"{promotion.current} {comparison.current:.1f}%"
        candidate = f"{promotion.candidate} {comparison.candidate:.1f}%"
        interval = f"95%: {comparison.low:+.1f} to {comparison.high:+.1f}; p = {comparison.p:.3f}"
        print(
            f"{comparison.name} ({kind}, {comparison.questions} questions): {current}, {candidate}, "
            f"{comparison.difference:+.1f} points ({interval})"
        )
    report = {"current": promotion.current, "candidate": promotion.candidate, **asdict(decision)}
    (promotion.out / "verdict.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return decision


async def _shift_traffic(promotion: _Promotion, state: PromotionState, http: aiohttp.ClientSession) -> int:
    """Raise the candidate's share step by step; roll back if its traffic is bad at a step."""
    current_before = read_traffic(await _metrics(promotion, http), promotion.alias, promotion.current)
    while (share := next_share(promotion.steps, state.share)) is not None:
        metrics = await _metrics(promotion, http)
        candidate_before = read_traffic(metrics, promotion.alias, promotion.candidate)
        await _set_targets(promotion, http, split_traffic(promotion.current, promotion.candidate, share))
        print(f"{promotion.alias}: {share:g}% to {promotion.candidate}", flush=True)
        waited = 0.0
        health: Literal["good", "bad", "wait"] = "wait"
        reason = ""
        while health != "bad" and (
            waited < promotion.watch or (health == "wait" and waited < promotion.patience)
        ):
            await asyncio.sleep(promotion.poll)
            waited += promotion.poll
            metrics = await _metrics(promotion, http)
            current = read_traffic(metrics, promotion.alias, promotion.current).since(current_before)
            candidate = read_traffic(metrics, promotion.alias, promotion.candidate).since(candidate_before)
            health, reason = assess_traffic(current, candidate, promotion.limits)
        print(f"  {reason}", flush=True)
        if health == "bad":
            return await _roll_back(promotion, reason)
        if health == "wait":
            raise DeploymentFailed(
                f"too little traffic at {share:g}% to go on ({reason}); run the same command to resume"
            )
        state = state.with_share(share)
        save_state(promotion.state_file, state)
    save_state(promotion.state_file, replace(state, status="done"))
    print(f"{promotion.alias} is {promotion.candidate} now; --rollback restores {promotion.current}")
    return 0


async def _roll_back(promotion: _Promotion, reason: str) -> int:
    """Restore the alias's original targets; the exit status is 0 if the user asked for it."""
    state = read_state(promotion.state_file)
    if state is None:
        raise DeploymentFailed(f"{promotion.out} holds no promotion to roll back")
    table = read_aliases(promotion.aliases)
    write_aliases(promotion.aliases, replace_alias(table, state.alias, state.before))
    save_state(promotion.state_file, replace(state, status="rolled back", reason=reason))
    async with _session("THINKGATE_KEY") as http:
        await _wait_for_targets(promotion, http, state.before)
    return _fail(f"{state.alias} is rolled back: {reason}", 0 if reason == "by hand" else _ROLLED_BACK)


async def _set_targets(promotion: _Promotion, http: aiohttp.ClientSession, targets: Targets) -> None:
    """Replace the alias's targets and wait until the gateway has read them."""
    table = read_aliases(promotion.aliases)
    write_aliases(promotion.aliases, replace_alias(table, promotion.alias, targets))
    await _wait_for_targets(promotion, http, targets)


async def _wait_for_targets(promotion: _Promotion, http: aiohttp.ClientSession, targets: Targets) -> None:
    """Return once the gateway reports these targets for the alias. Raises DeploymentFailed."""
    expected = dict(targets) or None
    reported: object = None
    interval = min(promotion.poll, 0.25)
    waited = 0.0
    while waited < _ALIAS_SECONDS:
        async with http.get(f"{promotion.url}/models/{quote(promotion.alias)}") as reply:
            listed = (await reply.json()).get("targets") if reply.status == 200 else None
        reported = {target["model"]: target["share"] for target in listed} if listed else None
        if reported == expected:
            return
        await asyncio.sleep(interval)
        waited += interval
    raise DeploymentFailed(
        f"{promotion.url} has not read {promotion.aliases}: {promotion.alias} is {reported}, not {expected}"
    )


async def _metrics(promotion: _Promotion, http: aiohttp.ClientSession) -> str:
    """Return the gateway's Prometheus metrics."""
    try:
        async with http.get(f"{promotion.url.removesuffix('/v1')}/metrics") as reply:
            reply.raise_for_status()
            return await reply.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise DeploymentFailed(
            f"{promotion.url} shows no metrics ({error or type(error).__name__})"
        ) from error


def _session(variable: str) -> aiohttp.ClientSession:
    """Return a session that sends the key in this environment variable, if it is set."""
    key = os.environ.get(variable)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=120))


def _fail(message: object, status: int) -> int:
    print(f"thinkgate promote: {message}", file=sys.stderr)
    return status
