"""The demo from beginning to end."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any

from rich.console import Console
from rich.live import Live

from gateway.config import ConfigError, Settings, load_settings
from gateway.demo.bundled import CHECKER, with_bundled
from gateway.demo.client import DemoFailed, DemoReply, ask, served_model
from gateway.demo.questions import CHECKED, QUESTIONS, SETTINGS, DemoSetting, Question
from gateway.demo.screen import Result, closing_words, live_view, question_lines, results_table
from gateway.demo.server import listen, serving
from gateway.upstreams.embedded.model_store import ModelUnavailable, ensure_model
from scorers.answers import verify

__all__ = ["add_parser", "run"]

_INTERRUPTED = 130  # the shell's status for a command that Ctrl-C ended


def add_parser(subparsers: Any) -> None:
    """Adds `demo` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "demo", help="ask ten questions at several budgets, then keep serving"
    )
    parser.add_argument("--port", type=int, help="port to listen on (8000; 0: any free one)")
    parser.add_argument("--once", action="store_true", help="end after the questions")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serves, asks, shows; returns the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `docker stop` and Ctrl-C are the same
    console = Console(highlight=False)
    try:
        return _demo(console, with_bundled(load_settings(port=arguments.port)), once=arguments.once)
    except (ConfigError, DemoFailed, ModelUnavailable) as error:
        print(f"thinkgate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _demo(console: Console, settings: Settings, *, once: bool) -> int:
    with listen(settings) as listener:
        if settings.upstream is None and settings.embedded_model is None:
            ensure_model()  # here, where pip's progress can be seen
        console.print("Starting the engine ...", style="dim")
        with serving(settings, listener) as gateway:
            # Bound to all addresses, the gateway is reached at this machine's own.
            host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "") else settings.host
            address = (host, listener.getsockname()[1])
            model = served_model(address)
            rounds = (*SETTINGS, CHECKED) if CHECKER in settings.scorers else SETTINGS
            _ask_all(console, address, model, rounds)
            base_url = f"http://{address[0]}:{address[1]}/v1"
            console.print(closing_words(base_url, model), markup=False, soft_wrap=True)
            if once:
                return 0
            console.print(f"Serving on {base_url} until Ctrl-C.", style="bold", soft_wrap=True)
            with suppress(KeyboardInterrupt):
                gateway.join()
            return 0


def _ask_all(console: Console, address: tuple[str, int], model: str, rounds: Sequence[DemoSetting]) -> None:
    console.print(f"{model} gets ten questions, at {len(rounds)} settings.", style="bold")
    results = []
    for setting in rounds:
        console.print(f"\n{setting.describe()}", style="bold cyan")
        results += [_ask(console, address, model, question, setting) for question in QUESTIONS]
    console.print()
    console.print(results_table(results, rounds))
    console.print()


def _ask(
    console: Console, address: tuple[str, int], model: str, question: Question, setting: DemoSetting
) -> Result:
    """One question: shown live where the terminal can, and for good once it is answered."""
    reply = DemoReply()
    with Live(console=console, transient=True) if _moves(console) else nullcontext() as live:
        for reply in ask(address, model, question, setting):
            if live is not None:
                live.update(live_view(question, setting, reply, console.width))
    right = verify(reply.content, question.gold)
    drawn = reply.counts.get("launched", setting.samples)
    result = Result(setting, right, reply.tokens, reply.seconds, drawn)
    console.print(question_lines(question, reply, result))
    return result


def _moves(console: Console) -> bool:
    """Whether lines can be drawn over: not in a log, nor on a dumb terminal."""
    return console.is_terminal and not console.is_dumb_terminal
