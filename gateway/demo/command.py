"""The demo from start to end: serve, ask, show, keep serving."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress

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

__all__ = ["run_demo"]

_INTERRUPTED = 130  # the shell's status for a command that Ctrl-C ended


def run_demo(*, port: int | None, once: bool) -> int:
    """Run the demo and return its exit status; with `once`, stop after the questions."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `docker stop` then works as Ctrl-C does
    console = Console(highlight=False)
    try:
        return _demo(console, with_bundled(load_settings(port=port)), once=once)
    except (ConfigError, DemoFailed, ModelUnavailable) as error:
        print(f"thinkgate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _demo(console: Console, settings: Settings, *, once: bool) -> int:
    with listen(settings) as listener:
        if settings.upstream is None and settings.embedded_model is None:
            ensure_model()  # before the engine starts, so that pip's progress is visible
        console.print("Starting the engine ...", style="dim")
        with serving(settings, listener) as gateway:
            # A gateway that listens on all addresses is reached at the loopback address.
            host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "") else settings.host
            address = (host, listener.getsockname()[1])
            model = served_model(address)
            rounds = (*SETTINGS, CHECKED) if CHECKER in settings.scorers else SETTINGS
            _ask_all(console, address, model, rounds)
            base_url = f"http://{address[0]}:{address[1]}/v1"
            console.print(closing_words(base_url, model), markup=False, soft_wrap=True)
            if once:
                return 0
            with suppress(KeyboardInterrupt):  # from the first word that tells of it
                console.print(f"Serving on {base_url} until Ctrl-C.", style="bold", soft_wrap=True)
                gateway.join()
            return 0


def _ask_all(console: Console, address: tuple[str, int], model: str, rounds: Sequence[DemoSetting]) -> None:
    console.print(f"{model} answers ten questions at each of {len(rounds)} settings.", style="bold")
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
    """Ask one question: draw it live if the terminal can, then print its final lines."""
    reply = DemoReply()
    with Live(console=console, transient=True) if _is_live(console) else nullcontext() as live:
        for reply in ask(address, model, question, setting):
            if live is not None:
                live.update(live_view(question, setting, reply, console.width))
    right = verify(reply.content, question.gold)
    launched = reply.counts.get("launched", setting.samples)
    result = Result(setting, right, reply.tokens, reply.seconds, launched)
    console.print(question_lines(question, reply, result))
    return result


def _is_live(console: Console) -> bool:
    """Return whether lines can be redrawn, which neither a log nor a dumb terminal can."""
    return console.is_terminal and not console.is_dumb_terminal
