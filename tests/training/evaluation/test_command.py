"""`thinkgate eval` end to end, on a gateway in front of a scripted engine."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from gateway.app import create_app
from gateway.config import Settings
from gateway.errors import UpstreamError
from tests.fakes import ScriptedUpstream, says, until
from tests.serving import serving, serving_in_thread
from training.evaluation.command import main

ROOT = Path(__file__).parents[3]
GOLDS = (7, 7, 8, 7)
GRID = ("--budgets", "off,64", "--samples", "1,3", "--stops", "none,adaptive")
SETTINGS = 2 * (1 + 2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of four questions; 7 is the answer to three of them."""
    path = tmp_path / "set.jsonl"
    problems = [{"question": f"Question {index}?", "answer": gold} for index, gold in enumerate(GOLDS)]
    path.write_text("".join(json.dumps(problem) + "\n" for problem in problems), encoding="utf-8")
    return path


@contextmanager
def gateway(*texts: str) -> Iterator[tuple[str, ScriptedUpstream]]:
    """Yield the address of a gateway and its engine, which replies with these texts."""
    upstream = ScriptedUpstream(*(says(text) for text in texts), strict=True)
    with serving_in_thread(create_app(Settings(), upstream)) as url:
        yield f"{url}/v1", upstream


def evaluate(data: Path, *arguments: str) -> int:
    """Evaluate this file; return the exit status."""
    return main(["--data", str(data), "--out", str(data.with_name("out.jsonl")), *arguments])


def summary_of(data: Path) -> dict[str, dict[str, Any]]:
    """Read the summary's settings by name, without the measured seconds."""
    summary = json.loads(data.with_name("out.json").read_text())
    return {
        setting["name"]: {key: value for key, value in setting.items() if key != "seconds"}
        for setting in summary["settings"]
    }


def replies_in(data: Path) -> list[dict[str, Any]]:
    """Read the replies in the reply log."""
    return [json.loads(line) for line in data.with_name("out.jsonl").read_text().splitlines()[1:]]


def test_every_question_is_asked_once_at_every_setting(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log holds one reply for each; the summary, the table and the chart show every setting."""
    with gateway("It is \\boxed{7}.") as (url, _):
        assert evaluate(data, "--url", url, *GRID) == 0
    keys = [(reply["setting"], reply["id"]) for reply in replies_in(data)]
    assert len(keys) == len(set(keys)) == SETTINGS * len(GOLDS)
    summary = summary_of(data)
    assert len(summary) == SETTINGS
    assert {setting["strict"]["percent"] for setting in summary.values()} == {75}
    assert summary["off"]["samples"] == 1
    assert summary["off@3 majority"]["samples"] == 3
    assert summary["off@3 majority"]["tokens"] > summary["off"]["tokens"]
    assert summary["off"]["frontier"]
    assert not summary["off@3 majority"]["frontier"]
    printed = capsys.readouterr().out
    assert all(name in printed for name in summary)
    titles = ElementTree.parse(data.with_name("out.svg")).iter("{http://www.w3.org/2000/svg}title")
    assert {(title.text or "").partition(":")[0] for title in titles} == summary.keys()


def test_without_matplotlib_there_is_no_chart(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The summary is written all the same, and the command says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with gateway("\\boxed{7}") as (url, _):
        assert evaluate(data, "--url", url) == 0
    assert "pip install 'thinkgate[plot]'" in capsys.readouterr().err
    assert summary_of(data)
    assert not data.with_name("out.svg").exists()


def test_strict_accuracy_requires_the_form_of_the_prompt(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An answer in another form is correct leniently only; --json prints the summary file."""
    with gateway("The answer is 7.") as (url, upstream):
        assert evaluate(data, "--url", url, "--json", "--shots", "1", "--max-tokens", "50") == 0
    (setting,) = summary_of(data).values()
    assert setting["questions"] == len(GOLDS) - 1, "one of the four is an example and is not asked"
    assert setting["strict"]["percent"] == 0
    assert setting["lenient"]["percent"] > 0
    assert json.loads(capsys.readouterr().out) == json.loads(data.with_name("out.json").read_text())
    body = upstream.bodies[0]
    assert "\\boxed{}" in body["messages"][-1]["content"]
    assert "\\boxed{" in body["messages"][1]["content"]


def test_a_vote_whose_scorer_failed_is_a_failed_request(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a vote ran unweighted, so its reply does not belong to the setting that names the scorer."""
    unreachable = {"kind": "trained", "url": "http://127.0.0.1:9", "unproven": True}
    app = create_app(
        Settings.model_validate({"scorers": {"rm": unreachable}}), ScriptedUpstream(says("\\boxed{7}"))
    )
    grid = ("--budgets", "off", "--samples", "3", "--stops", "none")
    with serving_in_thread(app) as url:
        assert evaluate(data, "--url", f"{url}/v1", *grid, "--votes", "weighted:rm") != 0
        assert 'the scorer "rm" failed' in capsys.readouterr().err
        assert evaluate(data, "--url", f"{url}/v1", *grid, "--votes", "weighted:agreement") == 0


def test_a_larger_grid_asks_only_the_new_settings(data: Path) -> None:
    """Earlier replies come from the log; a complete log needs no gateway."""
    with gateway("\\boxed{7}") as (url, upstream):
        assert evaluate(data, "--url", url, "--budgets", "off") == 0
        assert len(upstream.plans) == len(GOLDS)
        assert evaluate(data, "--url", url, "--budgets", "off,low") == 0
        assert len(upstream.plans) == 2 * len(GOLDS)
    assert evaluate(data, "--budgets", "off,low") == 0
    assert len(summary_of(data)) == 2


@pytest.mark.parametrize("cut", [3, -1, -40, -400])
def test_a_truncated_log_is_resumed(data: Path, cut: int) -> None:
    """Cut in its first line, its last line or further up, it ends with the results of an unbroken run."""
    with gateway("\\boxed{7}") as (url, _):
        assert evaluate(data, "--url", url) == 0
        unbroken = summary_of(data)
        out = data.with_name("out.jsonl")
        out.write_bytes(out.read_bytes()[:cut])
        assert evaluate(data, "--url", url) == 0
    assert summary_of(data) == unbroken
    assert len(replies_in(data)) == len(GOLDS)


@pytest.mark.parametrize(("signal_number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
async def test_a_killed_evaluation_resumes_with_the_same_results(
    data: Path, signal_number: signal.Signals, status: int
) -> None:
    """Logged replies are not asked again, and the metrics equal those of one run."""
    gate = asyncio.Event()
    upstream = ScriptedUpstream(says("\\boxed{7}"), says("\\boxed{7}"), says(gate, "\\boxed{7}"))
    out = data.with_name("out.jsonl")
    async with serving(create_app(Settings(), upstream)) as url:
        first = await start(data, "--url", f"{url}/v1", "--concurrency", "1")
        await until(lambda: len(upstream.plans) == 3 and out.read_bytes().count(b"\n") == 3, seconds=60)
        first.send_signal(signal_number)
        assert await first.wait() == status
        gate.set()
        second = await start(data, "--url", f"{url}/v1")
        assert await second.wait() == 0
        resumed, requests = summary_of(data), len(upstream.plans)
        out.unlink()
        third = await start(data, "--url", f"{url}/v1")
        assert await third.wait() == 0
    assert summary_of(data) == resumed
    assert requests == 3 + len(GOLDS) - 2


async def start(data: Path, *arguments: str) -> Process:
    """Start the evaluation as a child process."""
    out = str(data.with_name("out.jsonl"))
    command = (sys.executable, "-m", "training", "eval", "--data", str(data), "--out", out, *arguments)
    return await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL)


@pytest.mark.parametrize("changed", [("--seed", "2"), ("--form", "tag"), ("--model", "other")])
def test_another_evaluation_never_uses_the_same_log(
    data: Path, changed: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the option that differs from the log's, and nothing is asked."""
    with gateway("\\boxed{7}") as (url, upstream):
        assert evaluate(data, "--url", url) == 0
        requests = len(upstream.plans)
        assert evaluate(data, "--url", url, *changed) == 2
        assert len(upstream.plans) == requests
    errors = capsys.readouterr().err
    assert "holds another evaluation" in errors
    assert changed[0].removeprefix("--") in errors


def test_data_that_changed_is_another_evaluation(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A data set of the same name and size, but with another question, is refused."""
    with gateway("\\boxed{7}") as (url, _):
        assert evaluate(data, "--url", url) == 0
        data.write_text(data.read_text().replace("Question 0", "Question 9"))
        assert evaluate(data, "--url", url) == 2
    assert "digest" in capsys.readouterr().err


def test_missing_replies_are_reported(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A refused question does not count as wrong: it is named, the status is 1, and it is asked again."""
    refusal = UpstreamError(400, "the prompt is too long", {"type": "invalid_request_error"})
    upstream = ScriptedUpstream(says("\\boxed{7}"), says(refusal), says("\\boxed{7}"))
    with serving_in_thread(create_app(Settings(), upstream)) as url:
        assert evaluate(data, "--url", f"{url}/v1", "--concurrency", "1") == 1
        assert "question 2 at off: 400: the prompt is too long" in capsys.readouterr().err
        assert summary_of(data)["off"]["questions"] == len(GOLDS) - 1
        assert evaluate(data, "--url", f"{url}/v1") == 0
    assert summary_of(data)["off"]["questions"] == len(GOLDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budgets", "enormous"], "allowed: off"),
        (["--model", "nobody"], "nobody"),
    ],
)
def test_a_setting_that_the_gateway_refuses_ends_the_evaluation(
    data: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints the gateway's own message, and writes no summary."""
    with gateway("\\boxed{7}") as (url, _):
        assert evaluate(data, "--url", url, *arguments) == 1
    assert message in capsys.readouterr().err
    assert not data.with_name("out.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--votes", "lottery"], "unknown vote"),
        (["--samples", "few"], "'few' is not a number of samples"),
        (["--budgets", ","], "a list of the grid is empty"),
        (["--count", "9"], "there are 4"),
        (["--count", "-1"], "--count can't be negative"),
        (["--concurrency", "0"], "--concurrency"),
    ],
)
def test_unusable_arguments_are_refused(
    data: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The status is 2, with the reason, before any gateway is needed."""
    assert evaluate(data, *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("text", ["some notes\n", "some notes", '{"about": \n', '{"about": 3}\n'])
def test_a_foreign_file_is_left_alone(data: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that no evaluation wrote is named and not changed."""
    out = data.with_name("out.jsonl")
    out.write_text(text)
    assert evaluate(data) == 2
    assert str(out) in capsys.readouterr().err
    assert out.read_text() == text


def test_a_missing_gateway_is_an_error(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With neither an address nor a command, the status is 1 and the message names --url."""
    assert evaluate(data) == 1
    assert "--url" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["false", "no-such-command --at-all"])
def test_a_gateway_that_does_not_start_is_reported(
    data: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the command."""
    assert evaluate(data, "--serve", command) == 1
    assert command in capsys.readouterr().err


async def test_thinkgate_eval_starts_its_own_gateway(data: Path) -> None:
    """Without an address the command starts a gateway, asks it, and stops it."""
    from tests.stub_engine import Json, stub_engine

    reply = {"choices": [{"index": 0, "message": {"content": "\\boxed{7}"}, "finish_reason": "stop"}]}
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    async with stub_engine() as server:
        server.answers("/v1/chat/completions", *[Json({**reply, "usage": usage})] * len(GOLDS))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "eval", "--data", str(data), "--json", "--model", "tiny"),
            *("--budgets", "default", "--out", str(data.with_name("out.jsonl"))),
            cwd=ROOT,
            env={"THINKGATE_UPSTREAM": server.base_url},
            stdout=PIPE,
            stderr=PIPE,
        )
        async with asyncio.timeout(60):
            printed, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    (setting,) = json.loads(printed)["settings"]
    assert (setting["lenient"]["percent"], setting["tokens"]) == (75, 5)
