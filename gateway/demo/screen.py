"""The demo's screen: pure functions from replies to what rich draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.demo.client import DemoReply, SampleSeen
from gateway.demo.questions import DemoSetting, Question

__all__ = ["Result", "closing_words", "live_view", "question_lines", "results_table"]

_BAR = 24
_EXAMPLE = "Ada has 23 pens. Ada buys 18 more and gives away 9. How many pens are left?"
_STATUS = {
    "finished": ("●", "green"),
    "truncated": ("✂", "yellow"),
    "unanswered": ("○", "yellow"),
    "failed": ("✗", "red"),
    "aborted": ("–", "dim"),
}


@dataclass(frozen=True, slots=True)
class Result:
    """One question at one setting. `right` is None if the grader could not decide."""

    setting: DemoSetting
    right: bool | None
    tokens: int
    seconds: float
    samples: int


def live_view(question: Question, setting: DemoSetting, reply: DemoReply, width: int) -> RenderableType:
    """Draw a question while its reply arrives: finished samples, the vote so far, thinking and answer."""
    parts: list[RenderableType] = [Text(f"  {question.short}", "bold")]
    if setting.samples > 1:
        parts += [_samples(reply, setting), *_votes(reply.groups)]
    last = reply.samples[-1] if reply.samples else None
    thinking = reply.reasoning or (last.reasoning if last else "")
    answer = reply.content or (last.content if last else "")
    if setting.thinks:
        parts.append(_end_of("thinking", thinking, width, "dim italic"))
    parts.append(_end_of("answer", answer, width, ""))
    return Group(*parts)


def question_lines(question: Question, reply: DemoReply, result: Result) -> RenderableType:
    """Draw an answered question so that it reads well in a log too."""
    mark, style = {True: ("✓", "bold green"), False: ("✗", "red"), None: ("?", "yellow")}[result.right]
    answer = (_flat(reply.content) or "(no answer)", "bold" if result.right else "")
    lines = Table.grid(expand=True, padding=(0, 1, 0, 0))
    lines.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    lines.add_column(justify="right", no_wrap=True, style="dim")
    lines.add_row(
        Text.assemble((f"  {mark} ", style), f"{question.short}  ", answer),
        f"{result.tokens} tokens {result.seconds:5.1f} s",
    )
    if reply.groups:
        votes = ", ".join(
            f"{_flat(text)[:24]} ×{count}" + (f" (weight {weight:.2f})" if weight != count else "")
            for text, count, weight in reply.groups[:5]
        )
        lines.add_row(Text(f"    vote: {votes}", "cyan"))
    if reply.reasoning:
        lines.add_row(Text(f"    thinking: {_flat(reply.reasoning)}", "dim italic"))
    return lines


def results_table(results: Sequence[Result], settings: Sequence[DemoSetting]) -> Table:
    """Draw one row for each setting: correct answers, and their cost."""
    table = Table(title="Right answers and cost of each setting", title_justify="left")
    for name in ("budget", "samples", "vote", "right", "tokens", "samples drawn", "seconds"):
        table.add_column(name, justify="left" if name in ("budget", "vote") else "right")
    for setting in settings:
        own = [result for result in results if result.setting == setting]
        if not own:
            continue
        table.add_row(
            setting.budget,
            str(setting.samples),
            setting.vote,
            f"{sum(result.right is True for result in own)} of {len(own)}",
            f"{sum(result.tokens for result in own):,}",
            str(sum(result.samples for result in own)),
            f"{sum(result.seconds for result in own):.1f}",
        )
    return table


def closing_words(base_url: str, model: str) -> str:
    """Return what to paste next: a curl command, and the same request with OpenAI's client."""
    return f"""\
Ask your own question:

curl {base_url}/chat/completions -H 'Content-Type: application/json' \\
  -H 'X-Reasoning-Budget: high' -H 'X-Samples: 8' \\
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "{_EXAMPLE}"}}]}}'

from openai import OpenAI

client = OpenAI(base_url="{base_url}", api_key="none")
reply = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "{_EXAMPLE}"}}],
    extra_headers={{"X-Reasoning-Budget": "high", "X-Samples": "8"}},
)
print(reply.choices[0].message.content)
print(reply.model_extra["scaling"]["vote"])
"""


def _samples(reply: DemoReply, setting: DemoSetting) -> Text:
    line = Text.assemble(("  samples   ", "dim"))
    for sample in reply.samples:
        symbol, style = _STATUS.get(sample.status, ("?", ""))
        line.append(f"{symbol} ", style)
        line.append(f"{_label(sample)}  ", "")
    waiting = setting.samples - len(reply.samples)
    line.append("· " * waiting, "dim")
    return line


def _label(sample: SampleSeen) -> str:
    if sample.answer is not None:
        return _flat(sample.answer)[:12]
    return {"unanswered": "no answer", "truncated": "cut"}.get(sample.status, sample.status)


def _votes(groups: Sequence[tuple[str, int, float]]) -> list[Text]:
    largest = max((count for _, count, _ in groups), default=1)
    return [
        Text.assemble(
            ("  vote      " if index == 0 else "            ", "dim"),
            (f"{_flat(answer)[:16]:<16} ", "bold" if index == 0 else ""),
            ("█" * max(1, _BAR * count // largest), "green" if index == 0 else "blue"),
            f" {count}",
        )
        for index, (answer, count, _) in enumerate(groups[:4])
    ]


def _end_of(label: str, text: str, width: int, style: str) -> Text:
    """Return the end of a text on one line of the screen."""
    flat, room = _flat(text), max(width - 14, 20)
    if len(flat) > room:
        flat = "…" + flat[-(room - 1) :]
    return Text.assemble((f"  {label:<9} ", "dim"), (flat, style))


def _flat(text: str) -> str:
    return " ".join(text.split())
